"""What the store records: payments, idempotency keys, changes of status, and API keys."""

import hmac
from asyncio import Future
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self
from uuid import UUID


def fields_of(record: Any) -> dict[str, Any]:
    """Return the fields of a record by name. `dataclasses.asdict` copies the values, which takes ten times as long."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


class Status(StrEnum):
    """The outcome of a payment's authorization."""

    AUTHORIZED = "AUTHORIZED"
    DECLINED = "DECLINED"
    PENDING = "PENDING"


class State(StrEnum):
    """The state of a payment, which the contract calls its status; `PaymentStatus` says what each value means."""

    AUTHORIZED = "AUTHORIZED"
    DECLINED = "DECLINED"
    PENDING = "PENDING"
    PARTIALLY_CAPTURED = "PARTIALLY_CAPTURED"
    CAPTURED = "CAPTURED"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"
    VOIDED = "VOIDED"


# What the storage records in place of a status for a claim that was released: the bank said that it did not process the
# payment, and the claim is kept only for its id. No `Payment` has this status.
RELEASED: Final = "RELEASED"

# What the audit trail records in place of a new status when a payment is erased. Its status stays.
ERASED: Final = "ERASED"

# What the audit trail records in place of a former status when an operator asks for an action.
REQUESTED: Final = "REQUESTED"

# Who writes to the audit trail without a person. Their notes are no free text.
AUTOMATIC: Final = ("gateway", "resolver", "retention")

# The bank of payments that were recorded before there was a column for it.
UNKNOWN_BANK: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as recorded. `amount` is in the currency's minor units, `created_at` in UTC.

    bank: the identity of the bank that the payment is sent to (`bank.identity`)
    reference: the merchant's own name for the payment, up to 80 characters
    metadata: the merchant's own data, names and texts
    card_scheme: visa, mastercard, ...; None if it is not known
    authorization_code: the bank's, up to 64 characters; empty if it gave none
    response_code: why it was authorized or declined; empty if that is not recorded
    updated_at: when its status changed, None if it did not or older gateways changed it
    erased_at: when what is kept of the card was erased, which is empty or 0 since then; None if it was not
    captured, voided, refunded: what approved actions have captured, released and given back
    held: what PENDING captures and voids may capture or release; refund_held: what PENDING refunds may give back
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
    reference: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    card_scheme: str | None = None
    authorization_code: str = ""
    response_code: str = ""
    updated_at: datetime | None = field(default=None, compare=False)
    erased_at: datetime | None = None
    captured: int = 0
    voided: int = 0
    refunded: int = 0
    held: int = 0
    refund_held: int = 0

    def left(self) -> int:
        """Return the authorized amount that is neither captured nor released; PENDING actions may hold a part of it."""
        return (self.amount if self.status is Status.AUTHORIZED else 0) - self.captured - self.voided

    def state(self) -> State:
        """Return the payment's state. It follows from what is recorded, so the two can't contradict each other."""
        if self.status is not Status.AUTHORIZED:
            return State(self.status)
        if self.left() > 0:
            return State.PARTIALLY_CAPTURED if self.captured else State.AUTHORIZED
        if not self.captured:
            return State.VOIDED
        if not self.refunded:
            return State.CAPTURED
        return State.PARTIALLY_REFUNDED if self.refunded < self.captured else State.REFUNDED

    def age_s(self) -> float:
        """Return how many seconds ago the payment was created."""
        return (datetime.now(UTC) - self.created_at).total_seconds()


# The first and the last time that Python can hold.
EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)

# A payment's place in a list: when it was created, and its id.
Position = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which of a merchant's payments are listed.

    created_to: the first time that is not wanted any more
    after: the place in the list, newest first, after which the page begins
    """

    merchant: str
    reference: str | None = None
    state: State | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    after: Position | None = None
    limit: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list of payments, and the place after which the next page begins; None if there is none."""

    payments: list[Payment]
    next: Position | None


class ActionType(StrEnum):
    """What an action does; `ActionType` in the contract says what each value means."""

    CAPTURE = "CAPTURE"
    VOID = "VOID"
    REFUND = "REFUND"


class ActionStatus(StrEnum):
    """The status of an action; `ActionStatus` in the contract says what each value means."""

    APPROVED = "APPROVED"
    DECLINED = "DECLINED"
    PENDING = "PENDING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A capture, void or refund as recorded. Amounts are in the payment's minor units, times in UTC.

    amount: what is captured, released or given back
    releases: what a final capture releases besides
    metadata: the merchant's own, names and texts
    response_code: why it was approved or declined (payments/responses.py); empty while it is PENDING
    bank: the identity of the bank that the action is sent to
    """

    id: UUID
    payment_id: UUID
    merchant: str
    type: ActionType
    status: ActionStatus
    amount: int
    releases: int = 0
    currency: str
    reason: str | None = None
    reference: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    response_code: str = ""
    bank: str
    created_at: datetime
    updated_at: datetime

    def takes(self) -> int:
        """Return how much the action holds of its payment's amount while it is PENDING."""
        return self.amount + self.releases

    def held_in(self) -> str:
        """Return the field of the payment that has what the action holds."""
        return "refund_held" if self.type is ActionType.REFUND else "held"

    def done(self) -> dict[str, int]:
        """Return by how much the action raises fields of the payment if it is approved, by their names."""
        match self.type:
            case ActionType.CAPTURE:
                return {"captured": self.amount, "voided": self.releases}
            case ActionType.VOID:
                return {"voided": self.amount}
            case ActionType.REFUND:
                return {"refunded": self.amount}

    def age_s(self) -> float:
        """Return how many seconds ago the action was created."""
        return (datetime.now(UTC) - self.created_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionKey:
    """A merchant's idempotency key and the action sent with it, as digests (payments/idempotency.py)."""

    digest: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedAction:
    """The action that an idempotency key belongs to already.

    action: None if the key belongs to a payment
    same_action: the action that was sent with the key now is this action
    in_progress: the first request with the key may still be running, here or in another process
    """

    action: Action | None
    same_action: bool
    in_progress: bool


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
    card = payment.card_last4, payment.expiry_month, payment.expiry_year
    return *card, payment.currency, payment.amount, payment.reference, payment.metadata


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
    action_id: the action whose status changed; both are an `ActionStatus` then, and from_status is `REQUESTED` where an
        operator asked for the action
    """

    payment_id: UUID
    changed_at: datetime
    changed_by: str
    from_status: str
    to_status: str
    note: str
    authorization_code: str = ""
    action_id: UUID | None = None

    def applied_to(self, payment: Payment, response_code: str) -> Payment:
        """Return the payment after this change."""
        return replace(
            payment,
            status=Status(self.to_status),
            authorization_code=self.authorization_code,
            response_code=response_code,
            updated_at=self.changed_at,
        )


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
    """How many payments and actions are unresolved, which means PENDING without a running request."""

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


class NotAvailable(NotInStatus):
    """The payment does not have the amount that an action needs, or other actions hold it."""
