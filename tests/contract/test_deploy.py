"""The files in deploy/ for systemd and for containers, checked without either of them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import SETTINGS
from tests.support import ROOT

DEPLOY = ROOT / "deploy"
UNITS = ["payment-gateway@.service", "payment-gateway-nginx.service"]
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())

# What docs/operations.md says of the time of a stop, with the defaults of the settings.
STOP_S = sum(float(SETTINGS[name].default) for name in ("DRAIN_S", "BANK_CONNECT_TIMEOUT_S", "BANK_TIMEOUT_S")) + 16

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def unit(name: str, option: str) -> str:
    """Return the value of an option of a unit that has it once."""
    (value,) = re.findall(rf"^{option}=(.*)$", (DEPLOY / name).read_text(), re.MULTILINE)
    return str(value)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_no_fault(name: str, tmp_path: Path) -> None:
    """The unit is valid where the programs that it starts are installed."""
    text = (DEPLOY / name).read_text()
    for program in re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE):
        here = tmp_path / Path(program).name
        here.symlink_to(sys.executable)
        text = text.replace(program, str(here))
    (tmp_path / name).write_text(text)
    checked = run("systemd-analyze", "verify", str(tmp_path / name))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_hardened(name: str) -> None:
    """`systemd-analyze security` rates its exposure 2.0 or less, of 10."""
    rated = run("systemd-analyze", "security", "--offline=true", "--threshold=20", str(DEPLOY / name))
    assert rated.returncode == 0, rated.stdout + rated.stderr


def test_every_stop_may_take_as_long_as_a_gateway_needs() -> None:
    """Neither systemd nor Docker kills a gateway, or nginx in front of it, during its last payments."""
    graces = [unit(name, "TimeoutStopSec") for name in UNITS]
    graces += [COMPOSE["services"][name]["stop_grace_period"] for name in ("gateway-1", "gateway-2", "nginx")]
    assert all(float(grace.removesuffix("s")) > STOP_S for grace in graces)


def test_every_setting_in_deploy_exists() -> None:
    """The unit and compose.yaml set settings of config.py only."""
    names = re.findall(r"^Environment=(\w+)=", (DEPLOY / UNITS[0]).read_text(), re.MULTILINE)
    for service in ("gateway-1", "gateway-2"):
        names += COMPOSE["services"][service]["environment"]
    assert names
    assert set(names) <= set(SETTINGS)


def test_the_image_has_the_files_of_the_gateway() -> None:
    """The Containerfile copies each module and package that README.md lists, and nothing else but the contract."""
    listed = re.findall(r"^([\w.]+/?) +\S", (ROOT / "README.md").read_text().partition("## Files")[2], re.MULTILINE)
    needed = {name for name in listed if name.endswith((".py", ".yaml")) or (ROOT / name / "__init__.py").exists()}
    copied = {
        name.removesuffix("/") + "/" * (ROOT / name).is_dir()
        for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
        for name in sources.split()
    }
    assert copied == needed - {"tests/", "bench/", "pay.arazzo.yaml"} | {"requirements.lock"}


def test_the_image_runs_without_root() -> None:
    """Its user is a number, which Kubernetes can check, and not 0."""
    assert re.findall(r"^USER (\d+):(\d+)$", CONTAINERFILE, re.MULTILINE) == [("10001", "10001")]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_container_can_do_little(name: str) -> None:
    """It has no capability and no root, and can write to its volume and its temporary files only."""
    service = COMPOSE["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name.startswith("gateway") or service["user"] not in {"root", "0"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize(
    ("linter", "arguments"),
    [("hadolint", ["deploy/Containerfile"]), ("compose-lint", ["check", "deploy/compose.yaml"])],
)
def test_the_linters_of_containers_find_no_fault(linter: str, arguments: list[str]) -> None:
    """hadolint finds nothing, and compose-lint nothing that it calls high or critical."""
    linted = run(str(Path(sys.prefix, "bin", linter)), *arguments)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_nginx_finds_the_gateways_of_the_compose_file(tmp_path: Path) -> None:
    """The command of its container puts their names in the places of the addresses in deploy/nginx.conf."""
    shell, option, script = COMPOSE["services"]["nginx"]["command"]
    made = tmp_path / "nginx.conf"
    script = script.replace("/etc/payment-gateway/nginx.conf", str(DEPLOY / "nginx.conf"))
    run(shell, option, script.replace("/tmp/nginx.conf", str(made)).partition(" && ")[0])  # noqa: S108
    assert re.findall(r"(?:server|listen) (\S+)[ ;]", made.read_text()) == ["gateway-1:8000", "gateway-2:8000", "8000"]
    assert "127.0.0.1" not in made.read_text().replace("nginx -p", "")
