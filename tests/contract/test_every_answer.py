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

from bank import simulator
from tests import support
from tests.contract import record, session
from tests.support import UNKNOWN_ID, Gateway, valid_payment

KEY = "pgw_test_" + "k" * 43
API_KEYS = f"acme:{hashlib.sha256(KEY.encode()).hexdigest()}"

# More requests than the other tests make.
RATE = 300


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


def post(gateway: Gateway, body: str = "", path: str = "", **headers: str) -> requests.Response:
    """Send a payment, or `body` in place of it, with headers in addition: `Idempotency_Key` is Idempotency-Key.

    path: below /payments
    """
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    url, data = f"{gateway.api}/payments{path}", body or json.dumps(valid_payment())
    return gateway.session.post(url, data=data, headers=sent, timeout=30)


def get(gateway: Gateway, path: str = f"/{UNKNOWN_ID}", **headers: str) -> requests.Response:
    """Look a payment up, or what is at another path below /payments."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.session.get(f"{gateway.api}/payments{path}", headers=sent, timeout=30)


def post_and_send_no_body(gateway: Gateway, path: str = "") -> int:
    """Announce a body, and wait for the answer."""
    connection = http.client.HTTPConnection(gateway.root.removeprefix("http://"), timeout=30)
    headers = {"Content-Type": "application/json", "Content-Length": "100", "Authorization": f"Bearer {KEY}"}
    connection.request("POST", f"/api/v1/payments{path}", headers=headers)
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


def act(name: str, body: str = "{}", captured: int = 0, **headers: str) -> Callable[[Gateway], requests.Response]:
    """Return a function that sends an action on a new payment of 100,000, of which something is captured before."""

    def send(gateway: Gateway) -> requests.Response:
        payment = f"/{gateway.pay(amount=100_000).json()['id']}"
        if captured:
            capture = json.dumps({"amount": captured, "final": False})
            assert post(gateway, capture, f"{payment}/captures").status_code == 201
        return post(gateway, body, f"{payment}/{name}", **headers)

    return send


def reuse_a_key_for(name: str) -> Callable[[Gateway], requests.Response]:
    """Return a function that sends an action with the Idempotency-Key of a payment."""

    def send(gateway: Gateway) -> requests.Response:
        key = str(uuid4())
        payment = post(gateway, Idempotency_Key=key).json()
        return post(gateway, "{}", f"/{payment['id']}/{name}", Idempotency_Key=key)

    return send


def ways_of_action(operation: str, name: str) -> dict[tuple[str, int], Callable[[Gateway], requests.Response | int]]:
    """Return the ways to each answer of an operation that captures, voids or refunds."""
    unknown, refund = f"/{UNKNOWN_ID}/{name}", name == "refunds"

    def with_amount(amount: int) -> Callable[[Gateway], requests.Response]:
        if name == "voids":  # it takes all that is left
            return act(name, captured=100_000 - amount)
        return act(name, json.dumps({"amount": amount}), captured=amount + 1 if refund else 0)

    return {
        (operation, 201): with_amount(10),
        (operation, 202): with_amount(simulator.UNANSWERED),
        (operation, 400): act(name, '{"surprise": 1}'),
        (operation, 401): lambda gateway: post(gateway, "{}", unknown, Authorization="Bearer wrong"),
        (operation, 404): lambda gateway: post(gateway, "{}", unknown),
        (operation, 408): lambda gateway: post_and_send_no_body(gateway, unknown),
        (operation, 409): act(name, captured=100_000) if name != "refunds" else act(name),
        (operation, 413): lambda gateway: post(gateway, " " * 70_000, unknown),
        (operation, 415): lambda gateway: post(gateway, "{}", unknown, Content_Type="text/plain"),
        (operation, 421): lambda gateway: post(gateway, "{}", unknown, Host="merchant.example"),
        (operation, 422): reuse_a_key_for(name),
        (operation, 429): exhaust(lambda gateway: post(gateway, "{}", unknown)),
        (operation, 431): lambda gateway: post(gateway, "{}", unknown, X_Large="x" * 40_000),
        (operation, 500): with_amount(simulator.REFUSED),
        (operation, 503): with_amount(simulator.UNAVAILABLE),
    }


def actions_of_new_payment(gateway: Gateway) -> str:
    """Return the path of the actions of a new payment."""
    return f"/{gateway.pay().json()['id']}/actions"


def ways_of_read(
    operation: str, path: Callable[[Gateway], str], unknown: str
) -> dict[tuple[str, int], Callable[[Gateway], requests.Response | int]]:
    """Return the ways to each answer of an operation that reads.

    path: returns a path below /payments that is found
    unknown: one of the same form
    """
    return {
        (operation, 200): lambda gateway: get(gateway, path(gateway)),
        (operation, 401): lambda gateway: get(gateway, unknown, Authorization="Bearer wrong"),
        (operation, 421): lambda gateway: get(gateway, unknown, Host="merchant.example"),
        (operation, 429): exhaust(lambda gateway: get(gateway, unknown)),
        (operation, 431): lambda gateway: get(gateway, unknown, X_Large="x" * 40_000),
        (operation, 500): lambda gateway: get(gateway, unknown, X_Request_ID="broken-1"),
        (operation, 503): lambda gateway: get(gateway, unknown, X_Request_ID="unavailable-1"),
    }


WAYS: dict[tuple[str, int], Callable[[Gateway], requests.Response | int]] = {
    ("create_payment", 201): Gateway.pay,
    ("create_payment", 202): lambda gateway: gateway.pay(card_number=support.DROPPED),
    ("create_payment", 400): lambda gateway: gateway.pay(amount=0),
    ("create_payment", 401): lambda gateway: post(gateway, Authorization="Bearer wrong"),
    ("create_payment", 408): post_and_send_no_body,
    ("create_payment", 409): pay_twice_at_once,
    ("create_payment", 413): lambda gateway: post(gateway, " " * 70_000),
    ("create_payment", 415): lambda gateway: post(gateway, Content_Type="text/plain"),
    ("create_payment", 421): lambda gateway: post(gateway, Host="merchant.example"),
    ("create_payment", 422): reuse_a_key,
    ("create_payment", 429): exhaust(post),
    ("create_payment", 431): lambda gateway: post(gateway, X_Large="x" * 40_000),
    ("create_payment", 500): lambda gateway: gateway.pay(card_number=support.REFUSED),
    ("create_payment", 503): lambda gateway: gateway.pay(card_number=support.UNAVAILABLE_CARD),
    **ways_of_read("get_payment", lambda gateway: f"/{gateway.pay().json()['id']}", f"/{UNKNOWN_ID}"),
    ("get_payment", 400): lambda gateway: get(gateway, "/no-uuid"),
    ("get_payment", 404): get,
    **ways_of_read("list_payments", lambda _: "?limit=1", ""),
    ("list_payments", 400): lambda gateway: get(gateway, "?limit=0"),
    **ways_of_read("list_actions", actions_of_new_payment, f"/{UNKNOWN_ID}/actions"),
    ("list_actions", 400): lambda gateway: get(gateway, "/no-uuid/actions"),
    ("list_actions", 404): lambda gateway: get(gateway, f"/{UNKNOWN_ID}/actions"),
    **ways_of_read(
        "get_action",
        lambda gateway: f"/{(payment := gateway.pay().json()['id'])}/actions/{payment}",
        f"/{UNKNOWN_ID}/actions/{UNKNOWN_ID}",
    ),
    ("get_action", 400): lambda gateway: get(gateway, f"/{UNKNOWN_ID}/actions/no-uuid"),
    ("get_action", 404): lambda gateway: get(gateway, f"{actions_of_new_payment(gateway)}/{UNKNOWN_ID}"),
    **ways_of_action("capture_payment", "captures"),
    **ways_of_action("void_payment", "voids"),
    **ways_of_action("refund_payment", "refunds"),
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
