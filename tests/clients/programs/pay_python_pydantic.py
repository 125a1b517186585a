"""What a Python client by openapi-generator sees; it prints the answers as JSON."""

import json
import os
from typing import Any
from uuid import UUID

from payment_gateway_client import (
    ApiClient,
    ApiException,
    ApiResponse,
    Configuration,
    Currency,
    Payment,
    PaymentRequest,
    PaymentsApi,
    Problem,
)


def seen(answer: ApiResponse[Payment]) -> dict[str, Any]:
    """Return the fields of a payment, read through the client's types."""
    payment = answer.data
    return {
        "id": str(payment.id),
        "status": payment.status.value,
        "response_code": payment.response_code,
        "response_summary": payment.response_summary,
        "authorization_code": payment.authorization_code,
        "card_last4": payment.card_last4,
        "card_scheme": payment.card_scheme,
        "expiry_month": payment.expiry_month,
        "expiry_year": payment.expiry_year,
        "currency": payment.currency,
        "amount": payment.amount,
        "balances": {
            "total_authorized": payment.balances.total_authorized,
            "total_captured": payment.balances.total_captured,
            "total_refunded": payment.balances.total_refunded,
            "total_voided": payment.balances.total_voided,
            "available_to_capture": payment.balances.available_to_capture,
            "available_to_void": payment.balances.available_to_void,
            "available_to_refund": payment.balances.available_to_refund,
        },
        "reference": payment.reference,
        "metadata": payment.metadata,
        "created_at": payment.created_at.isoformat(),
        "updated_at": payment.updated_at.isoformat(),
        "replayed": (answer.headers or {}).get("idempotent-replayed"),
    }


def refused(error: ApiException) -> dict[str, Any]:
    """Return the fields of a problem, read through the client's types."""
    problem = error.data
    if not isinstance(problem, Problem):
        return {"raised": str(error)}
    return {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code.value,
        "instance": problem.instance,
        "errors": [
            {"field": error.var_field, "code": error.code.value, "message": error.message}
            for error in problem.errors or []
        ],
    }


def pay(payment: PaymentRequest, idempotency_key: str | None = None, request_id: str | None = None) -> dict[str, Any]:
    """Return what a payment sees."""
    try:
        return seen(gateway.create_payment_with_http_info(payment, idempotency_key, request_id))
    except ApiException as error:
        return refused(error)


def find(api: PaymentsApi, payment_id: str) -> dict[str, Any]:
    """Return what a look-up sees, or the error that the client raises."""
    try:
        return seen(api.get_payment_with_http_info(UUID(payment_id)))
    except ApiException as error:
        return refused(error)
    except ValueError as error:
        return {"raised": str(error)}


gateway = PaymentsApi(ApiClient(Configuration(host=os.environ["API"], access_token=os.environ["API_KEY"])))
later = PaymentsApi(ApiClient(Configuration(host=os.environ["LATER_API"], access_token=os.environ["API_KEY"])))
payment = PaymentRequest(
    card_number="2222405343248877", expiry_month=12, expiry_year=2099, currency=Currency.GBP, amount=1050, cvv="123"
)
# Without `model_construct` the client itself refuses the values.
invalid = PaymentRequest.model_construct(
    card_number="2222405343248877", expiry_month=13, expiry_year=2020, currency=Currency.GBP, amount=0, cvv="12"
)
answers = {
    "paid": pay(payment, "python-pydantic"),
    "replayed": pay(payment, "python-pydantic"),
    "invalid": pay(invalid, request_id="invalid-1"),
    "unknown": find(gateway, os.environ["UNKNOWN_ID"]),
    **{name: find(later, payment_id) for name, payment_id in json.loads(os.environ["LATER_IDS"]).items()},
}
print(json.dumps(answers))
