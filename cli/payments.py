"""How an operator reads, settles and erases payments."""

import argparse
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import store
from cli import free_text, table
from payments import conflicts
from store import Change, Payment, Status


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    listing = commands.add_parser("payments", help="list payments, newest first")
    statuses = [status.value for status in Status]
    listing.add_argument("--status", type=str.upper, choices=statuses, help="only payments with this status")
    listing.add_argument(
        "--since", type=_time, metavar="TIME", help="only payments created since this time in UTC: 2026-11-22[T10:15]"
    )
    listing.add_argument("--limit", type=_limit, default=100, help="the most payments to list (default: 100)")
    pending = commands.add_parser("pending", help="list unresolved payments, oldest first")
    settle = commands.add_parser("settle", help="record how an unresolved payment ended")
    settle.add_argument("id", type=UUID)
    settle.add_argument("outcome", choices=["authorized", "declined"])
    settle.add_argument("--note", required=True, type=_note, help="how you know, for the audit trail")
    settle.add_argument(
        "--code", default="", type=_code, help="the bank's authorization code, from the bank or from the log"
    )
    history = commands.add_parser("history", help="show who changed a payment, when and why")
    history.add_argument("id", type=UUID)
    erase = commands.add_parser(
        "erase", help="erase what is kept of a payment's card, and operators' notes; it can't be undone"
    )
    erase.add_argument("id", type=UUID)
    same_bank = commands.add_parser(
        "same-bank", help="record that a bank has moved, so that its payments are asked about"
    )
    same_bank.add_argument("old", type=_bank, metavar="OLD", help="the bank as `pending` shows it")
    same_bank.add_argument("new", type=_bank, metavar="NEW", help="the same bank as the log names it now")
    for command in (listing, pending, history):
        command.add_argument("--json", action="store_true", help="print JSON")


async def run(options: argparse.Namespace, operator: str) -> tuple[int, str]:
    """Run a command; return its exit status and what to print."""
    commands = {
        "payments": _list,
        "pending": _list_unresolved,
        "history": _history,
        "settle": _settle,
        "erase": _erase,
        "same-bank": _same_bank,
    }
    return await commands[options.command](options, operator)


async def _list(options: argparse.Namespace, _operator: str) -> tuple[int, str]:
    status = Status(options.status) if options.status else None
    found = await store.search(status, options.since, options.limit)
    return 0, table.render([_payment(payment) for payment in found], as_json=options.json)


async def _list_unresolved(options: argparse.Namespace, _operator: str) -> tuple[int, str]:
    found = await store.list_unresolved()
    return 0, table.render([_unresolved(payment) for payment in found], as_json=options.json)


async def _history(options: argparse.Namespace, _operator: str) -> tuple[int, str]:
    if await store.find(options.id) is None:
        return 1, f"there is no payment {options.id}"
    changes = await store.history(options.id)
    return 0, table.render([_change(change) for change in changes], as_json=options.json)


async def _settle(options: argparse.Namespace, operator: str) -> tuple[int, str]:
    status = Status(options.outcome.upper())
    try:
        payment = await store.settle(options.id, status, operator, options.note, code=options.code, if_unresolved=True)
    except store.NotInStatus:
        found = await store.find(options.id)
        if found is None:
            return 1, f"there is no payment {options.id}"
        if found.status is Status.PENDING:
            return 1, f"a request for {options.id} is still running: try again later"
        if status is not Status.AUTHORIZED or found.status is not Status.DECLINED:
            return 1, f"{options.id} is already {found.status}"
        await conflicts.settle(options.id, status, operator, options.note, options.code)
        return 0, f"{options.id} {status}, was {found.status}"
    return 0, f"{payment.id} {payment.status}"


async def _erase(options: argparse.Namespace, operator: str) -> tuple[int, str]:
    payment_id = options.id
    try:
        await store.erase(payment_id, operator)
    except store.NotInStatus:
        found = await store.find(payment_id)
        if found is not None and found.status is Status.PENDING:
            return 1, f"{payment_id} is PENDING: record first how it ended, see `run.py pending` and `run.py settle`"
        return 1, f"there is no payment {payment_id} that is not erased already"
    return 0, f"{payment_id} is erased"


async def _same_bank(options: argparse.Namespace, operator: str) -> tuple[int, str]:
    if options.new in {options.old, store.UNKNOWN_BANK}:
        return 1, f"a bank can't move from {options.old} to {options.new}"
    count = await store.move_bank(options.old, options.new, operator)
    return 0, f"{options.old} is {options.new} now; PENDING payments of {options.old}: {count}"


def _unresolved(payment: Payment) -> dict[str, Any]:
    return {
        "id": str(payment.id),
        "merchant": payment.merchant,
        "age_s": round(payment.age_s()),
        "amount": payment.amount,
        "currency": payment.currency,
        "card_last4": payment.card_last4,
        "bank": payment.bank,
    }


def _payment(payment: Payment) -> dict[str, Any]:
    return {
        "id": str(payment.id),
        "merchant": payment.merchant,
        "status": payment.status,
        "amount": payment.amount,
        "currency": payment.currency,
        "card_last4": payment.card_last4 or "-",
        "expiry": "-" if payment.erased_at else f"{payment.expiry_month:02}/{payment.expiry_year}",
        "created_at": payment.created_at.isoformat(timespec="seconds"),
        "code": payment.authorization_code,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "changed_at": change.changed_at.isoformat(timespec="seconds"),
        "changed_by": change.changed_by,
        "from": change.from_status,
        "to": change.to_status,
        "note": change.note,
        "code": change.authorization_code,
    }


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("not a time; allowed: a time like 2026-11-22T10:15") from None


def _code(text: str) -> str:
    if not (len(text) <= 64 and text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError("not a code; allowed: up to 64 printable ASCII characters")
    return free_text.checked(text, "code")


def _bank(text: str) -> str:
    if not (1 <= len(text) <= 2000 and text.isprintable()):
        raise argparse.ArgumentTypeError("not a bank; allowed: the identity of a bank, as `pending` shows it")
    return free_text.checked(text, "bank")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10**6):
        raise argparse.ArgumentTypeError("not a limit; allowed: 1 to 1000000")
    return int(text)


def _note(text: str) -> str:
    if not (1 <= len(text) <= 500 and text.isprintable()):
        raise argparse.ArgumentTypeError("not a note; allowed: 1 to 500 printable characters")
    return free_text.checked(text, "note")
