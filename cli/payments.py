"""How an operator reads payments and their actions: the commands `payments`, `pending`, `show` and `history`."""

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import store
from cli import arguments, table
from cli.answer import Answer
from store import Action, Change, Payment, State

# Payments whose actions are looked for at once.
BATCH: Final = 500


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    listing = commands.add_parser("payments", help="list payments and their actions, newest first")
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
    pending = commands.add_parser("pending", help="list unresolved payments and actions, oldest first")
    show = commands.add_parser("show", help="show a payment, its actions and its history")
    history = commands.add_parser("history", help="show who changed a payment or its actions, when and why")
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
    listed = found[: options.limit]
    actions = await _actions([payment.id for payment in listed])
    rows = [{**_payment(payment), "actions": _listed(actions[payment.id], options)} for payment in listed]
    cut = f"only the newest {options.limit} payments are listed; --limit lists more" if found[options.limit :] else ""
    return Answer(0, table.render(rows, as_json=options.json), cut)


async def _list_unresolved(options: argparse.Namespace) -> Answer:
    found: list[Payment | Action] = [*await store.list_unresolved(), *await store.list_unresolved_actions()]
    wanted = [record for record in found if options.merchant in {None, record.merchant}]
    rows = [_unresolved(record) for record in sorted(wanted, key=lambda record: record.created_at)]
    return Answer(0, table.render(rows, as_json=options.json))


async def _show(options: argparse.Namespace) -> Answer:
    payment = await store.find(options.id)
    if payment is None:
        return _missing(options)
    erased_at = payment.erased_at.isoformat(timespec="seconds") if payment.erased_at else "-"
    shown = {**_payment(payment), "bank": payment.bank, "erased_at": erased_at}
    actions = [_action(action) for action in await store.list_actions(options.id)]
    changes = [_change(change) for change in await store.history(options.id)]
    if options.json:
        return Answer(0, json.dumps({**shown, "actions": actions, "history": changes}, indent=2))
    parts = ["\n".join(f"{name:<10}  {value}".rstrip() for name, value in shown.items())]
    parts += [table.render(rows, as_json=False) for rows in (actions, changes) if rows]
    return Answer(0, "\n\n".join(parts))


async def _history(options: argparse.Namespace) -> Answer:
    if await store.find(options.id) is None:
        return _missing(options)
    changes = await store.history(options.id)
    return Answer(0, table.render([_change(change) for change in changes], as_json=options.json))


def _missing(options: argparse.Namespace) -> Answer:
    return Answer(1, message=f"there is no payment {options.id}")


async def _actions(payment_ids: Sequence[UUID]) -> dict[UUID, list[Action]]:
    found: dict[UUID, list[Action]] = {payment_id: [] for payment_id in payment_ids}
    for start in range(0, len(payment_ids), BATCH):
        for action in await store.list_actions(*payment_ids[start : start + BATCH]):
            found[action.payment_id].append(action)
    return found


def _listed(actions: list[Action], options: argparse.Namespace) -> Any:
    """Return actions as a list for JSON, and as text for a table."""
    if options.json:
        return [_action(action) for action in actions]
    return ", ".join(f"{action.type} {action.amount} {action.status}" for action in actions) or "-"


def _unresolved(record: Payment | Action) -> dict[str, Any]:
    return {
        "id": str(record.id),
        "type": record.type if isinstance(record, Action) else "AUTHORIZATION",
        "merchant": record.merchant,
        "age_s": round(record.age_s()),
        "amount": record.amount,
        "currency": record.currency,
        "card_last4": "-" if isinstance(record, Action) else record.card_last4,
        "payment_id": str(record.payment_id if isinstance(record, Action) else record.id),
        "bank": record.bank,
    }


def _action(action: Action) -> dict[str, Any]:
    return {
        "id": str(action.id),
        "type": action.type,
        "status": action.status,
        "amount": action.amount,
        "currency": action.currency,
        "reference": action.reference or "-",
        "created_at": action.created_at.isoformat(timespec="seconds"),
        "updated_at": action.updated_at.isoformat(timespec="seconds"),
    }


def _payment(payment: Payment) -> dict[str, Any]:
    return {
        "id": str(payment.id),
        "merchant": payment.merchant,
        "status": payment.state(),
        "amount": payment.amount,
        "currency": payment.currency,
        "captured": payment.captured,
        "refunded": payment.refunded,
        "reference": payment.reference or "-",
        "card_last4": payment.card_last4 or "-",
        "expiry": "-" if payment.erased_at else f"{payment.expiry_month:02}/{payment.expiry_year}",
        "created_at": payment.created_at.isoformat(timespec="seconds"),
        "code": payment.authorization_code,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "changed_at": change.changed_at.isoformat(timespec="seconds"),
        "action": str(change.action_id or "-"),
        "changed_by": change.changed_by,
        "from": change.from_status,
        "to": change.to_status,
        "note": change.note,
        "code": change.authorization_code,
    }
