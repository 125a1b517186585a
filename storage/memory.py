"""How the store works in memory: for one process, until it ends.

Every method runs on the event loop's thread without waiting, so each is one transaction.
"""

import secrets
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from storage import memory_look_ups
from storage.banks import BankMove, is_same_bank, names_of_bank
from storage.memory_actions import MemoryActions
from storage.records import (
    AUTOMATIC,
    ERASED,
    RELEASED,
    ApiKey,
    Change,
    Claimed,
    IdempotencyKey,
    KeyChange,
    NotInStatus,
    Page,
    Payment,
    Position,
    State,
    Status,
    UnresolvedStats,
    Wanted,
)

# The most payments of a merchant that one page looks at, as in a database (storage/listing.py).
LOOKED_AT: Final = 1000

# It comes before all others.
_FIRST_ID: Final = UUID(int=0)

# The most payments that one call of `erase_older` looks at, so that requests wait a few milliseconds at most.
CHECKED: Final = 10_000


@dataclass(slots=True)
class _Row:
    payment: Payment
    key: IdempotencyKey | None
    attempt: UUID
    claimed_at: datetime
    working_until: datetime
    look_up_at: datetime
    look_ups: int = 0
    released: bool = False

    def may_be_erased(self) -> bool:
        """Return whether the payment is released or not PENDING, not erased already, and no action is PENDING."""
        if self.payment.erased_at is not None or self.payment.held or self.payment.refund_held:
            return False
        return self.released or self.payment.status is not Status.PENDING


class Memory:
    """The functions of store.py over dicts."""

    has_older_digests = False

    def __init__(self) -> None:
        self.salt = secrets.token_bytes(32)
        self._rows: dict[UUID, _Row] = {}
        self._pending: dict[UUID, _Row] = {}  # those that are PENDING, so that the resolver does not search all rows
        self._rows_of_keys: dict[tuple[str, str], list[_Row]] = {}
        self._places: dict[tuple[str, str | None], list[Position]] = {}  # by merchant and reference, in order
        self._changes: dict[UUID, list[Change]] = {}
        self._to_check: list[UUID] = []  # for `erase_older`
        self._bank_moves: list[BankMove] = []
        self._api_keys: dict[str, ApiKey] = {}
        self._key_changes: list[KeyChange] = []
        self.actions = MemoryActions(self)

    def claim(self, payment: Payment, key: IdempotencyKey | None, request_s: float) -> Payment | Claimed:
        now = datetime.now(UTC)
        until = now + timedelta(seconds=request_s)
        row = _Row(payment, key, payment.id, now, until, until)
        if key is not None:
            if (action := self.actions.has_key(payment.merchant, key.digest)) is not None:
                return Claimed(payment=self._rows[action.payment_id].payment, same_payment=False, in_progress=False)
            rows = self._rows_of_keys.setdefault((payment.merchant, key.digest), [])
            held = next((other for other in rows if not other.released), None)
            if held is not None:
                return self._claimed(held, payment, key)
            released = next((other for other in rows if _belongs(key, payment, other)), None)
            if released is not None:
                row.payment = replace(payment, id=released.payment.id)
                rows.remove(released)
                self._remove_place(released.payment)
            elif erased := [other for other in rows if other.payment.erased_at is not None]:
                return self._claimed(erased[0], payment, key)  # the bank may have authorized it under this row's id
            rows.append(row)
            if released is not None and not self.is_same_bank(released.payment.bank, payment.bank):
                row.payment = replace(row.payment, bank=released.payment.bank)
                row.working_until = row.look_up_at = now
                self._keep(row)
                return self._claimed(row, payment, key)
        self._keep(row)
        return row.payment

    def change(
        self,
        change: Change,
        response_code: str,
        *,
        payment: Payment | None = None,  # noqa: ARG002  # the record itself is at hand
        attempt: UUID | None = None,
        if_unresolved: bool = False,
    ) -> Payment:
        row = self._find(change.payment_id, Status(change.from_status), attempt)
        if row is None or (if_unresolved and row.working_until > datetime.now(UTC)):
            raise NotInStatus
        self._pending.pop(change.payment_id, None)
        self.record(change)
        row.payment = change.applied_to(row.payment, response_code)
        return row.payment

    def erase(self, payment_id: UUID, erased_by: str) -> list[Change]:
        row = self._rows.get(payment_id)
        if row is None or not row.may_be_erased():
            raise NotInStatus
        return [self._erase(row, erased_by, "")]

    def erase_older(self, age: timedelta, limit: int, erased_by: str, note: str) -> list[Change]:
        created_before = datetime.now(UTC) - age
        if not self._to_check:
            self._to_check = list(reversed(self._rows))
        lines: list[Change] = []
        for _ in range(min(CHECKED, len(self._to_check))):
            row = self._rows.get(self._to_check.pop())
            if row is not None and row.payment.created_at < created_before and row.may_be_erased():
                lines.append(self._erase(row, erased_by, note))
            if len(lines) == limit:
                break
        return lines

    def mark_unresolved(self, payment_id: UUID, look_up_in_s: float) -> None:
        row = self._find(payment_id, Status.PENDING)
        if row is not None:
            row.working_until = datetime.now(UTC)
            row.look_up_at = row.working_until + timedelta(seconds=look_up_in_s)

    def release(self, payment_id: UUID, attempt: UUID) -> None:
        row = self._find(payment_id, Status.PENDING, attempt)
        if row is not None and row.working_until > datetime.now(UTC):  # else it may have been shown as PENDING
            row.released = True
            del self._pending[payment_id]

    def drop(self, payment_id: UUID, attempt: UUID) -> None:
        row = self._find(payment_id, Status.PENDING, attempt)
        if row is not None and attempt != payment_id:
            self.release(payment_id, attempt)
        elif row is not None:
            del self._rows[payment_id], self._pending[payment_id]
            self._remove_place(row.payment)
            if row.key is not None:
                of_key = row.payment.merchant, row.key.digest
                self._rows_of_keys[of_key].remove(row)
                if not self._rows_of_keys[of_key]:
                    del self._rows_of_keys[of_key]

    def withdraw(self, payment: Payment, key: IdempotencyKey | None) -> None:
        rows = self._rows_of_keys.get((payment.merchant, key.digest), []) if key else []
        for payment_id in {payment.id, *(row.payment.id for row in rows)}:
            self.drop(payment_id, payment.id)

    def find(self, payment_id: UUID) -> Payment | None:
        row = self._rows.get(payment_id)
        return row.payment if row and not row.released else None

    def claimed_s_ago(self, payment_id: UUID) -> float:
        return (datetime.now(UTC) - self._rows[payment_id].claimed_at).total_seconds()

    def clock(self) -> datetime:
        return datetime.now(UTC)

    def take_due(self, limit: int, interval_s: Callable[[int], float], bank: str | None = None) -> list[Payment]:
        names = None if bank is None else names_of_bank(bank, self._bank_moves)
        rows = (row for row in self._pending.values() if names is None or row.payment.bank in names)
        return [row.payment for row in memory_look_ups.take_due(rows, limit, interval_s)]

    def list_unresolved(self, other_than: str | None = None, limit: int | None = None) -> list[Payment]:
        rows = [(row.payment, row.working_until) for row in self._pending.values()]
        names = None if other_than is None else self.names_of_bank(other_than)
        return memory_look_ups.list_unresolved(rows, names, limit)

    def find_all(self, payment_ids: Sequence[UUID]) -> list[Payment]:
        return [payment for payment in map(self.find, payment_ids) if payment is not None]

    def list_authorized(
        self, since: datetime | None, until: datetime | None, bank: str | None, after: Payment | None
    ) -> list[Payment]:
        if after is not None:
            return []  # there is one page: each would have to look at every payment
        names = None if bank is None else names_of_bank(bank, self._bank_moves)
        wanted = [
            p
            for p in self._kept()
            if p.status is Status.AUTHORIZED
            and (since is None or p.created_at >= since)
            and (until is None or p.created_at < until)
            and (names is None or p.bank in names)
        ]
        return sorted(wanted, key=lambda p: p.created_at)

    def page(self, wanted: Wanted) -> Page:
        places = self._places.get((wanted.merchant, wanted.reference), [])
        end = len(places)
        for last in (wanted.after, wanted.created_to and (wanted.created_to, _FIRST_ID)):
            end = min(end, bisect_left(places, last)) if last else end
        first = bisect_left(places, (wanted.created_from, _FIRST_ID)) if wanted.created_from else 0
        found: list[Payment] = []
        looked_at = 0
        for place in reversed(places[first:end]):
            row = self._rows[place[1]]
            if row.released or row.payment.erased_at is not None:
                continue
            if len(found) == wanted.limit:
                return Page(found, (found[-1].created_at, found[-1].id))
            looked_at += 1
            if wanted.state in {None, row.payment.state()}:
                found.append(row.payment)
            if wanted.state is not None and looked_at == LOOKED_AT and len(found) < wanted.limit:
                return Page(found, place)
        return Page(found, None)

    def search(self, status: State | None, since: datetime | None, limit: int, merchant: str | None) -> list[Payment]:
        wanted = [
            p
            for p in self._kept()
            if status in {None, p.state()}
            and merchant in {None, p.merchant}
            and (since is None or p.created_at >= since)
        ]
        return sorted(wanted, key=lambda p: p.created_at, reverse=True)[:limit]

    def history(self, payment_id: UUID) -> list[Change]:
        return list(self._changes.get(payment_id, []))

    def fingerprint_key_uses(self, since: datetime) -> dict[str, int]:
        recent = (row for row in self._rows.values() if row.payment.created_at >= since)
        return dict(Counter(row.key.fingerprint_key for row in recent if row.key is not None))

    def unresolved_stats(self) -> UnresolvedStats:
        created_at = [payment.created_at for payment in self.list_unresolved()]
        created_at += [action.created_at for action in self.actions.list_unresolved()]
        return UnresolvedStats(count=len(created_at), oldest_created_at=min(created_at, default=None))

    def move_bank(self, move: BankMove) -> int:
        self._bank_moves.append(move)
        return sum(row.payment.bank == move.old for row in self._pending.values())

    def is_same_bank(self, recorded: str, now: str) -> bool:
        return is_same_bank(recorded, now, self._bank_moves)

    def add_api_key(self, key: ApiKey, change: KeyChange) -> None:
        self._api_keys[key.id] = key
        self._key_changes.append(change)

    def list_api_keys(self) -> list[ApiKey]:
        return list(self._api_keys.values())

    def revoke_api_key(self, key_id: str, changed_by: str) -> KeyChange | None:
        key = self._api_keys.get(key_id)
        if key is None or key.revoked_at is not None:
            return None
        self._api_keys[key_id] = replace(key, revoked_at=datetime.now(UTC))
        self._key_changes.append(KeyChange.of(self._api_keys[key_id], changed_by))
        return self._key_changes[-1]

    def key_history(self) -> list[KeyChange]:
        return list(self._key_changes)

    def record_api_key_uses(self, used: Mapping[str, datetime]) -> None:
        for key_id, minute in used.items():
            key = self._api_keys.get(key_id)
            if key is not None and (key.last_used_at is None or key.last_used_at < minute):
                self._api_keys[key_id] = replace(key, last_used_at=minute)

    def ping(self) -> None:
        """Do nothing: memory is always available."""

    def try_to_write(self) -> None:
        """Do nothing, for the same reason."""

    def close(self) -> None:
        """Do nothing: the records go with this object."""

    def replace(self, payment: Payment) -> None:
        """Record a payment in place of the one with the same id."""
        self._rows[payment.id].payment = payment

    def has_key(self, merchant: str, digest: str) -> bool:
        """Return whether an idempotency key belongs to a payment, released or not."""
        return bool(self._rows_of_keys.get((merchant, digest)))

    def record(self, change: Change) -> None:
        """Add a line to the audit trail."""
        self._changes.setdefault(change.payment_id, []).append(change)

    def names_of_bank(self, identity: str) -> set[str]:
        """Return the identities that a bank has and had."""
        return names_of_bank(identity, self._bank_moves)

    def _kept(self) -> list[Payment]:
        return [row.payment for row in self._rows.values() if not row.released]

    def _keep(self, row: _Row) -> None:
        payment = row.payment
        self._rows[payment.id] = self._pending[payment.id] = row
        place = payment.created_at, payment.id
        for reference in {None, payment.reference}:
            places = self._places.setdefault((payment.merchant, reference), [])
            if places and place < places[-1]:
                insort(places, place)
            else:
                places.append(place)

    def _remove_place(self, payment: Payment) -> None:
        for reference in {None, payment.reference}:
            places = self._places[payment.merchant, reference]
            del places[bisect_left(places, (payment.created_at, payment.id))]

    def _erase(self, row: _Row, erased_by: str, note: str) -> Change:
        payment, at = row.payment, datetime.now(UTC)
        line = Change(
            payment_id=payment.id,
            changed_at=at,
            changed_by=erased_by,
            from_status=RELEASED if row.released else payment.status,
            to_status=ERASED,
            note=note,
        )
        self._remove_place(payment)
        row.payment = replace(
            payment,
            card_last4="",
            expiry_month=0,
            expiry_year=0,
            reference=None,
            metadata={},
            card_scheme=None,
            erased_at=at,
        )
        row.key = row.key and replace(row.key, fingerprint="", older_fingerprints={})
        lines = self._changes.get(payment.id, [])
        cleared = [change if change.changed_by in AUTOMATIC else replace(change, note="") for change in lines]
        self._changes[payment.id] = [*cleared, line]
        self.actions.erase(payment.id)
        return line

    def _find(self, payment_id: UUID, status: Status, attempt: UUID | None = None) -> _Row | None:
        row = self._rows.get(payment_id)
        if row is None or row.released or row.payment.status is not status:
            return None
        return row if attempt in {None, row.attempt} else None

    @staticmethod
    def _claimed(row: _Row, payment: Payment, key: IdempotencyKey) -> Claimed:
        same_payment = _belongs(key, payment, row)
        in_progress = row.payment.status is Status.PENDING and row.working_until > datetime.now(UTC)
        return Claimed(payment=row.payment, same_payment=same_payment, in_progress=in_progress)


def _belongs(key: IdempotencyKey, payment: Payment, row: _Row) -> bool:
    assert row.key is not None
    return key.belongs_to(payment, row.payment, row.key.fingerprint, row.key.fingerprint_key)
