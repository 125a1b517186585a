"""Connexion's FlaskApp with its own validators and requests: the gateway's contract, without any tuning."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import connexion
import requests
import yaml

OPERATIONS = {"create_payment", "get_payment"}
CONTRACT = Path(__file__).parents[2] / "payment_gateway_api.yaml"

session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))
payments: dict[str, dict[str, Any]] = {}


def create_payment(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    asked = {
        "card_number": body["card_number"],
        "expiry_date": f"{body['expiry_month']:02}/{body['expiry_year']}",
        "currency": body["currency"],
        "amount": body["amount"],
        "cvv": body["cvv"],
    }
    answer = session.post(f"{os.environ['BANK_URL']}/payments", json=asked, timeout=30)
    answer.raise_for_status()
    payment = {
        "id": str(uuid4()),
        "status": "AUTHORIZED" if answer.json()["authorized"] else "DECLINED",
        "card_last4": body["card_number"][-4:],
        "expiry_month": body["expiry_month"],
        "expiry_year": body["expiry_year"],
        "currency": body["currency"],
        "amount": body["amount"],
        "created_at": datetime.now(UTC).isoformat(),
    }
    payments[payment["id"]] = payment
    return payment, 201, {"Content-Type": "application/json"}


def get_payment(payment_id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    if payment_id not in payments:
        return {}, 404, {"Content-Type": "application/json"}
    return payments[payment_id], 200, {"Content-Type": "application/json"}


def contract() -> dict[str, Any]:
    """Return the two operations of the gateway's contract, as a gateway without API keys serves them."""
    document: dict[str, Any] = yaml.safe_load(CONTRACT.read_text(encoding="utf-8"))
    document["security"] = []
    for path, operations in list(document["paths"].items()):
        for method, operation in list(operations.items()):
            if isinstance(operation, dict) and operation["operationId"].rpartition(".")[2] not in OPERATIONS:
                del operations[method]
        if not operations:
            del document["paths"][path]
    return document


app = connexion.FlaskApp(__name__)
app.add_api(contract(), resolver=connexion.resolver.RelativeResolver(__name__))
