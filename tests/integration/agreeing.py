"""What is true of a merchant's payments at any time, and whether the gateway and the bank agree about them."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final

import store
from payments import states
from store import Action, ActionStatus, Payment, Status

BALANCES: Final = ("captured", "voided", "refunded", "held", "refund_held")

# The bank's ledger by payment id, as the simulator shows it.
Ledger = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Record:
    """What the gateway has of one payment."""

    payment: Payment
    actions: list[Action]

    def is_settled(self) -> bool:
        pending = [action for action in self.actions if action.status is ActionStatus.PENDING]
        return self.payment.status is not Status.PENDING and not pending


async def read(merchant: str) -> list[Record]:
    """Return what the gateway has of each payment of a merchant, oldest first; nothing may change meanwhile."""
    found = sorted(await store.search(merchant=merchant), key=lambda payment: payment.created_at)
    return [Record(payment, await store.list_actions(payment.id)) for payment in found]


def check(records: list[Record], ledger: Ledger) -> None:
    """Assert what holds while actions are in doubt, too."""
    for record in records:
        _check_amounts(record)
        _check_with_bank(record, ledger.get(str(record.payment.id)))
    recorded = {str(record.payment.id) for record in records}
    assert {payment_id for payment_id, entry in ledger.items() if entry["authorized"]} <= recorded


def check_settled(records: list[Record], ledger: Ledger) -> None:
    """Assert that nothing is in doubt, and that gateway and bank have the same payments, actions and amounts."""
    here, there = {}, {}
    for record in records:
        assert record.is_settled(), record
        payment = record.payment
        if payment.status is Status.AUTHORIZED:
            approved = {str(action.id) for action in record.actions if action.status is ActionStatus.APPROVED}
            here[str(payment.id)] = (payment.captured, payment.voided, payment.refunded, approved)
    for payment_id, entry in ledger.items():
        if entry["authorized"]:
            approved = {action_id for action_id, done in entry["actions"].items() if done["outcome"] == "approved"}
            there[payment_id] = (entry["captured"], entry["voided"], entry["refunded"], approved)
    assert here == there


async def check_history(record: Record) -> None:
    """Assert that the audit trail leads to what is recorded, over states that are allowed, with each action once."""
    nothing: dict[str, Any] = dict.fromkeys(BALANCES, 0)
    replayed = replace(record.payment, status=Status.PENDING, **nothing)
    pending = {action.id: action for action in record.actions}
    for change in await store.history(record.payment.id):
        assert change.from_status == Status.PENDING, record
        if change.action_id is None:
            replayed = replace(replayed, status=Status(change.to_status))
            continue
        action, before = pending.pop(change.action_id), replayed.state()
        assert change.to_status == action.status, record
        if action.status is ActionStatus.APPROVED:
            done: dict[str, Any] = {name: getattr(replayed, name) + by for name, by in _done(action).items()}
            replayed = replace(replayed, **done)
            assert replayed.state() in states.LEADS_TO[before][action.type], record
    assert (replayed.status, replayed.state()) == (record.payment.status, record.payment.state()), record
    assert all(action.status is ActionStatus.PENDING for action in pending.values()), record


def _check_amounts(record: Record) -> None:
    """No more is done or held than there is, and each amount is the sum of what the actions did or hold."""
    payment = record.payment
    authorized = payment.amount if payment.status is Status.AUTHORIZED else 0
    assert payment.captured + payment.voided + payment.held <= authorized, record
    assert payment.refunded + payment.refund_held <= payment.captured, record
    sums: Counter[str] = Counter()
    for action in record.actions:
        match action.status:
            case ActionStatus.APPROVED:
                sums.update(_done(action))
            case ActionStatus.PENDING:
                sums[action.held_in()] += action.takes()
    assert {name: getattr(payment, name) for name in BALANCES} == {name: sums[name] for name in BALANCES}, record


def _done(action: Action) -> dict[str, int]:
    """Return what an approved action adds to the amounts of its payment."""
    done = {"CAPTURE": "captured", "VOID": "voided", "REFUND": "refunded"}
    return Counter({done[action.type]: action.amount}) + Counter(voided=action.releases)


def _check_with_bank(record: Record, entry: dict[str, Any] | None) -> None:
    """The bank did what is APPROVED here and nothing that is DECLINED; what it did is APPROVED or PENDING here."""
    entry = entry or {"authorized": False, "captured": 0, "voided": 0, "refunded": 0, "actions": {}}
    payment = record.payment
    if payment.status is not Status.PENDING:
        assert entry["authorized"] == (payment.status is Status.AUTHORIZED), (record, entry)
    if entry["authorized"]:
        assert (entry["amount"], entry["currency"]) == (payment.amount, payment.currency), (record, entry)
    assert entry["captured"] + entry["voided"] <= payment.amount, (record, entry)
    assert entry["refunded"] <= entry["captured"], (record, entry)
    done = {
        action_id: (known["type"], known["amount"])
        for action_id, known in entry["actions"].items()
        if known["outcome"] == "approved"
    }
    for action in record.actions:
        at_bank = done.pop(str(action.id), None)
        if action.status is ActionStatus.APPROVED or at_bank is not None:
            assert action.status is not ActionStatus.DECLINED, (record, entry)
            assert at_bank == (f"{action.type.lower()}s", action.amount), (record, entry)
    assert not done, (record, entry)
