"""What an operator does from the command line: see payments, and end those left in doubt.

run.py payments [--status S] [--since T] [--limit N] [--json]
run.py pending [--json]
run.py settle ID authorized|declined --note WHY
run.py history ID [--json]
"""

import argparse
import asyncio
import getpass
import json
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import store
from store import Change, Payment, Status


class Setting(Protocol):
    """What --help says of a setting (config.py)."""

    @property
    def why(self) -> str: ...
    @property
    def allowed(self) -> str: ...
    @property
    def default(self) -> str: ...


def parser(settings: Mapping[str, Setting]) -> argparse.ArgumentParser:
    """Build the command line; every setting is in its help."""
    lines = []
    for name, setting in settings.items():
        text = f"{setting.why} ({setting.allowed}; default: {setting.default or 'unset'})"
        lines += textwrap.wrap(text, 100, initial_indent=f"  {name:<24}", subsequent_indent=" " * 26)
    top = argparse.ArgumentParser(
        prog="run.py",
        description="The payment gateway. Without a command it serves, until Ctrl-C or SIGTERM.",
        epilog="settings, from the environment over .env over the default:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--host", dest="HOST", help="overrides HOST")
    top.add_argument("--port", dest="PORT", help="overrides PORT")
    top.add_argument("--bank-url", dest="BANK_URL", metavar="URL", help="overrides BANK_URL")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    listing = commands.add_parser("payments", help="list payments, newest first")
    listing.add_argument("--status", type=str.upper, choices=list(Status), help="only these")
    listing.add_argument(
        "--since", type=_time, metavar="TIME", help="only those made since: 2026-11-22[T10:15], in UTC"
    )
    listing.add_argument("--limit", type=int, default=100, help="at most so many (default: 100)")
    doubtful = commands.add_parser("pending", help="list payments in doubt")
    settling = commands.add_parser("settle", help="record how a payment in doubt ended")
    settling.add_argument("id", type=UUID)
    settling.add_argument("outcome", choices=["authorized", "declined"])
    settling.add_argument("--note", required=True, help="how you know, for the audit trail")
    trail = commands.add_parser("history", help="show who changed a payment, when and why")
    trail.add_argument("id", type=UUID)
    for command in (listing, doubtful, trail):
        command.add_argument("--json", action="store_true", help="as JSON instead of a table")
    return top


def run(options: argparse.Namespace) -> str | None:
    """Do what the options say; the result, when there is one, is why it could not be done."""
    try:
        match options.command:
            case "payments":
                _show(_payments(options), as_json=options.json)
            case "pending":
                _show(_pending(), as_json=options.json)
            case "history":
                _show([_change(change) for change in asyncio.run(store.history(options.id))], as_json=options.json)
            case "settle":
                return _settle(options)
    finally:
        store.close()
    return None


def _payments(options: argparse.Namespace) -> list[dict[str, Any]]:
    status = Status(options.status) if options.status else None
    return [_payment(payment) for payment in asyncio.run(store.search(status, options.since, options.limit))]


def _pending() -> list[dict[str, Any]]:
    return [
        {
            "id": str(payment.id),
            "age_s": round(payment.age_s()),
            "amount": payment.amount,
            "currency": payment.currency,
            "card_last4": payment.card_last4,
        }
        for payment in asyncio.run(store.search(Status.PENDING))
    ]


def _settle(options: argparse.Namespace) -> str | None:
    status = Status(options.outcome.upper())
    try:
        payment = asyncio.run(store.settle(options.id, status, f"operator {getpass.getuser()}", options.note))
    except store.NotPending:
        found = asyncio.run(store.find(options.id))
        return f"{options.id} is {found.status} already" if found else f"there is no payment {options.id}"
    print(f"{payment.id} {payment.status}")
    return None


def _payment(payment: Payment) -> dict[str, Any]:
    return {
        "id": str(payment.id),
        "status": payment.status,
        "amount": payment.amount,
        "currency": payment.currency,
        "card_last4": payment.card_last4,
        "expiry": f"{payment.expiry_month:02}/{payment.expiry_year}",
        "created_at": payment.created_at.isoformat(timespec="seconds"),
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "changed_at": change.changed_at.isoformat(timespec="seconds"),
        "changed_by": change.changed_by,
        "from": change.from_status,
        "to": change.to_status,
        "note": change.note,
    }


def _show(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("none")
    else:
        table = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for line in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
