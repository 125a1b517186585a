"""The operator's commands for captures, voids and refunds, in a process of their own and through the control socket."""

import json
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from bank.simulator import Simulator
from tests import support
from tests.integration.test_actions import AUTHORIZED, CAPTURE_DECLINED, act, authorized, balances, status
from tests.integration.test_operator import OPERATOR, command, settings
from tests.support import Gateway, reply, scripted_bank, wait_until

Ran = subprocess.CompletedProcess[str]


def in_doubt(connection: socket.socket, request: bytes) -> None:
    """Authorize payments, and answer what becomes of their actions with what says nothing."""
    is_payment = request.startswith(b"POST /payments HTTP")
    capabilities = b'{"actions": ["captures", "voids", "refunds"]}'
    known = {True: (200, AUTHORIZED), False: (502, b"")}[is_payment]
    reply(*(200, capabilities) if request.startswith(b"GET /capabilities") else known)(connection)


def shown(run: Callable[..., Ran], payment_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("show", payment_id, "--json").stdout)
    return found


def test_an_operator_captures_voids_and_refunds(database_url: str, simulator: Simulator) -> None:
    """Each action is in the lists, and the audit trail says who asked for it and why."""

    def run(*arguments: str) -> Ran:
        return command(database_url, "--bank-url", simulator.url, *arguments)

    with Gateway(settings=settings(database_url), BANK_URL=simulator.url) as gateway:
        payment_id = authorized(gateway, reference="order 7")
        captured = run("capture", payment_id, "--amount", "400", "--not-final", "--note", "shipped by hand")
        assert captured.returncode == 0, captured.stderr
        capture_id = captured.stdout.split()[0]
        assert captured.stdout == f"{capture_id} CAPTURE 400 GBP APPROVED\n"
        assert [json.loads(line)["note"] for line in captured.stderr.splitlines()] == ["shipped by hand", ""]
        assert run("void", payment_id, "--note", "out of stock").stdout.endswith(" VOID 600 GBP APPROVED\n")
        assert run("refund", payment_id, "--note", "came back", "--amount", "150").returncode == 0
        assert (status(gateway, payment_id), balances(gateway, payment_id)) == ("PARTIALLY_REFUNDED", (400, 600, 150))

        (listed,) = json.loads(run("payments", "--json").stdout)
        assert (listed["status"], listed["captured"], listed["refunded"]) == ("PARTIALLY_REFUNDED", 400, 150)
        assert listed["reference"] == "order 7"
        found = shown(run, payment_id)
        assert found["actions"] == listed["actions"]
        types = [(action["type"], action["amount"], action["status"]) for action in found["actions"]]
        assert types == [("CAPTURE", 400, "APPROVED"), ("VOID", 600, "APPROVED"), ("REFUND", 150, "APPROVED")]
        assert "CAPTURE 400 APPROVED, VOID 600 APPROVED, REFUND 150 APPROVED" in run("payments").stdout
        assert capture_id in run("show", payment_id).stdout
        of_capture = [line for line in found["history"] if line["action"] == capture_id]
        assert [(line["changed_by"], line["from"], line["to"], line["note"]) for line in of_capture] == [
            (OPERATOR, "REQUESTED", "PENDING", "shipped by hand"),
            ("gateway", "PENDING", "APPROVED", ""),
        ]


def test_what_is_not_done_is_said(database_url: str, simulator: Simulator) -> None:
    """A decline, a forbidden action, a missing payment, and a bank that no command can reach are exit status 1."""

    def run(*arguments: str) -> tuple[int, str]:
        ran = command(database_url, "--bank-url", simulator.url, *arguments, "--note", "x")
        return ran.returncode, ran.stdout + ran.stderr

    with Gateway(settings=settings(database_url), BANK_URL=simulator.url) as gateway:
        payment_id, declines = authorized(gateway), authorized(gateway, card_number=CAPTURE_DECLINED)
        nothing = f"nothing was done, {payment_id} is AUTHORIZED: "
        assert run("refund", payment_id) == (1, f"{nothing}this is not allowed\n")
        assert run("capture", payment_id, "--amount", "1001") == (1, f"{nothing}it does not have this amount\n")
        status_, output = run("capture", declines)
        assert (status_, " CAPTURE 1000 GBP DECLINED" in output) == (1, True)
        missing = f"there is no payment {support.UNKNOWN_ID}, or it is erased\n"
        assert run("void", support.UNKNOWN_ID) == (1, missing)
        assert run("capture", payment_id, "--amount", "0")[0] == 2
        unset = command(database_url, "capture", payment_id, "--note", "x")
        assert (unset.returncode, unset.stdout) == (1, "")
        assert unset.stderr.startswith("BANK_URL is not set")
        assert command(database_url, "capture", payment_id).returncode == 2, "a note is required"
        assert balances(gateway, payment_id) == (0, 0, 0)


def test_a_gateway_with_payments_in_memory_runs_the_commands() -> None:
    """Its own simulator does what the operator asks for."""
    with Gateway() as gateway:
        port = gateway.api.split(":")[2].split("/")[0]
        payment_id = authorized(gateway)
        captured = command("memory:", "--port", port, "capture", payment_id, "--note", "shipped")
        assert (captured.returncode, captured.stdout.split()[1:]) == (0, ["CAPTURE", "1000", "GBP", "APPROVED"])
        assert status(gateway, payment_id) == "CAPTURED"


def test_an_operator_settles_an_action_in_doubt(database_url: str) -> None:
    """It is listed as pending, and holds its amount until then; the bank's word can still correct a decline."""

    def run(*arguments: str) -> tuple[int, str]:
        ran = command(database_url, *arguments)
        return ran.returncode, ran.stdout or ran.stderr

    with (
        scripted_bank(lambda connection: in_doubt(connection, bank.current.request)) as bank,
        Gateway(settings=settings(database_url), BANK_URL=bank.url) as gateway,
    ):
        payment_id = authorized(gateway)
        capture = act(gateway, payment_id, "captures", amount=300, final=False).json()
        assert capture["status"] == "PENDING"
        wait_until(lambda: json.loads(command(database_url, "pending", "--json").stdout))
        (pending,) = json.loads(command(database_url, "pending", "--json").stdout)
        assert (pending["id"], pending["type"], pending["amount"]) == (capture["id"], "CAPTURE", 300)
        assert pending["payment_id"] == payment_id
        wrong = (1, f"{capture['id']} is a capture: it is approved or declined, without a code\n")
        assert run("settle", capture["id"], "authorized", "--note", "x") == wrong
        of_payment = (1, f"{payment_id} is a payment: it is authorized or declined\n")
        assert run("settle", payment_id, "approved", "--note", "x") == of_payment
        assert run("settle", capture["id"], "declined", "--note", "the statement") == (
            0,
            f"{capture['id']} DECLINED\n",
        )
        assert balances(gateway, payment_id) == (0, 0, 0)
        assert run("pending") == (0, "none\n")
        corrected = (0, f"{capture['id']} APPROVED, was DECLINED\n")
        assert run("settle", capture["id"], "approved", "--note", "the bank's letter") == corrected
        assert balances(gateway, payment_id) == (300, 0, 0)
        already = (1, f"{capture['id']} is already APPROVED\n")
        assert run("settle", capture["id"], "declined", "--note", "x") == already
        notes = [line["note"] for line in shown(lambda *a: command(database_url, *a), payment_id)["history"]]
        assert notes[-2:] == ["the statement", "the bank's letter"]


@pytest.mark.parametrize("amount", ["1.5", "-1", "1e3", "٣", "9" * 5000])
def test_an_amount_is_a_whole_number_of_minor_units(amount: str) -> None:
    ran = command("memory:", "refund", support.UNKNOWN_ID, "--note", "x", f"--amount={amount}")
    assert (ran.returncode, "not an amount; allowed: a whole number of minor units" in ran.stderr) == (2, True)
