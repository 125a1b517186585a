"""How payments, actions and places in lists are written in JSON, as the contract says."""

import base64
import struct
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import store
from payments import responses
from store import Action, Payment, Position, Status

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

# A place: microseconds since 1970, which may be negative, and the id of a payment.
_PLACE: Final = struct.Struct(">q16s")

# The action that an authorization counts as.
_AUTHORIZATION: Final = {Status.AUTHORIZED: "APPROVED", Status.DECLINED: "DECLINED", Status.PENDING: "PENDING"}


def payment(shown: Payment) -> dict[str, Any]:
    """Return a payment as the contract's `Payment`."""
    return {
        "id": str(shown.id),
        "status": shown.state(),
        **_response(shown),
        "authorization_code": shown.authorization_code or None,
        "card_last4": shown.card_last4,
        "card_scheme": shown.card_scheme,
        "expiry_month": shown.expiry_month,
        "expiry_year": shown.expiry_year,
        "currency": shown.currency,
        "amount": shown.amount,
        "balances": _balances(shown),
        "reference": shown.reference,
        "metadata": dict(shown.metadata),
        "created_at": _time(shown.created_at),
        "updated_at": _time(shown.updated_at or shown.created_at),
    }


def action(shown: Action) -> dict[str, Any]:
    """Return an action as the contract's `Action`."""
    return {
        "id": str(shown.id),
        "type": shown.type,
        "status": shown.status,
        "amount": shown.amount,
        "currency": shown.currency,
        **_response(shown),
        "reason": shown.reason,
        "reference": shown.reference,
        "metadata": dict(shown.metadata),
        "created_at": _time(shown.created_at),
        "updated_at": _time(shown.updated_at),
    }


def authorization(of: Payment, decided_at: datetime | None) -> dict[str, Any]:
    """Return the authorization of a payment as the contract's `Action`; it has the payment's id.

    decided_at: when it was decided or corrected for the last time, None while it is PENDING
    """
    return {
        "id": str(of.id),
        "type": "AUTHORIZATION",
        "status": _AUTHORIZATION[of.status],
        "amount": of.amount,
        "currency": of.currency,
        **_response(of),
        "reason": None,
        "reference": of.reference,
        "metadata": dict(of.metadata),
        "created_at": _time(of.created_at),
        "updated_at": _time(decided_at or of.created_at),
    }


def cursor(position: Position) -> str:
    """Return a place in a list as 32 characters."""
    created_at, payment_id = position
    place = _PLACE.pack((created_at - _EPOCH) // _MICROSECOND, payment_id.bytes)
    return base64.urlsafe_b64encode(place).decode()


def position(of_cursor: str) -> Position:
    """Return the place of any cursor; a time that Python can't hold becomes the first or the last that it can."""
    microseconds, payment_id = _PLACE.unpack(base64.urlsafe_b64decode(of_cursor))
    try:
        created_at = _EPOCH + microseconds * _MICROSECOND
    except OverflowError:
        created_at = store.LATEST if microseconds > 0 else store.EARLIEST
    return created_at, UUID(bytes=payment_id)


def _response(of: Payment | Action) -> dict[str, str | None]:
    code = responses.code_of(of)
    return {"response_code": code, "response_summary": responses.SUMMARIES.get(code) if code else None}


def _balances(of: Payment) -> dict[str, int]:
    left = of.left()
    return {
        "total_authorized": of.amount if of.status is Status.AUTHORIZED else 0,
        "total_captured": of.captured,
        "total_refunded": of.refunded,
        "total_voided": of.voided,
        "available_to_capture": left - of.held,
        "available_to_void": 0 if of.held else left,
        "available_to_refund": of.captured - of.refunded - of.refund_held,
    }


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
