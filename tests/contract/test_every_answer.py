"""Each documented answer of each operation is received, from a gateway without keys and from one with keys."""

import contextlib
import hashlib
import http.client
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from tests import support
from tests.contract import record, session
from tests.support import UNKNOWN_ID, Gateway, valid_payment

KEY = "pgw_test_" + "k" * 43
API_KEYS = f"acme:{hashlib.sha256(KEY.encode()).hexdigest()}"

# More requests than the other tests make.
RATE = 100


@pytest.fixture(scope="module")
def gateways() -> Iterator[dict[str, Gateway]]:
    """A gateway of each kind (faulty.py)."""
    settings = {"RATE_LIMIT": f"{RATE}/hour", "BANK_RETRIES": "0"}
    script = Path(__file__).with_name("faulty.py")
    with contextlib.ExitStack() as running, ThreadPoolExecutor(2) as pool:
        starts = {
            "without keys": pool.submit(Gateway, script=script, settings=settings),
            "with keys": pool.submit(Gateway, script=script, settings=settings, API_KEYS=API_KEYS, key=KEY),
        }
        yield {kind: running.enter_context(start.result()) for kind, start in starts.items()}


def post(gateway: Gateway, body: str = "", **headers: str) -> requests.Response:
    """Send a payment, or `body` in place of it, with headers in addition: `Idempotency_Key` is Idempotency-Key."""
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    url, data = f"{gateway.api}/payments", body or json.dumps(valid_payment())
    return gateway.session.post(url, data=data, headers=sent, timeout=30)


def get(gateway: Gateway, payment_id: str = UNKNOWN_ID, **headers: str) -> requests.Response:
    """Look a payment up."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.session.get(f"{gateway.api}/payments/{payment_id}", headers=sent, timeout=30)


def post_and_send_no_body(gateway: Gateway) -> int:
    """Announce a body, and wait for the answer."""
    connection = http.client.HTTPConnection(gateway.root.removeprefix("http://"), timeout=30)
    headers = {"Content-Type": "application/json", "Content-Length": "100", "Authorization": f"Bearer {KEY}"}
    connection.request("POST", "/api/v1/payments", headers=headers)
    with contextlib.closing(connection):
        answer = connection.getresponse()
        answer.read()
        return answer.status


def pay_twice_at_once(gateway: Gateway) -> int:
    """Send two payments with one Idempotency-Key; return the status of the one that is not paid."""
    body, key = json.dumps(valid_payment(card_number=support.SLOW)), str(uuid4())
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(post, gateway, body, Idempotency_Key=key) for _ in range(2)]
        return max(each.result().status_code for each in sent)


def reuse_a_key(gateway: Gateway) -> requests.Response:
    """Send another payment with the Idempotency-Key of one that is paid."""
    key = str(uuid4())
    assert post(gateway, Idempotency_Key=key).status_code == 201
    return post(gateway, json.dumps(valid_payment(amount=1)), Idempotency_Key=key)


def exhaust(ask: Callable[[Gateway], requests.Response]) -> Callable[[Gateway], int]:
    """Return a function that sends requests until the rate is used up."""
    return lambda gateway: next(status for _ in range(RATE + 1) if (status := ask(gateway).status_code) == 429)


WAYS: dict[tuple[str, int], Callable[[Gateway], requests.Response | int]] = {
    ("create_payment", 201): Gateway.pay,
    ("create_payment", 202): lambda gateway: gateway.pay(card_number=support.DROPPED),
    ("create_payment", 400): lambda gateway: gateway.pay(amount=0),
    ("create_payment", 401): lambda gateway: post(gateway, Authorization="Bearer wrong"),
    ("create_payment", 408): post_and_send_no_body,
    ("create_payment", 409): pay_twice_at_once,
    ("create_payment", 413): lambda gateway: post(gateway, " " * 20_000),
    ("create_payment", 415): lambda gateway: post(gateway, Content_Type="text/plain"),
    ("create_payment", 421): lambda gateway: post(gateway, Host="merchant.example"),
    ("create_payment", 422): reuse_a_key,
    ("create_payment", 429): exhaust(post),
    ("create_payment", 431): lambda gateway: post(gateway, X_Large="x" * 40_000),
    ("create_payment", 500): lambda gateway: gateway.pay(card_number=support.REFUSED),
    ("create_payment", 503): lambda gateway: gateway.pay(card_number=support.UNAVAILABLE_CARD),
    ("get_payment", 200): lambda gateway: get(gateway, gateway.pay().json()["id"]),
    ("get_payment", 400): lambda gateway: get(gateway, "no-uuid"),
    ("get_payment", 401): lambda gateway: get(gateway, Authorization="Bearer wrong"),
    ("get_payment", 404): get,
    ("get_payment", 421): lambda gateway: get(gateway, Host="merchant.example"),
    ("get_payment", 429): exhaust(get),
    ("get_payment", 431): lambda gateway: get(gateway, X_Large="x" * 40_000),
    ("get_payment", 500): lambda gateway: get(gateway, X_Request_ID="broken-1"),
    ("get_payment", 503): lambda gateway: get(gateway, X_Request_ID="unavailable-1"),
}


# 429 comes last, because no other answer can be had after it.
DOCUMENTED = sorted(session.documented(), key=lambda each: (each[2] == 429, each))


def test_each_way_leads_to_a_documented_answer() -> None:
    """Nothing is left of one that is no longer documented."""
    assert {(operation, status) for _, operation, status in DOCUMENTED} == WAYS.keys()


@pytest.mark.parametrize(("kind", "operation", "status"), DOCUMENTED)
def test_a_documented_answer_is_received(gateways: dict[str, Gateway], kind: str, operation: str, status: int) -> None:
    """The gateway answers with this status, and its answer counts as that of this operation."""
    answer = WAYS[operation, status](gateways[kind])
    assert (answer if isinstance(answer, int) else answer.status_code) == status
    assert {"seen": [kind, operation, status]} in record.entries(gateways[kind].answers)
