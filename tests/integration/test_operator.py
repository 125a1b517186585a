"""The operator: commands on payments, a database outage, and a load balancer before two gateways."""

import json
import os
import pty
import pwd
import shutil
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from bank.simulator import Simulator
from cli import control_socket
from tests import support
from tests.postgres import Postgres
from tests.support import ROOT, Gateway, ScriptedBank, lasting, reply, valid_payment, wait_until

# Who runs the commands, by the operating system.
OPERATOR = f"operator {os.getuid()} {pwd.getpwuid(os.getuid()).pw_name}"


def settings(url: str) -> dict[str, str]:
    return {"STORE_URL": url, "FINGERPRINT_KEY": "0f" * 32}


def command(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command as an operator does, in a process of its own, whose environment names somebody else."""
    environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    environment |= dict.fromkeys(("LOGNAME", "USER", "SUDO_USER"), "mallory")
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        env={**environment, **settings(url)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def on_a_terminal(url: str, *arguments: str, **environment: str) -> str:
    """Run a command on a terminal; return the statuses of the rows that it prints, or all of it if it prints JSON."""
    ours, theirs = pty.openpty()
    environment |= {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123  # it has no path
        subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *arguments],
            env={**environment, **settings(url)},
            cwd=ROOT,
            stdout=theirs,
            timeout=30,
            check=True,
        )
        os.close(theirs)
        printed = terminal.read(10_000).decode()
    return printed if "--json" in arguments else printed.splitlines()[-1].split()[2]


def test_an_unresolved_payment_is_listed_and_settled_by_an_operator(database_url: str) -> None:
    """`pending` lists it, `settle` ends it, and `history` shows who settled it."""
    bank = ScriptedBank(reply(502, b""))
    with Gateway(settings=settings(database_url), BANK_URL=bank.url) as gateway:
        payment = gateway.pay(card_number="2222405343241234").json()
        wait_until(lambda: "the bank offers no look-up" in gateway.log or "did not say" in gateway.log, 20)
        (pending,) = json.loads(command(database_url, "pending", "--json").stdout)
        assert pending == {
            "id": payment["id"],
            "type": "AUTHORIZATION",
            "merchant": "default",
            "age_s": pending["age_s"],
            "amount": 1050,
            "currency": "GBP",
            "card_last4": "1234",
            "payment_id": payment["id"],
            "bank": bank.url,
        }
        assert payment["id"] in command(database_url, "pending").stdout

        settled = command(database_url, "settle", payment["id"], "authorized", "--note", "bank statement 12 May")
        assert (settled.returncode, settled.stdout) == (0, f"{payment['id']} AUTHORIZED\n")
        logged = json.loads(settled.stderr)
        assert (logged["logger"], logged["payment_id"]) == ("gateway.audit", payment["id"])
        assert (logged["changed_by"], logged["note"]) == (OPERATOR, "bank statement 12 May")
        settled = gateway.find(payment["id"]).json()
        assert (settled["status"], lasting(settled)) == ("AUTHORIZED", lasting(payment))
        assert command(database_url, "pending").stdout == "none\n"
        assert command(database_url, "history", str(uuid.uuid4())).returncode == 1
        assert command(database_url, "settle", payment["id"], "declined", "--note", "x" * 501).returncode == 2
        (change,) = json.loads(command(database_url, "history", payment["id"], "--json").stdout)
        assert change["changed_by"] == OPERATOR
        assert (change["from"], change["to"], change["note"]) == ("PENDING", "AUTHORIZED", "bank statement 12 May")

        again = command(database_url, "settle", payment["id"], "declined", "--note", "no")
        assert (again.returncode, again.stderr) == (1, f"{payment['id']} is already AUTHORIZED\n")
        unknown = str(uuid.uuid4())
        none = command(database_url, "settle", unknown, "declined", "--note", "no")
        assert (none.returncode, none.stderr) == (1, f"there is no payment, capture, void or refund {unknown}\n")
        assert command(database_url, "settle", payment["id"], "declined").returncode == 2, "a note is required"
    bank.close()


def test_an_operator_can_not_settle_while_the_request_is_running(database_url: str) -> None:
    """The command is refused, and the payment is not listed as unresolved, because its request settles it."""
    with Gateway(settings=settings(database_url), BANK_TIMEOUT_S="60") as gateway, ThreadPoolExecutor(1) as pool:
        in_progress = pool.submit(gateway.pay, card_number=support.SILENT)
        wait_until(lambda: json.loads(command(database_url, "payments", "--json").stdout))
        (payment,) = json.loads(command(database_url, "payments", "--json").stdout)
        early = command(database_url, "settle", payment["id"], "declined", "--note", "too early")
        assert (early.returncode, early.stderr) == (
            1,
            f"a request for {payment['id']} is still running: try again later\n",
        )
        assert command(database_url, "pending").stdout == "none\n"
        gateway.process.kill()  # its request would run for a minute
        with pytest.raises(requests.ConnectionError):
            in_progress.result()


def test_the_commands_reach_payments_in_memory() -> None:
    """The gateway on the same PORT runs the commands; without a gateway they fail and say so."""
    bank = ScriptedBank(reply(502, b""))
    with Gateway(BANK_URL=bank.url) as gateway:
        port = gateway.api.split(":")[2].split("/")[0]

        def in_memory(*arguments: str) -> "subprocess.CompletedProcess[str]":
            return command("memory:", "--port", port, *arguments)

        payment = gateway.pay().json()
        assert json.loads(in_memory("pending", "--json").stdout)[0]["id"] == payment["id"]
        assert in_memory("settle", payment["id"], "declined", "--note", "asked the bank").returncode == 0
        assert gateway.find(payment["id"]).json()["status"] == "DECLINED"
        (change,) = json.loads(in_memory("history", payment["id"], "--json").stdout)
        assert (change["changed_by"], change["note"]) == (OPERATOR, "asked the bank")
        wait_until(lambda: '"gateway.audit"' in gateway.log)
        (logged,) = (json.loads(line) for line in gateway.log.splitlines() if '"gateway.audit"' in line)
        assert (logged["changed_by"], logged["note"]) == (OPERATOR, "asked the bank")
        again = in_memory("settle", payment["id"], "declined", "--note", "no")
        assert (again.returncode, again.stderr) == (1, f"{payment['id']} is already DECLINED\n")
        corrected = in_memory("settle", payment["id"], "authorized", "--note", "the bank's letter")
        assert (corrected.returncode, corrected.stdout) == (0, f"{payment['id']} AUTHORIZED, was DECLINED\n")
    assert not control_socket.path_for(int(port)).exists()
    gone = in_memory("pending")
    assert (gone.returncode, gone.stderr) == (1, f"no gateway with payments in memory runs on PORT {port}\n")
    bank.close()


def test_payments_are_listed_with_filters(database_url: str) -> None:
    """The list is a table or JSON, newest first."""
    with Gateway(settings=settings(database_url)) as gateway:
        authorized = gateway.pay().json()["id"]
        declined = gateway.pay(card_number=support.DECLINED_CARD).json()["id"]

    def listed(*arguments: str) -> list[str]:
        return [payment["id"] for payment in json.loads(command(database_url, "payments", "--json", *arguments).stdout)]

    assert listed() == [declined, authorized]
    assert listed("--status", "declined") == [declined]
    assert listed("--limit", "1") == [declined]
    assert listed("--merchant", "default") == [declined, authorized]
    assert listed("--merchant", "acme") == []
    for limit, said in (("1", "only the newest 1 payments are listed; --limit lists more\n"), ("2", "")):
        assert command(database_url, "payments", "--limit", limit).stderr == said
    assert listed("--since", "2999-01-01") == []
    table = command(database_url, "payments").stdout.splitlines()
    assert table[0].split() == [
        "id",
        "merchant",
        "status",
        "amount",
        "currency",
        "captured",
        "refunded",
        "reference",
        "card_last4",
        "expiry",
        "created_at",
        "code",
        "actions",
    ]
    assert [line.split()[0] for line in table[1:]] == [declined, authorized]
    assert on_a_terminal(database_url, "payments", "--limit", "1").endswith("\x1b[31mDECLINED\x1b[0m")
    assert "\x1b" not in on_a_terminal(database_url, "payments", "--limit", "1", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(database_url, "payments", "--limit", "1", "--json")

    shown = command(database_url, "show", declined).stdout.splitlines()
    assert [line.split()[0] for line in shown[:14]] == [*table[0].split()[:12], "bank", "erased_at"]
    assert ("status", "DECLINED") in [tuple(line.split()) for line in shown]
    assert shown[-1].split()[1:5] == ["-", "gateway", "PENDING", "DECLINED"]
    as_json = json.loads(command(database_url, "show", declined, "--json").stdout)
    assert (as_json["id"], as_json["merchant"], as_json["card_last4"]) == (declined, "default", "8878")
    assert [change["to"] for change in as_json["history"]] == ["DECLINED"]
    assert command(database_url, "show", support.UNKNOWN_ID).returncode == 1


def test_a_database_outage_is_503_before_the_bank_call_and_202_after(own_postgresql: Postgres) -> None:
    """A new payment is refused; one that the bank answered is PENDING, and is settled when the database is back."""
    url = own_postgresql.new_database()
    simulator = Simulator(latency_s=1.5)
    simulator.start()
    with Gateway(settings=settings(url), BANK_URL=simulator.url) as gateway, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(requests.post, f"{gateway.api}/payments", json=valid_payment(), timeout=30)
        wait_until(lambda: requests.get(f"{simulator.url}/ledger", timeout=5).json())
        own_postgresql.stop()
        try:
            refused = gateway.pay()
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
            assert refused.headers["Retry-After"] == "5"
            assert gateway.find(str(uuid.uuid4())).status_code == 503
            answer = asked.result()
            payment_id = answer.json()["id"]
            assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")
            wait_until(lambda: f"payment {payment_id} is PENDING" in gateway.log)
        finally:
            own_postgresql.start()
        wait_until(lambda: gateway.find(payment_id).json().get("status") == "AUTHORIZED", 20)
        assert list(requests.get(f"{simulator.url}/ledger", timeout=5).json()) == [payment_id]
        assert json.loads(command(url, "pending", "--json").stdout) == []
    simulator.stop()


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_two_gateways_on_one_postgresql_behind_nginx(postgresql: Postgres, tmp_path: Path) -> None:
    """With deploy/nginx.conf on other ports, payments are still made after one gateway is killed."""
    simulator = Simulator()
    simulator.start()
    common = {**settings(postgresql.new_database()), "BANK_URL": simulator.url}
    with Gateway(settings=common) as one, Gateway(settings=common) as other:
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        for port, gateway in ((8001, one), (8002, other)):
            text = text.replace(f"127.0.0.1:{port}", gateway.api.split("/")[2])
        with support.free_port() as free:
            text = text.replace("127.0.0.1:8000", f"127.0.0.1:{free}")
        text = text.replace("/tmp/payment-gateway-nginx.pid", str(tmp_path / "pid"))  # noqa: S108
        (tmp_path / "nginx.conf").write_text(text)
        with subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]) as nginx:
            url = f"http://127.0.0.1:{free}/api/v1/payments"
            wait_until(lambda: support.answers(url))

            def pay(key: str) -> requests.Response:
                """Retry with the same key: a connection that nginx kept to the killed gateway is a 502."""
                answers: list[requests.Response] = []

                def is_final() -> bool:
                    headers = {"Idempotency-Key": key}
                    answers.append(requests.post(url, json=valid_payment(), headers=headers, timeout=30))
                    assert answers[-1].status_code in {201, 409, 502}
                    return answers[-1].status_code == 201

                wait_until(is_final, 40)
                return answers[-1]

            made = [pay(f"key {number}") for number in range(6)]
            one.process.kill()
            again = [pay(f"key {number}") for number in range(6)]
            assert {answer.status_code for answer in made + again} == {201}
            assert [answer.json() for answer in again] == [answer.json() for answer in made]
            assert all("Idempotent-Replayed" in answer.headers for answer in again)
            nginx.terminate()
    simulator.stop()
