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
from cli import operators, table
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["4242424242424242"], "COMMAND: not one of its values; allowed: payments, pending, show, history, capture, "),
        (
            ["payments", "--status", "4242424242424242"],
            "--status: not one of its values; allowed: AUTHORIZED, DECLINED, ",
        ),
        (
            ["settle", UNKNOWN_ID, "perhaps", "--note", "x"],
            "OUTCOME: not one of its values; allowed: authorized, approved, declined\n",
        ),
        (
            ["keys", "make"],
            "create|list|revoke|history: not one of its values; allowed: create, list, revoke, history\n",
        ),
        (["show", "4242424242424242"], "ID: not the id of a payment; allowed: a UUID, as `payments` shows it\n"),
    ],
)
def test_choices_are_named_in_words(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists them, and does not repeat what was given."""
    with pytest.raises(SystemExit) as stopped:
        cli.parser(SETTINGS).parse_args(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert f"error: argument {message}" in error
    assert "4242" not in error
    assert "invalid choice" not in error


def test_only_statuses_are_coloured() -> None:
    """The text is the same without its escape sequences."""
    text = table.render([{"id": "1", "status": "AUTHORIZED"}, {"id": "2", "status": "PENDING"}], as_json=False)
    coloured = table.coloured(text)
    assert coloured.splitlines() == ["id  status", "1   \x1b[32mAUTHORIZED\x1b[0m", "2   \x1b[33mPENDING\x1b[0m"]


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
