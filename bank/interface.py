"""What a bank is to the gateway: something that can be asked to authorize a payment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A payment that a bank is asked to authorize. Its repr shows neither card number nor CVV.

    payment_id: the gateway's own id for the payment
    card_number: 14 to 19 digits
    expiry_month, expiry_year: 1 to 12, four digits
    currency: ISO 4217 code
    amount: in the currency's minor unit
    cvv: 3 or 4 digits
    trace: headers that say which request this is
    answer_by: when, on `time.monotonic()`'s clock, the bank must have answered; later it must not be asked
    """

    payment_id: UUID
    card_number: str = field(repr=False)
    expiry_month: int
    expiry_year: int
    currency: str
    amount: int
    cvv: str = field(repr=False)
    trace: Mapping[str, str]
    answer_by: float


class Bank(Protocol):
    """One acquiring bank. Its methods run on the event loop, and are called again while others wait."""

    async def authorize(self, request: AuthorizationRequest) -> bool:
        """Ask the bank to authorize the payment; True when it did, False when it declined.

        Raises `NotReached`, `Refused` or `NoAnswer` (bank/errors.py), and nothing else.
        """

    async def look_up(self, payment_id: UUID) -> bool | None:
        """Ask what became of a payment: True authorized, False declined, None never heard of it.

        None ends a payment as declined, so it is a promise too: having said so, the bank never
        authorizes this payment, though a request for it should still arrive.

        Raises `NoLookUp` when the bank can't be asked that at all, and `BankError` when it should be
        asked again later.
        """

    def close(self) -> None:
        """Let go of connections."""
