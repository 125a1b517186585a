"""What the store records: payments, idempotency keys, changes of status, and API keys."""

import hmac
from asyncio import Future
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self
from uuid import UUID


def fields_of(record: Any) -> dict[str, Any]:
    """Return the fields of a record by name. `dataclasses.asdict` copies the values, which takes ten times as long."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


class Status(StrEnum):
    """The status of a payment; `PaymentStatus` in the contract says what each value means."""

    AUTHORIZED = "AUTHORIZED"
    DECLINED = "DECLINED"
    PENDING = "PENDING"


# What the storage records in place of a status for a claim that was released: the bank said that it did not process the
# payment, and the claim is kept only for its id. No `Payment` has this status.
RELEASED: Final = "RELEASED"

# What the audit trail records in place of a new status when a payment is erased. Its status stays.
ERASED: Final = "ERASED"

# Who writes to the audit trail without a person. Their notes are no free text.
AUTOMATIC: Final = ("gateway", "resolver", "retention")

# The bank of payments that were recorded before there was a column for it.
UNKNOWN_BANK: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as recorded. `amount` is in the currency's minor units, `created_at` in UTC.

    bank: the identity of the bank that the payment is sent to (`bank.identity`)
    authorization_code: the bank's, up to 64 characters; empty if it gave none
    erased_at: when what is kept of the card was erased, which is empty or 0 since then; None if it was not
    """

    id: UUID
    merchant: str
    status: Status
    card_last4: str
    expiry_month: int
    expiry_year: int
    currency: str
    amount: int
    created_at: datetime
    bank: str = UNKNOWN_BANK
    authorization_code: str = ""
    erased_at: datetime | None = None

    def age_s(self) -> float:
        """Return how many seconds ago the payment was created."""
        return (datetime.now(UTC) - self.created_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """A merchant's idempotency key and the payment sent with it, as digests (payments/idempotency.py).

    digest: what is recorded of the idempotency key
    older_digests: what older gateways recorded of it
    fingerprint: the payment's, under the FINGERPRINT_KEY with the id `fingerprint_key`; both are recorded
    older_fingerprints: the payment's under the other keys that this gateway knows, by their ids
    """

    digest: str
    fingerprint: str
    fingerprint_key: str = ""
    older_digests: tuple[str, ...] = ()
    older_fingerprints: Mapping[str, str] = field(default_factory=dict)

    def belongs_to(self, payment: Payment, recorded: Payment, fingerprint: str, fingerprint_key: str | None) -> bool:
        """Return whether `payment`, sent with this key, is the payment that is recorded.

        fingerprint, fingerprint_key: of the recorded payment
        What is kept of the card, and the amount, are compared when the recorded fingerprint can't be verified: it is
        empty, because it was made with the CVV and cleared, or its key is not known any more. Whether an erased
        payment is the same can't be told any more, so it never is.
        """
        if recorded.erased_at is not None:
            return False
        known = {**self.older_fingerprints, self.fingerprint_key: self.fingerprint}
        if fingerprint and fingerprint_key in known:
            return hmac.compare_digest(known[fingerprint_key].encode(), fingerprint.encode())
        return _kept(payment) == _kept(recorded)


def _kept(payment: Payment) -> tuple[Any, ...]:
    return payment.card_last4, payment.expiry_month, payment.expiry_year, payment.currency, payment.amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The payment that an idempotency key belongs to already.

    same_payment: the payment that was sent with the key now is this payment
    in_progress: the first request with the key may still be running, here or in another process
    """

    payment: Payment
    same_payment: bool
    in_progress: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the audit trail: who changed a payment's status, when and why, and the bank's authorization code.

    from_status, to_status: a `Status`; of an erased payment, to_status is `ERASED`, and from_status may be `RELEASED`
    """

    payment_id: UUID
    changed_at: datetime
    changed_by: str
    from_status: str
    to_status: str
    note: str
    authorization_code: str = ""


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
class KeyChange:
    """One line of the audit trail: who created or revoked an API key, and when.

    change: "created" or "revoked"
    """

    key_id: str
    merchant: str
    changed_at: datetime
    changed_by: str
    change: str

    @classmethod
    def of(cls, key: ApiKey, changed_by: str) -> Self:
        """Return the line for the revocation of this key, or for its creation if it is valid."""
        at, change = (key.created_at, "created") if key.revoked_at is None else (key.revoked_at, "revoked")
        return cls(key_id=key.id, merchant=key.merchant, changed_at=at, changed_by=changed_by, change=change)


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


class GatewayTooOld(StoreUnavailable):
    """A newer gateway has changed the schema in a way that this gateway can't work with."""


class InvalidUrl(Exception):
    """A database URL can't be parsed."""


class StoreMismatch(Exception):
    """The database is not for this gateway: its schema has another version, or another FINGERPRINT_KEY made it."""


class BackupFailed(Exception):
    """A copy of the store could not be made; the message says why."""


class NotInStatus(Exception):
    """No payment with this id has the status that a change begins from, or it must not change now."""
