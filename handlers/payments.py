"""The operations on payments, one function for each operationId, which translate between HTTP and payments/."""

import json
from typing import Any
from uuid import UUID

from starlette.responses import Response

import payments
from handlers import problems
from handlers.problems import Code, Problem
from payments import Paid, idempotency
from store import Payment, Status
from telemetry import request_context


async def create_payment(body: dict[str, Any], user: str, idempotency_key: str | None, route: str) -> Response:
    """Answer POST /payments: 201 when the bank answered, 202 while the payment is PENDING. `user` is the merchant."""
    paid = await payments.pay(user, body, idempotency.key_of(idempotency_key) if idempotency_key else None)
    try:
        return _paid(paid, route)
    except Exception as error:  # the payment is recorded; the answer must say so
        problems.log_unexpected(error)
        return _paid(paid, route)


async def get_payment(payment_id: str, user: str) -> Response:
    """Answer GET /payments/{payment_id}. Another merchant's payment is not found."""
    payment = await payments.find(user, UUID(payment_id))
    if payment is None:
        raise Problem(Code.PAYMENT_NOT_FOUND)
    return _shown(payment, 200, {})


def _paid(paid: Paid, route: str) -> Response:
    headers = {"Location": f"{route}/{paid.payment.id}"}
    if paid.replayed:
        headers["Idempotent-Replayed"] = "true"
    return _shown(paid.payment, 202 if paid.payment.status is Status.PENDING else 201, headers)


def _shown(payment: Payment, status: int, headers: dict[str, str]) -> Response:
    context = request_context.now()
    context.payment_id, context.outcome = payment.id, payment.status
    content = {
        "id": str(payment.id),
        "status": payment.status,
        "card_last4": payment.card_last4,
        "expiry_month": payment.expiry_month,
        "expiry_year": payment.expiry_year,
        "currency": payment.currency,
        "amount": payment.amount,
        "created_at": payment.created_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
    return Response(json.dumps(content), status, headers, "application/json")
