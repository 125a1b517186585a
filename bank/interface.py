"""What the gateway expects of a bank: that it authorizes payments and may be asked for their outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A payment for a bank to authorize. Its repr shows neither card number nor CVV.

    payment_id: the gateway's id for the payment
    merchant: whose payment it is
    card_number: 14 to 19 digits
    expiry_month, expiry_year: 1 to 12; four digits
    currency: ISO 4217 code
    amount: in minor units
    cvv: 3 or 4 digits
    trace: headers that identify the request (X-Request-ID, traceparent)
    answer_by: time of `time.monotonic()` by which the bank must have answered; the request is not sent later
    """

    payment_id: UUID
    merchant: str
    card_number: str = field(repr=False)
    expiry_month: int
    expiry_year: int
    currency: str
    amount: int
    cvv: str = field(repr=False)
    trace: Mapping[str, str]
    answer_by: float


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a bank decided about a payment.

    authorized: False if the bank declined
    code: the bank's authorization code; empty if it gave none or one that is not kept
    """

    authorized: bool
    code: str = ""


@dataclass(frozen=True, slots=True)
class LookUp:
    """What a bank says when it is asked for the outcome of a payment.

    authorized: True for authorized, False for declined, None for unknown
    final: only with unknown: the bank promises never to authorize the payment, even if a request for it arrives later
    code: as in `Authorization`
    """

    authorized: bool | None
    final: bool = False
    code: str = ""


class Bank(Protocol):
    """One acquiring bank.

    Its methods run on the event loop, many of them at the same time. A library that blocks goes into
    `asyncio.to_thread`.
    """

    async def authorize(self, request: AuthorizationRequest) -> Authorization:
        """Ask the bank to authorize a payment.

        Raises `NotReached`, `Refused` or `NoAnswer` (bank/errors.py), and nothing else.
        """

    async def look_up(self, payment_id: UUID) -> LookUp:
        """Ask for the outcome of a payment.

        A final unknown ends the payment as declined, so `final` must be the bank's own promise.

        Raises `NoLookUp` when the bank offers no look-up, and another `BankError` when the caller should ask again
        later.
        """

    def close(self) -> None:
        """Close the bank's connections."""
