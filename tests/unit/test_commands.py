"""The operator's commands: what the command line accepts, and who is named in the audit trail."""

import json
import logging
import os
import pwd
import socket
import syslog
from typing import Any

import pytest

import cli
from cli import operators
from config import SETTINGS
from telemetry import logs
from tests.support import UNKNOWN_ID


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["settle", UNKNOWN_ID, "authorized", "--note", "paid", "--code", "2222405343248877"], id="code"),
        pytest.param(["same-bank", "https://bank.test:443", "https://bank.test:443/2222405343248877"], id="bank"),
        pytest.param(["keys", "create", "acme-2222405343248877"], id="merchant"),
    ],
)
def test_what_is_kept_never_holds_a_card_number(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The message says so, and does not repeat the number."""
    with pytest.raises(SystemExit) as stopped:
        cli.parser(SETTINGS).parse_args(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "may be a card number" in message
    assert "8877" not in message


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ("", "1 to 500 printable characters"),
        ("x" * 501, "1 to 500 printable characters"),
        ("two\nlines", "1 to 500 printable characters"),
        ("2222405343248877", "may be a card number"),
        ("card 2222 4053-4324 8877, by telephone", "may be a card number"),
    ],
)
def test_a_note_that_can_not_be_kept_is_refused(note: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says why, and does not repeat a card number."""
    with pytest.raises(SystemExit) as stopped:
        cli.parser(SETTINGS).parse_args(["settle", UNKNOWN_ID, "declined", "--note", note])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert reason in message
    assert "8877" not in message


def test_an_operator_is_who_the_operating_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment does not count; without a name in the system the id alone is shown."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "mallory")
    expected = f"operator {os.getuid()} {pwd.getpwuid(os.getuid()).pw_name}"
    assert operators.this_process() == expected
    one, other = socket.socketpair()
    with one, other:
        assert operators.at(one) == expected
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert operators.this_process() == "operator 4000000000"


def test_what_a_command_adds_to_the_audit_trail_is_logged_by_the_system(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same JSON line goes to standard error and to the system's log, whose owner is not the database's."""
    monkeypatch.setattr(logging.getLogger("gateway.audit"), "handlers", [])
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr(syslog, "syslog", lambda *arguments: sent.append(arguments))
    logs.configure_for_command()
    logs.audit({"payment_id": "1", "note": "card 4242424242424242"})
    line = capsys.readouterr().err
    assert json.loads(line)["logger"] == "gateway.audit"
    assert json.loads(line)["note"] == "card ****************"
    assert sent == [(syslog.LOG_AUTH | syslog.LOG_INFO, f"payment-gateway: {line.strip()}")]
