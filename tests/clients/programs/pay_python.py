"""What a client by openapi-python-client sees; it prints the answers as JSON."""

import json
import os
from typing import Any
from uuid import UUID

from payment_gateway_api_client import AuthenticatedClient
from payment_gateway_api_client.api.payments import create_payment, get_payment
from payment_gateway_api_client.models import Currency, Payment, PaymentRequest, Problem
from payment_gateway_api_client.types import Response


def seen(answer: Response[Payment | Problem]) -> dict[str, Any]:
    """Return the fields of an answer, read through the client's types."""
    parsed = answer.parsed
    if isinstance(parsed, Payment):
        return {
            "id": str(parsed.id),
            "status": parsed.status.value,
            "response_code": parsed.response_code,
            "response_summary": parsed.response_summary,
            "authorization_code": parsed.authorization_code,
            "card_last4": parsed.card_last4,
            "card_scheme": parsed.card_scheme,
            "expiry_month": parsed.expiry_month,
            "expiry_year": parsed.expiry_year,
            "currency": parsed.currency,
            "amount": parsed.amount,
            "balances": {
                "total_authorized": parsed.balances.total_authorized,
                "total_captured": parsed.balances.total_captured,
                "total_refunded": parsed.balances.total_refunded,
                "total_voided": parsed.balances.total_voided,
                "available_to_capture": parsed.balances.available_to_capture,
                "available_to_void": parsed.balances.available_to_void,
                "available_to_refund": parsed.balances.available_to_refund,
            },
            "reference": parsed.reference,
            "metadata": parsed.metadata.additional_properties,
            "created_at": parsed.created_at.isoformat(),
            "updated_at": parsed.updated_at.isoformat(),
            "replayed": answer.headers.get("Idempotent-Replayed"),
        }
    assert parsed is not None
    return {
        "type": parsed.type_.value,
        "title": parsed.title,
        "status": parsed.status,
        "detail": parsed.detail,
        "code": parsed.code.value,
        "instance": parsed.instance,
        "errors": [
            {"field": error.field, "code": error.code.value, "message": error.message} for error in parsed.errors or []
        ],
    }


def find(client: AuthenticatedClient, payment_id: str) -> dict[str, Any]:
    """Return what a look-up sees, or the error that the client raises."""
    try:
        return seen(get_payment.sync_detailed(UUID(payment_id), client=client))
    except ValueError as error:
        return {"raised": str(error)}


gateway = AuthenticatedClient(base_url=os.environ["API"], token=os.environ["API_KEY"])
later = AuthenticatedClient(base_url=os.environ["LATER_API"], token=os.environ["API_KEY"])
payment = PaymentRequest("2222405343248877", 12, 2099, Currency.GBP, 1050, "123")
invalid = PaymentRequest("2222405343248877", 13, 2020, Currency.GBP, 0, "12")
answers = {
    "paid": seen(create_payment.sync_detailed(client=gateway, body=payment, idempotency_key="python")),
    "replayed": seen(create_payment.sync_detailed(client=gateway, body=payment, idempotency_key="python")),
    "invalid": seen(create_payment.sync_detailed(client=gateway, body=invalid, x_request_id="invalid-1")),
    "unknown": find(gateway, os.environ["UNKNOWN_ID"]),
    **{name: find(later, payment_id) for name, payment_id in json.loads(os.environ["LATER_IDS"]).items()},
}
print(json.dumps(answers))
