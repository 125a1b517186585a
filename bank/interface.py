"""What the gateway expects of a bank: that it authorizes payments; it may also capture, void and refund them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, Protocol
from uuid import UUID

from bank.errors import NoLookUp, NotSupported


class ActionType(StrEnum):
    """What a bank can do with a payment that it authorized."""

    CAPTURE = "CAPTURE"
    VOID = "VOID"
    REFUND = "REFUND"


# Response codes, in the ranges that gateways use.
APPROVED: Final = "10000"
DO_NOT_HONOUR: Final = "20005"


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
    response_code: why, in the field's ranges: 10000 approved, 20000 and above declined
    """

    authorized: bool
    code: str = ""
    response_code: str = ""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequest:
    """A capture, void or refund for a bank to do.

    action_id: the gateway's id for the action; a bank does the action with one id once
    payment_id: the id that the payment was authorized with
    amount: in minor units; of a void, what it releases
    final: of a capture, whether the bank releases what it does not take
    The others are as in `AuthorizationRequest`.
    """

    action_id: UUID
    payment_id: UUID
    type: ActionType
    merchant: str
    amount: int
    currency: str
    final: bool
    trace: Mapping[str, str]
    answer_by: float


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What a bank decided about an action.

    response_code: as in `Authorization`
    """

    approved: bool
    response_code: str


@dataclass(frozen=True, slots=True)
class ActionLookUp:
    """What a bank says when it is asked for the outcome of an action.

    approved: True for approved, False for declined, None for unknown
    final: only with unknown: the bank promises never to do the action, even if a request for it arrives later
    response_code: as in `Authorization`; empty with unknown
    """

    approved: bool | None
    final: bool = False
    response_code: str = ""


class Bank(Protocol):
    """One acquiring bank, which is a subclass of this.

    Its methods run on the event loop, many of them at the same time. A library that blocks goes into
    `asyncio.to_thread`.

    operations: the actions that the bank can do; a bank that lists one overrides its method and `look_up_action`
    """

    operations: ClassVar[frozenset[ActionType]] = frozenset()

    async def authorize(self, request: AuthorizationRequest) -> Authorization:
        """Ask the bank to authorize a payment.

        Raises `NotReached`, `Refused` or `NoAnswer` (bank/errors.py), and nothing else.
        """
        raise NotImplementedError

    async def look_up(self, payment_id: UUID) -> LookUp:  # noqa: ARG002
        """Ask for the outcome of a payment.

        A final unknown ends the payment as declined, so `final` must be the bank's own promise.

        Raises `NoLookUp` when the bank offers no look-up, and another `BankError` when the caller should ask again
        later.
        """
        raise NoLookUp("this bank offers no look-up")

    async def supports(self, action: ActionType) -> bool:
        """Return whether the bank can do an action. Raises a `BankError` if that is not known now."""
        return action in self.operations

    async def capture(self, request: ActionRequest) -> ActionResult:  # noqa: ARG002
        """Ask the bank to capture an authorized payment, or a part of it.

        Raises `NotSupported`, and what `authorize` raises.
        """
        raise NotSupported

    async def void(self, request: ActionRequest) -> ActionResult:  # noqa: ARG002
        """Ask the bank to release what is not captured. Raises what `capture` raises."""
        raise NotSupported

    async def refund(self, request: ActionRequest) -> ActionResult:  # noqa: ARG002
        """Ask the bank to give back what was captured, or a part of it. Raises what `capture` raises."""
        raise NotSupported

    async def look_up_action(self, payment_id: UUID, action_id: UUID) -> ActionLookUp:  # noqa: ARG002
        """Ask for the outcome of an action; otherwise as `look_up`."""
        raise NoLookUp("this bank offers no look-up")

    def close(self) -> None:
        """Close the bank's connections."""
