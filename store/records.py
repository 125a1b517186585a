"""What is kept: a payment, the key it was made with, and every change of its status."""

from asyncio import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

# Every payment belongs to a merchant, and an idempotency key is a merchant's own. There is one so far.
MERCHANT: Final = "default"


class Status(StrEnum):
    """Where a payment stands; the contract's `PaymentStatus` says what each means."""

    AUTHORIZED = "AUTHORIZED"
    DECLINED = "DECLINED"
    PENDING = "PENDING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as recorded. `amount` is in the currency's minor unit, `created_at` in UTC."""

    id: UUID
    status: Status
    card_last4: str
    expiry_month: int
    expiry_year: int
    currency: str
    amount: int
    created_at: datetime

    def age_s(self) -> float:
        """Return how many seconds ago it was made."""
        return (datetime.now(UTC) - self.created_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An idempotency key and the request that came with it, both as HMACs (idempotency.py)."""

    key: str
    fingerprint: str
    merchant: str = MERCHANT


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The payment that has a key already.

    working: its first request may still be at work, here or in another process
    """

    payment: Payment
    fingerprint: str
    working: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the audit trail: who settled a payment, when, from what to what, and why."""

    payment_id: UUID
    changed_at: datetime
    changed_by: str
    from_status: Status
    to_status: Status
    note: str


class StoreUnavailable(Exception):
    """The store could not be asked, or did not answer in time; whether it did the work is not known.

    unfinished: the call, when it goes on all the same
    """

    def __init__(self, why: str = "", unfinished: "Future[Any] | None" = None) -> None:
        super().__init__(why)
        self.unfinished = unfinished


class StoreMismatch(Exception):
    """The store can't be used as it is: made by a newer gateway, or with another FINGERPRINT_KEY."""


class NotPending(Exception):
    """There is no PENDING payment with this id that may be settled now."""
