"""One function per operationId of the contract: from HTTP to payments.py and back."""

from typing import Any
from uuid import UUID

import bank
import payments
from handlers.problems import Code, Problem
from payments import idempotency
from store import Payment, Status
from telemetry import request_context


async def create_payment(
    body: dict[str, Any], user: str, idempotency_key: str | None
) -> tuple[dict[str, Any], int, dict[str, str]]:
    """POST /payments: 201 when the bank answered, 202 when its answer never came. `user` is the merchant."""
    with bank.room():
        paid = await payments.pay(user, body, idempotency.key_of(idempotency_key) if idempotency_key else None)
    status = 202 if paid.payment.status is Status.PENDING else 201
    headers = {"Location": f"{request_context.now().route}/{paid.payment.id}"}
    if paid.replayed:
        headers["Idempotent-Replayed"] = "true"
    return _shown(paid.payment), status, headers


async def get_payment(payment_id: str, user: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """GET /payments/{payment_id}. Another merchant's payment is none."""
    payment = await payments.find(user, UUID(payment_id))
    if payment is None:
        raise Problem(Code.PAYMENT_NOT_FOUND)
    return _shown(payment), 200, {}


def _shown(payment: Payment) -> dict[str, Any]:
    serving = request_context.now()
    serving.payment_id, serving.outcome = payment.id, payment.status
    return {
        "id": str(payment.id),
        "status": payment.status,
        "card_last4": payment.card_last4,
        "expiry_month": payment.expiry_month,
        "expiry_year": payment.expiry_year,
        "currency": payment.currency,
        "amount": payment.amount,
        "created_at": payment.created_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
