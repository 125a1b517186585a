"""What is kept: payments, the keys they were made with, every change of their status, and API keys."""

from asyncio import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class Status(StrEnum):
    """Where a payment stands; the contract's `PaymentStatus` says what each means."""

    AUTHORIZED = "AUTHORIZED"
    DECLINED = "DECLINED"
    PENDING = "PENDING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as recorded. `amount` is in the currency's minor unit, `created_at` in UTC."""

    id: UUID
    merchant: str
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
class IdempotencyKey:
    """A merchant's idempotency key and the request that came with it, both as HMACs (idempotency.py)."""

    digest: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The payment that has a key already.

    in_progress: its first request may still be running, here or in another process
    """

    payment: Payment
    fingerprint: str
    in_progress: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the audit trail: who settled a payment, when, from what to what, and why."""

    payment_id: UUID
    changed_at: datetime
    changed_by: str
    from_status: Status
    to_status: Status
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is kept of a merchant's API key, which is not the key itself.

    id: the first 12 hex digits of the digest
    digest: the SHA-256 of the key, 64 hex digits
    last_used_at: to the minute; None when it was not used yet
    """

    id: str
    digest: str
    merchant: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnresolvedStats:
    """How many payments are PENDING with no request at work on them, and since when the oldest is."""

    count: int
    oldest_created_at: datetime | None


class StoreUnavailable(Exception):
    """The store could not be asked, or did not answer in time; whether it did the work is not known.

    unfinished: the call, when it goes on all the same
    """

    def __init__(self, why: str = "", unfinished: "Future[Any] | None" = None) -> None:
        super().__init__(why)
        self.unfinished = unfinished


class InvalidUrl(Exception):
    """A database URL can't be parsed."""


class StoreMismatch(Exception):
    """The store can't be used as it is: made by a newer gateway, or with another FINGERPRINT_KEY."""


class NotPending(Exception):
    """There is no PENDING payment with this id that may be settled now."""
