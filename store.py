"""What a payment record is, and where records are kept.

Records live in this process's memory: they are gone when it ends, and no other process sees them.
Of a card a record keeps the last four digits and the expiry, nothing else.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
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
    status: Status
    card_last4: str
    expiry_month: int
    expiry_year: int
    currency: str
    amount: int
    created_at: datetime


_payments: dict[UUID, Payment] = {}


async def claim(payment: Payment) -> None:
    """Record a PENDING payment, before the bank is asked."""
    _payments[payment.id] = payment


async def settle(payment_id: UUID, status: Status) -> Payment:
    """Record the bank's answer to a PENDING payment and return the payment."""
    payment = replace(_payments[payment_id], status=status)
    _payments[payment_id] = payment
    return payment


async def drop(payment_id: UUID) -> None:
    """Forget a PENDING payment that certainly did not happen."""
    del _payments[payment_id]


async def find(payment_id: UUID) -> Payment | None:
    """Return the payment, or None when there is none with this id."""
    return _payments.get(payment_id)


def close() -> None:
    """Forget everything."""
    _payments.clear()
