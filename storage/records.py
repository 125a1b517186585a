"""What the store records: payments, idempotency keys, changes of status, and API keys."""

from asyncio import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class Status(StrEnum):
    """The status of a payment; `PaymentStatus` in the contract says what each value means."""

    AUTHORIZED = "AUTHORIZED"
    DECLINED = "DECLINED"
    PENDING = "PENDING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as recorded. `amount` is in the currency's minor units, `created_at` in UTC."""

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
        """Return how many seconds ago the payment was created."""
        return (datetime.now(UTC) - self.created_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """A merchant's idempotency key and the payment sent with it, both as HMACs (payments/idempotency.py)."""

    digest: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The payment that an idempotency key belongs to already.

    fingerprint: of the payment that was sent with the key first
    in_progress: the first request with the key may still be running, here or in another process
    """

    payment: Payment
    fingerprint: str
    in_progress: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the audit trail: who changed a payment's status, when and why."""

    payment_id: UUID
    changed_at: datetime
    changed_by: str
    from_status: Status
    to_status: Status
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """The record of a merchant's API key, which does not hold the key.

    id: the first 12 hex digits of the digest
    digest: the SHA-256 of the key, 64 hex digits
    last_used_at: to the minute; None before the first use
    """

    id: str
    digest: str
    merchant: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnresolvedStats:
    """How many payments are unresolved, which means PENDING without a running request."""

    count: int
    oldest_created_at: datetime | None


class StoreUnavailable(Exception):
    """The store can't be reached or does not answer in time; what was asked of it may or may not be done.

    unfinished: the call, when it is still running
    """

    def __init__(self, reason: str = "", unfinished: "Future[Any] | None" = None) -> None:
        super().__init__(reason)
        self.unfinished = unfinished


class InvalidUrl(Exception):
    """A database URL can't be parsed."""


class StoreMismatch(Exception):
    """The database is not for this gateway: a newer gateway or another FINGERPRINT_KEY made it."""


class NotPending(Exception):
    """No PENDING payment with this id may be settled now."""
