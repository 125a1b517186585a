"""How an operator reads payments: the commands `payments`, `pending`, `show` and `history`."""

import argparse
import json
from typing import Any

import store
from cli import arguments, table
from cli.answer import Answer
from store import Change, Payment, State


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    listing = commands.add_parser("payments", help="list payments, newest first")
    listing.add_argument(
        "--status",
        type=str.upper,
        choices=[state.value for state in State],
        metavar="STATUS",
        help="only payments with this status: authorized, declined, pending, captured, ...",
    )
    listing.add_argument(
        "--since",
        type=arguments.time,
        metavar="TIME",
        help="only payments created since this time in UTC: 2026-11-22[T10:15]",
    )
    listing.add_argument(
        "--limit", type=arguments.limit, default=100, metavar="N", help="the most payments to list (default: 100)"
    )
    pending = commands.add_parser("pending", help="list unresolved payments, oldest first")
    show = commands.add_parser("show", help="show a payment and its history")
    history = commands.add_parser("history", help="show who changed a payment, when and why")
    for command in (listing, pending):
        command.add_argument("--merchant", metavar="NAME", help="only payments of this merchant")
    for command in (show, history):
        command.add_argument("id", type=arguments.payment_id, metavar="ID")
    for command in (listing, pending, show, history):
        command.add_argument("--json", action="store_true", help="print JSON")


async def run(options: argparse.Namespace) -> Answer:
    """Run a command."""
    commands = {"payments": _list, "pending": _list_unresolved, "show": _show, "history": _history}
    return await commands[options.command](options)


async def _list(options: argparse.Namespace) -> Answer:
    status = State(options.status) if options.status else None
    found = await store.search(status, options.since, options.limit + 1, merchant=options.merchant)
    rows = [_payment(payment) for payment in found[: options.limit]]
    cut = f"only the newest {options.limit} payments are listed; --limit lists more" if found[options.limit :] else ""
    return Answer(0, table.render(rows, as_json=options.json), cut)


async def _list_unresolved(options: argparse.Namespace) -> Answer:
    found = await store.list_unresolved()
    rows = [_unresolved(payment) for payment in found if options.merchant in {None, payment.merchant}]
    return Answer(0, table.render(rows, as_json=options.json))


async def _show(options: argparse.Namespace) -> Answer:
    payment = await store.find(options.id)
    if payment is None:
        return _missing(options)
    erased_at = payment.erased_at.isoformat(timespec="seconds") if payment.erased_at else "-"
    shown = {**_payment(payment), "bank": payment.bank, "erased_at": erased_at}
    changes = [_change(change) for change in await store.history(options.id)]
    if options.json:
        return Answer(0, json.dumps({**shown, "history": changes}, indent=2))
    lines = [f"{name:<10}  {value}".rstrip() for name, value in shown.items()]
    return Answer(0, "\n".join([*lines, "", table.render(changes, as_json=False)]))


async def _history(options: argparse.Namespace) -> Answer:
    if await store.find(options.id) is None:
        return _missing(options)
    changes = await store.history(options.id)
    return Answer(0, table.render([_change(change) for change in changes], as_json=options.json))


def _missing(options: argparse.Namespace) -> Answer:
    return Answer(1, message=f"there is no payment {options.id}")


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
