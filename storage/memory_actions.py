"""How actions are recorded in memory: the same functions as storage/actions.py has for a database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

from storage import memory_look_ups
from storage.records import (
    Action,
    ActionKey,
    ActionStatus,
    ActionType,
    Change,
    ClaimedAction,
    NotAvailable,
    NotInStatus,
    Payment,
    Status,
)


class Payments(Protocol):
    """What actions need of the payments in memory."""

    def find(self, payment_id: UUID) -> Payment | None:
        """Return a payment, erased or not."""

    def replace(self, payment: Payment) -> None:
        """Record a payment in place of the one with the same id."""

    def has_key(self, merchant: str, digest: str) -> bool:
        """Return whether an idempotency key belongs to a payment, released or not."""

    def record(self, change: Change) -> None:
        """Add a line to the audit trail."""

    def names_of_bank(self, identity: str) -> set[str]:
        """Return the identities that a bank has and had."""


@dataclass(slots=True)
class _Row:
    action: Action
    key: ActionKey | None
    attempt: UUID
    claimed_at: datetime
    working_until: datetime
    look_up_at: datetime
    look_ups: int = 0

    def is_pending(self) -> bool:
        return self.action.status is ActionStatus.PENDING


class MemoryActions:
    """The store's functions for actions over dicts."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments
        self._rows: dict[UUID, _Row] = {}
        self._pending: dict[UUID, _Row] = {}  # so that the resolver does not search all rows
        self._of_payment: dict[UUID, list[_Row]] = {}
        self._of_key: dict[tuple[str, str], _Row] = {}

    def claim(
        self, action: Action, key: ActionKey | None, attempt: UUID, request_s: float, requested: Change | None = None
    ) -> Action | ClaimedAction:
        if key is not None and (claimed := self.find_key(action.merchant, key)) is not None:
            return claimed
        payment = self._payments.find(action.payment_id)
        if payment is None or not _is_available(payment, action):
            raise NotAvailable
        now = datetime.now(UTC)
        until = now + timedelta(seconds=request_s)
        row = _Row(action, key, attempt, now, until, until)
        self._rows[action.id] = self._pending[action.id] = row
        self._of_payment.setdefault(action.payment_id, []).append(row)
        if key is not None:
            self._of_key[action.merchant, key.digest] = row
        self._add(payment, {action.held_in(): action.takes()})
        if requested is not None:
            self._payments.record(requested)
        return action

    def find_key(self, merchant: str, key: ActionKey) -> ClaimedAction | None:
        row = self._of_key.get((merchant, key.digest))
        if row is None or row.key is None:
            taken = self._payments.has_key(merchant, key.digest)
            return ClaimedAction(action=None, same_action=False, in_progress=False) if taken else None
        in_progress = row.is_pending() and row.working_until > datetime.now(UTC)
        same_action = row.key.fingerprint == key.fingerprint
        return ClaimedAction(action=row.action, same_action=same_action, in_progress=in_progress)

    def has_key(self, merchant: str, digest: str) -> Action | None:
        """Return the action that an idempotency key belongs to."""
        row = self._of_key.get((merchant, digest))
        return row.action if row else None

    def settle(
        self, change: Change, response_code: str, *, attempt: UUID | None = None, if_unresolved: bool = False
    ) -> Action:
        assert change.action_id is not None
        row = self._rows.get(change.action_id)
        if row is None or row.action.status != change.from_status or attempt not in {None, row.attempt}:
            raise NotInStatus
        if if_unresolved and row.working_until > datetime.now(UTC):
            raise NotInStatus
        status = ActionStatus(change.to_status)
        payment = self._payments.find(change.payment_id)
        assert payment is not None
        raised = row.action.done() if status is ActionStatus.APPROVED else {}
        if row.is_pending():
            raised[row.action.held_in()] = -row.action.takes()
        if not self._add(replace(payment, updated_at=change.changed_at), raised):
            raise NotAvailable
        row.action = replace(row.action, status=status, response_code=response_code, updated_at=change.changed_at)
        self._pending.pop(row.action.id, None)
        self._payments.record(change)
        return row.action

    def mark_unresolved(self, action_id: UUID, look_up_in_s: float) -> None:
        row = self._rows.get(action_id)
        if row is not None and row.is_pending():
            row.working_until = datetime.now(UTC)
            row.look_up_at = row.working_until + timedelta(seconds=look_up_in_s)

    def drop(self, action_id: UUID, attempt: UUID) -> None:
        row = self._rows.get(action_id)
        if row is None or row.attempt != attempt or not row.is_pending():
            return
        del self._rows[action_id], self._pending[action_id]
        self._of_payment[row.action.payment_id].remove(row)
        if row.key is not None:
            del self._of_key[row.action.merchant, row.key.digest]
        payment = self._payments.find(row.action.payment_id)
        assert payment is not None
        self._add(payment, {row.action.held_in(): -row.action.takes()})

    def erase(self, payment_id: UUID) -> None:
        """Clear the free text of a payment's actions."""
        for row in self._of_payment.get(payment_id, []):
            row.action = replace(row.action, reason=None, reference=None, metadata={})

    def find(self, action_id: UUID) -> Action | None:
        row = self._rows.get(action_id)
        return row.action if row else None

    def list_of(self, payment_ids: Sequence[UUID]) -> list[Action]:
        found = [row.action for payment_id in payment_ids for row in self._of_payment.get(payment_id, [])]
        return sorted(found, key=lambda action: (action.created_at, action.id))

    def claimed_s_ago(self, action_id: UUID) -> float:
        return (datetime.now(UTC) - self._rows[action_id].claimed_at).total_seconds()

    def take_due(self, limit: int, interval_s: Callable[[int], float], bank: str | None = None) -> list[Action]:
        names = None if bank is None else self._payments.names_of_bank(bank)
        rows = (row for row in self._pending.values() if names is None or row.action.bank in names)
        return [row.action for row in memory_look_ups.take_due(rows, limit, interval_s)]

    def list_unresolved(self, other_than: str | None = None, limit: int | None = None) -> list[Action]:
        rows = [(row.action, row.working_until) for row in self._pending.values()]
        names = None if other_than is None else self._payments.names_of_bank(other_than)
        return memory_look_ups.list_unresolved(rows, names, limit)

    def _add(self, payment: Payment, raised: dict[str, int]) -> bool:
        """Raise the payment's amounts; return False, and change nothing, if they would exceed what is authorized."""
        changed = replace(payment, **{name: getattr(payment, name) + by for name, by in raised.items()})
        if changed.captured + changed.voided + changed.held > changed.amount:
            return False
        if changed.refunded + changed.refund_held > changed.captured:
            return False
        self._payments.replace(changed)
        return True


def _is_available(payment: Payment, action: Action) -> bool:
    """Return whether a payment has what an action needs, and no other action holds it."""
    if payment.status is not Status.AUTHORIZED or payment.erased_at is not None or payment.merchant != action.merchant:
        return False
    if action.type is ActionType.REFUND:
        return payment.refunded + payment.refund_held + action.takes() <= payment.captured
    left = payment.amount - payment.captured - payment.voided
    if action.type is ActionType.VOID or action.releases:
        return payment.held == 0 and action.takes() == left
    return payment.held + action.takes() <= left
