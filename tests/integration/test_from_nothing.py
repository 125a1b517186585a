"""docs/operations.md, "From nothing to two gateways", followed without systemd and without a container engine.

The commands of the section that change the machine (packages, users, units) are left out. The rest is done as written,
with other folders, ports and another PostgreSQL.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests import support
from tests.postgres import Postgres
from tests.support import ROOT, wait_until

OPERATIONS, UNIT, NGINX_UNIT, NGINX, CONTAINERFILE = (
    (ROOT / name).read_text()
    for name in (
        "docs/operations.md",
        "deploy/payment-gateway@.service",
        "deploy/payment-gateway-nginx.service",
        "deploy/nginx.conf",
        "deploy/Containerfile",
    )
)
SECTION = re.split(r"^##+ ", OPERATIONS[OPERATIONS.index("## From nothing") + 3 :], flags=re.MULTILINE)[0]
COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE))
INSTALLED = "/opt/payment-gateway"


def option(unit: str, name: str) -> str:
    """Return the value of an option that a unit has once."""
    (value,) = re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE)
    return str(value)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder with what the Containerfile copies, and with this environment in the place of its packages."""
    folder = tmp_path / "installed"
    (folder / ".venv").mkdir(parents=True)
    (folder / ".venv" / "run").symlink_to(sys.prefix)
    for sources, target in re.findall(r"^COPY (?!--from)(.*) (\S+)$", CONTAINERFILE, re.MULTILINE):
        for name in sources.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / target)
            else:
                shutil.copy(ROOT / name, folder / target)
    return folder


@pytest.fixture
def settings(tmp_path: Path, postgresql: Postgres) -> Path:
    """Return the folder of the settings, which the section writes, but for the database."""
    folder = tmp_path / "settings"
    folder.mkdir()
    (written,) = re.findall(r"^cat > /etc/payment-gateway/.env <<END\n.*?^END\n", COMMANDS, re.DOTALL | re.MULTILINE)
    subprocess.run(["sh", "-c", written.replace("/etc/payment-gateway", str(folder))], check=True)
    text = re.sub(r"(?m)^STORE_URL=.*", f"STORE_URL={postgresql.new_database()}", (folder / ".env").read_text())
    (folder / ".env").write_text(text)
    return folder


def operate(command: str, installed: Path, settings: Path) -> str:
    """Run a line of the section that begins with `gateway`, as the function in the section does, without `runuser`."""
    (function,) = re.findall(r"^gateway\(\) .*$", COMMANDS, re.MULTILINE)
    function = function.replace("runuser -u payment-gateway -- ", "").replace(INSTALLED, str(installed))
    script = f"{function.replace('/etc/payment-gateway', str(settings))}\n{command}"
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def free_instance() -> int:
    """Return a port that is free, as is the port with a 1 before it."""
    for port in range(5001, 9999):
        with ExitStack() as held:
            try:
                for each in (port, int(f"1{port}")):
                    held.enter_context(socket.create_server(("127.0.0.1", each)))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@contextmanager
def instance(installed: Path, settings: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run ExecStart of the unit's instance with a free port, until the block ends."""
    port = free_instance()
    command = option(UNIT, "ExecStart").replace(INSTALLED, str(installed)).replace("%i", str(port))
    name, _, value = option(UNIT, "Environment").replace("%i", str(port)).partition("=")
    assert option(UNIT, "WorkingDirectory") == "/etc/payment-gateway"
    with subprocess.Popen(
        command.split(),
        cwd=settings,
        env={"PATH": os.environ["PATH"], name: value},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(lambda: support.answers(f"http://127.0.0.1:{port}/health/ready"), 30)
            yield port, process
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_the_section_leads_to_a_payment(installed: Path, settings: Path, tmp_path: Path) -> None:
    """Both gateways become ready, and its curl pays through nginx, also once the first gateway is stopped."""
    commands = [line for line in COMMANDS.splitlines() if line.startswith("gateway ")]
    printed = [operate(command, installed, settings) for command in commands]
    key = next(line for text in printed for line in text.splitlines() if line.startswith("pgw_test_"))

    with instance(installed, settings) as (first, process), instance(installed, settings) as (second, _):
        for port in (first, second):
            assert requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=10).json()["status"] == "ready"
            assert "payment_gateway_" in requests.get(f"http://127.0.0.1:1{port}/metrics", timeout=10).text
        healthy(first)

        with support.free_port() as front:
            pass
        configuration = NGINX.replace("/tmp/", f"{tmp_path}/")  # noqa: S108
        for here, there in ((8000, front), (8001, first), (8002, second)):
            configuration = re.sub(rf"127\.0\.0\.1:{here}\b", f"127.0.0.1:{there}", configuration)
        (tmp_path / "nginx.conf").write_text(configuration)
        start = option(NGINX_UNIT, "ExecStart").replace("/etc/nginx/payment-gateway.conf", str(tmp_path / "nginx.conf"))
        with subprocess.Popen(start.replace("/usr/sbin/nginx", shutil.which("nginx") or "").split()) as nginx:
            wait_until(lambda: support.answers(f"http://127.0.0.1:{front}/health/live"))
            curl = COMMANDS[COMMANDS.index("API_KEY=") :].replace("pgw_test_...", key).replace(":8000", f":{front}")
            paid = json.loads(shell(curl).partition("\r\n\r\n")[2])
            assert paid["status"] == "AUTHORIZED"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert json.loads(shell(curl).partition("\r\n\r\n")[2]) == paid
            nginx.send_signal(signal.SIGQUIT)


def healthy(port: int) -> None:
    """Run the health check of the image."""
    (check,) = re.findall(r"^HEALTHCHECK.*\\\n +CMD (.*)$", CONTAINERFILE, re.MULTILINE)
    _, *arguments = json.loads(check.replace(":8000", f":{port}"))
    subprocess.run([sys.executable, *arguments], check=True, timeout=30)
    with support.free_port() as free:
        pass
    arguments[-1] = arguments[-1].replace(f":{port}", f":{free}")
    unhealthy = subprocess.run([sys.executable, *arguments], capture_output=True, timeout=30, check=False)
    assert unhealthy.returncode == 1


def shell(script: str) -> str:
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(["sh", "-c", script], env=environment, capture_output=True, check=True).stdout.decode()
