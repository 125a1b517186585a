"""The operator's commands on payments: payments, pending, settle and history."""

import argparse
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import store
from cli import table
from store import Change, Payment, Status


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    listing = commands.add_parser("payments", help="list payments, newest first")
    listing.add_argument("--status", type=str.upper, choices=list(Status), help="only these")
    listing.add_argument(
        "--since", type=_time, metavar="TIME", help="only those made since: 2026-11-22[T10:15], in UTC"
    )
    listing.add_argument("--limit", type=_limit, default=100, help="at most so many (default: 100)")
    doubtful = commands.add_parser("pending", help="list payments in doubt")
    settling = commands.add_parser("settle", help="record how a payment in doubt ended")
    settling.add_argument("id", type=UUID)
    settling.add_argument("outcome", choices=["authorized", "declined"])
    settling.add_argument("--note", required=True, type=_note, help="how you know, for the audit trail")
    trail = commands.add_parser("history", help="show who changed a payment, when and why")
    trail.add_argument("id", type=UUID)
    for command in (listing, doubtful, trail):
        command.add_argument("--json", action="store_true", help="as JSON instead of a table")


async def run(options: argparse.Namespace, operator: str) -> tuple[int, str]:
    """Do what the options say; returns the exit status and what to show."""
    match options.command:
        case "payments":
            status = Status(options.status) if options.status else None
            found = await store.search(status, options.since, options.limit)
            return 0, table.rows([_payment(payment) for payment in found], as_json=options.json)
        case "pending":
            found = await store.list_unresolved()
            return 0, table.rows([_pending(payment) for payment in found], as_json=options.json)
        case "history":
            if await store.find(options.id) is None:
                return 1, f"there is no payment {options.id}"
            changes = await store.history(options.id)
            return 0, table.rows([_change(change) for change in changes], as_json=options.json)
        case _:
            return await _settle(options, operator)


async def _settle(options: argparse.Namespace, operator: str) -> tuple[int, str]:
    try:
        payment = await store.settle(
            options.id, Status(options.outcome.upper()), f"operator {operator}", options.note, if_unresolved=True
        )
    except store.NotPending:
        found = await store.find(options.id)
        if found is None:
            return 1, f"there is no payment {options.id}"
        if found.status is Status.PENDING:
            return 1, f"{options.id} is still at work: try again in a while"
        return 1, f"{options.id} is {found.status} already"
    return 0, f"{payment.id} {payment.status}"


def _pending(payment: Payment) -> dict[str, Any]:
    return {
        "id": str(payment.id),
        "merchant": payment.merchant,
        "age_s": round(payment.age_s()),
        "amount": payment.amount,
        "currency": payment.currency,
        "card_last4": payment.card_last4,
    }


def _payment(payment: Payment) -> dict[str, Any]:
    return {
        "id": str(payment.id),
        "merchant": payment.merchant,
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


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("a time like 2026-11-22T10:15 is wanted") from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10**6):
        raise argparse.ArgumentTypeError("1 to 1000000 is wanted")
    return int(text)


def _note(text: str) -> str:
    if not (1 <= len(text) <= 500 and text.isprintable()):
        raise argparse.ArgumentTypeError("1 to 500 printable characters are wanted")
    return text
