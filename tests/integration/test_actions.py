"""Captures, voids and refunds through running gateways: they move money once, and never more than there is."""

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import requests

from bank import simulator as simulating
from bank.simulator import Simulator
from tests import support
from tests.postgres import Postgres
from tests.support import Gateway, reply, scripted_bank, wait_until

AUTHORIZED = b'{"authorized": true, "authorization_code": "1"}'
CAPTURE_DECLINED = "4000000000000259"
REFUND_DECLINED = "4000000000003238"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


def act(gateway: Gateway, payment_id: str, name: str, key: str = "", **values: Any) -> requests.Response:
    """Send an action; without values, without a body."""
    headers = {"Idempotency-Key": key} if key else {}
    url = f"{gateway.api}/payments/{payment_id}/{name}"
    return gateway.session.post(url, json=values or None, headers=headers, timeout=60)


def authorized(gateway: Gateway, **changes: Any) -> str:
    payment: dict[str, Any] = gateway.pay(**{"amount": 1000, **changes}).json()
    assert payment["status"] == "AUTHORIZED"
    payment_id: str = payment["id"]
    return payment_id


def balances(gateway: Gateway, payment_id: str) -> tuple[int, int, int]:
    """Return what is captured, released and refunded."""
    found = gateway.find(payment_id).json()["balances"]
    return found["total_captured"], found["total_voided"], found["total_refunded"]


def status(gateway: Gateway, payment_id: str) -> str:
    found: str = gateway.find(payment_id).json()["status"]
    return found


def code_of(answer: requests.Response) -> tuple[int, str, bool]:
    """Return the status, the code, and whether the request may be sent again."""
    return answer.status_code, answer.json()["code"], "Retry-After" in answer.headers


def test_a_life(gateway: Gateway) -> None:
    """Two captures, of which the last releases the rest, and two refunds; each is listed after the authorization."""
    payment_id = authorized(gateway, reference="order 7")
    first = act(gateway, payment_id, "captures", amount=400, final=False, reference="shipment 1", metadata={"a": "b"})
    assert (first.status_code, first.json()["status"], first.json()["amount"]) == (201, "APPROVED", 400)
    assert first.headers["Location"] == f"/api/v1/payments/{payment_id}/actions/{first.json()['id']}"
    assert gateway.session.get(f"{gateway.root}{first.headers['Location']}", timeout=60).json() == first.json()
    assert (status(gateway, payment_id), balances(gateway, payment_id)) == ("PARTIALLY_CAPTURED", (400, 0, 0))
    assert act(gateway, payment_id, "captures", amount=100).json()["status"] == "APPROVED"
    assert (status(gateway, payment_id), balances(gateway, payment_id)) == ("CAPTURED", (500, 500, 0))
    refund = act(gateway, payment_id, "refunds", amount=200, reason="returned").json()
    assert (refund["type"], refund["reason"], refund["response_code"]) == ("REFUND", "returned", "10000")
    assert (status(gateway, payment_id), balances(gateway, payment_id)) == ("PARTIALLY_REFUNDED", (500, 500, 200))
    assert act(gateway, payment_id, "refunds").json()["amount"] == 300
    assert (status(gateway, payment_id), balances(gateway, payment_id)) == ("REFUNDED", (500, 500, 500))
    listed = gateway.session.get(f"{gateway.api}/payments/{payment_id}/actions", timeout=60).json()["data"]
    assert [action["type"] for action in listed] == ["AUTHORIZATION", "CAPTURE", "CAPTURE", "REFUND", "REFUND"]
    assert (listed[0]["id"], listed[0]["reference"], listed[0]["status"]) == (payment_id, "order 7", "APPROVED")
    assert listed[1] == first.json()


def test_a_void_releases_what_is_not_captured(gateway: Gateway) -> None:
    payment_id = authorized(gateway)
    assert act(gateway, payment_id, "voids").json()["amount"] == 1000
    assert (status(gateway, payment_id), balances(gateway, payment_id)) == ("VOIDED", (0, 1000, 0))


def test_what_the_state_forbids_is_final(gateway: Gateway) -> None:
    """It is a 409 without Retry-After, and the bank hears nothing of it."""
    authorized_id, captured, declined = authorized(gateway), authorized(gateway), gateway.pay(card_number="2" * 16)
    act(gateway, captured, "captures")
    not_allowed, exceeds = (409, "action_not_allowed", False), (409, "amount_exceeds_available", False)
    assert code_of(act(gateway, authorized_id, "refunds")) == not_allowed
    assert code_of(act(gateway, authorized_id, "captures", amount=1001)) == exceeds
    assert code_of(act(gateway, captured, "voids")) == not_allowed
    assert code_of(act(gateway, captured, "captures", amount=1)) == not_allowed
    assert code_of(act(gateway, captured, "refunds", amount=1001)) == exceeds
    assert code_of(act(gateway, declined.json()["id"], "captures")) == not_allowed
    listed = gateway.session.get(f"{gateway.api}/payments/{authorized_id}/actions", timeout=60).json()["data"]
    assert len(listed) == 1


def test_an_action_in_doubt_holds_its_amount_until_the_bank_says(gateway: Gateway) -> None:
    """Meanwhile what needs it is a 409 with Retry-After. A repeated request with its key returns it."""
    payment_id = authorized(gateway, amount=simulating.UNANSWERED + 10)
    key = str(uuid4())
    pending = act(gateway, payment_id, "captures", key, amount=simulating.UNANSWERED, final=False)
    assert (pending.status_code, pending.json()["status"], pending.json()["response_code"]) == (202, "PENDING", None)
    in_progress = (409, "action_in_progress", True)
    assert code_of(act(gateway, payment_id, "voids")) == in_progress
    assert code_of(act(gateway, payment_id, "captures", amount=11, final=False)) == in_progress
    assert code_of(act(gateway, payment_id, "refunds", amount=1)) == in_progress
    assert act(gateway, payment_id, "captures", amount=10, final=False).status_code == 201
    wait_until(lambda: status(gateway, payment_id) == "CAPTURED", 30)
    again = act(gateway, payment_id, "captures", key, amount=simulating.UNANSWERED, final=False)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert again.json()["id"] == pending.json()["id"]


@pytest.mark.parametrize(
    ("card", "name"), [(CAPTURE_DECLINED, "captures"), (REFUND_DECLINED, "refunds")], ids=["capture", "refund"]
)
def test_a_decline_moves_nothing(gateway: Gateway, card: str, name: str) -> None:
    payment_id = authorized(gateway, card_number=card)
    if name == "refunds":
        act(gateway, payment_id, "captures")
    before = balances(gateway, payment_id)
    declined = act(gateway, payment_id, name).json()
    assert (declined["status"], declined["response_code"]) == ("DECLINED", "20005")
    assert balances(gateway, payment_id) == before


def test_a_key_is_for_one_action(gateway: Gateway) -> None:
    """Its request can be repeated when nothing is left. Another action, payment or merchant's value is a 422."""
    payment_id, other, key = authorized(gateway), authorized(gateway), str(uuid4())
    first = act(gateway, payment_id, "captures", key)
    again = act(gateway, payment_id, "captures", key)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
    reused = (422, "idempotency_key_reused", False)
    assert code_of(act(gateway, payment_id, "captures", key, amount=1)) == reused
    assert code_of(act(gateway, payment_id, "refunds", key)) == reused
    assert code_of(act(gateway, other, "captures", key)) == reused
    url, headers = f"{gateway.api}/payments", {"Idempotency-Key": key}
    payment = gateway.session.post(url, json=support.valid_payment(), headers=headers, timeout=60)
    assert code_of(payment) == reused
    assert balances(gateway, other) == (0, 0, 0)


def test_another_merchants_payment_is_not_found(gateway: Gateway) -> None:
    payment_id = authorized(gateway)
    for name in ("captures", "voids", "refunds"):
        assert code_of(act(gateway, support.UNKNOWN_ID, name)) == (404, "payment_not_found", False)
    unknown = gateway.session.get(f"{gateway.api}/payments/{payment_id}/actions/{support.UNKNOWN_ID}", timeout=60)
    assert code_of(unknown) == (404, "action_not_found", False)


def test_a_sale_is_captured_at_once(gateway: Gateway) -> None:
    """Where the capture is declined it is AUTHORIZED; where it is in doubt, a 202 that is captured later."""
    sale = gateway.pay(amount=1000, capture=True)
    assert (sale.status_code, sale.json()["status"]) == (201, "CAPTURED")
    declined = gateway.pay(amount=1000, capture=True, card_number=CAPTURE_DECLINED)
    assert (declined.status_code, declined.json()["status"]) == (201, "AUTHORIZED")
    key = {"Idempotency-Key": str(uuid4())}
    sent = support.valid_payment(amount=simulating.UNANSWERED, capture=True)
    doubt = gateway.session.post(f"{gateway.api}/payments", json=sent, headers=key, timeout=60)
    assert (doubt.status_code, doubt.json()["status"]) == (202, "AUTHORIZED")
    again = gateway.session.post(f"{gateway.api}/payments", json=sent, headers=key, timeout=60)
    assert (again.json()["id"], "Idempotent-Replayed" in again.headers) == (
        doubt.json()["id"],
        again.status_code == 201,
    )
    wait_until(lambda: status(gateway, doubt.json()["id"]) == "CAPTURED", 30)
    refused = gateway.pay(amount=simulating.REFUSED, capture=True)
    assert (refused.status_code, refused.json()["status"]) == (201, "AUTHORIZED")


def test_a_sale_whose_authorization_was_in_doubt_is_captured_by_its_retry(gateway: Gateway) -> None:
    url, headers = f"{gateway.api}/payments", {"Idempotency-Key": str(uuid4())}
    sale = support.valid_payment(amount=1000, capture=True, card_number=support.DROPPED)
    first = gateway.session.post(url, json=sale, headers=headers, timeout=60)
    assert first.status_code == 202
    wait_until(lambda: status(gateway, first.json()["id"]) == "AUTHORIZED", 30)
    again = gateway.session.post(url, json=sale, headers=headers, timeout=60)
    assert (again.status_code, again.json()["status"]) == (201, "CAPTURED")
    assert gateway.session.post(url, json=sale, headers=headers, timeout=60).json() == again.json()
    assert balances(gateway, first.json()["id"]) == (1000, 0, 0)


def test_a_503_of_the_bank_keeps_nothing(gateway: Gateway) -> None:
    """The bank says that it will never do the action, so the caller gets a 503, and may send it again."""
    payment_id, key = authorized(gateway, amount=simulating.UNAVAILABLE + 1), str(uuid4())
    unavailable = (503, "bank_unavailable", True)
    assert code_of(act(gateway, payment_id, "captures", key, amount=simulating.UNAVAILABLE)) == unavailable
    assert code_of(act(gateway, payment_id, "captures", key, amount=simulating.UNAVAILABLE)) == unavailable
    listed = gateway.session.get(f"{gateway.api}/payments/{payment_id}/actions", timeout=60).json()["data"]
    assert (status(gateway, payment_id), balances(gateway, payment_id), len(listed)) == ("AUTHORIZED", (0, 0, 0), 1)
    assert act(gateway, payment_id, "captures").json()["status"] == "APPROVED"


def test_a_503_of_a_proxy_after_the_capture_is_no_503(simulator: Simulator) -> None:
    """The bank says that it captured. A capture of the rest, whose amount depends on that, is correct."""
    with (
        support.proxy(simulator.url, lies=1, about="captures") as bank,
        Gateway(BANK_URL=bank.url, settings={"BANK_RETRIES": "0"}) as gateway,
    ):
        payment_id = authorized(gateway)
        captured = act(gateway, payment_id, "captures", amount=400, final=False)
        assert (captured.status_code, captured.json()["status"]) == (201, "APPROVED")
        assert act(gateway, payment_id, "captures", amount=500).json()["status"] == "APPROVED"
        entry = requests.get(f"{simulator.url}/ledger", timeout=10).json()[payment_id]
        assert (entry["captured"], entry["voided"], len(entry["actions"])) == (900, 100, 2)
        assert balances(gateway, payment_id) == (900, 100, 0)


def test_a_503_is_in_doubt_if_the_bank_does_not_say_what_became_of_it() -> None:
    """The action is PENDING, and holds its amount."""

    def script(connection: socket.socket) -> None:
        capabilities = b'{"actions": ["captures", "voids", "refunds"]}'
        known = {b"POST /payments HTTP": (200, AUTHORIZED), b"GET /capabilities HTTP": (200, capabilities)}
        reply(*known.get(bank.current.request.split(b"/1.1")[0], (503, b"")))(connection)

    with scripted_bank(script) as bank, Gateway(BANK_URL=bank.url) as gateway:
        payment_id = authorized(gateway)
        pending = act(gateway, payment_id, "captures", amount=400, final=False)
        assert (pending.status_code, pending.json()["status"]) == (202, "PENDING")
        assert code_of(act(gateway, payment_id, "voids")) == (409, "action_in_progress", True)


@pytest.mark.parametrize(("capabilities", "body"), [(400, b'{"errorMessage": "?"}'), (200, b"")])
def test_a_bank_without_actions_is_never_sent_one(capabilities: int, body: bytes) -> None:
    """The official simulator answers 400, or an empty 200, to what it does not know. Authorizing works as ever."""

    def script(connection: socket.socket) -> None:
        pays = bank.current.request.startswith(b"POST /payments HTTP")
        reply(200 if pays else capabilities, b'{"authorized": true, "authorization_code": "1"}' if pays else body)(
            connection
        )

    not_supported = (409, "not_supported_by_bank", False)
    with scripted_bank(script) as bank, Gateway(BANK_URL=bank.url) as gateway:
        payment_id = authorized(gateway)
        for name in ("captures", "voids"):
            assert code_of(act(gateway, payment_id, name)) == not_supported
        assert code_of(gateway.pay(capture=True)) == not_supported
        assert gateway.find(payment_id).json()["status"] == "AUTHORIZED"
        assert len(gateway.session.get(f"{gateway.api}/payments", timeout=60).json()["data"]) == 1
        asked = [request.split(b" HTTP")[0] for request in bank.requests]
    assert asked == [b"POST /payments", b"GET /capabilities"]


def test_what_the_bank_can_do_is_not_known_while_it_fails() -> None:
    """That is a 503, and nothing is kept."""

    def script(connection: socket.socket) -> None:
        pays = bank.current.request.startswith(b"POST /payments HTTP")
        reply(200 if pays else 500, AUTHORIZED if pays else b"")(connection)

    with scripted_bank(script) as bank, Gateway(BANK_URL=bank.url) as gateway:
        payment_id = authorized(gateway)
        assert code_of(act(gateway, payment_id, "captures")) == (503, "bank_unavailable", True)
        assert code_of(gateway.pay(capture=True)) == (503, "bank_unavailable", True)
        assert balances(gateway, payment_id) == (0, 0, 0)
        assert len(gateway.session.get(f"{gateway.api}/payments", timeout=60).json()["data"]) == 1


def test_an_action_survives_a_killed_gateway(simulator: Simulator, database_url: str) -> None:
    """It is PENDING and holds its amount; the next gateway asks the bank what became of it."""
    settings = {"STORE_URL": database_url, "FINGERPRINT_KEY": "0f" * 32, "BANK_TIMEOUT_S": "0.3"}
    settings |= {"BANK_CONNECT_TIMEOUT_S": "0.2"}
    with ThreadPoolExecutor(1) as pool:
        with Gateway(settings=settings, BANK_URL=simulator.url) as gateway:
            payment_id = authorized(gateway, amount=simulating.LATE)
            sent = pool.submit(act, gateway, payment_id, "captures")
            ledger = f"{simulator.url}/ledger"
            wait_until(lambda: requests.get(ledger, timeout=10).json()[payment_id]["actions"])
            gateway.process.send_signal(signal.SIGKILL)
            assert sent.exception() is not None or sent.result().status_code == 202
        with Gateway(settings=settings, BANK_URL=simulator.url) as gateway:
            wait_until(lambda: status(gateway, payment_id) == "CAPTURED", 60)
            assert balances(gateway, payment_id) == (simulating.LATE, 0, 0)


def test_of_fifty_captures_of_30_percent_over_two_processes_three_are_approved(
    simulator: Simulator, postgresql: Postgres
) -> None:
    """The bank saw three, and no other."""
    settings = {"STORE_URL": postgresql.new_database(), "FINGERPRINT_KEY": "0f" * 32, "BANK_URL": simulator.url}
    with Gateway(settings=settings) as one, Gateway(settings=settings) as two, ThreadPoolExecutor(50) as pool:
        payment_id = authorized(one)

        def capture(number: int) -> requests.Response:
            gateway = (one, two)[number % 2]
            url = f"{gateway.api}/payments/{payment_id}/captures"
            return requests.post(url, json={"amount": 300, "final": False}, timeout=60)

        answers = list(pool.map(capture, range(50)))
        approved = [answer for answer in answers if answer.status_code == 201]
        assert [answer.json()["status"] for answer in approved] == ["APPROVED"] * 3
        codes = {answer.json()["code"] for answer in answers if answer.status_code != 201}
        assert codes <= {"action_in_progress", "amount_exceeds_available"}
        assert balances(one, payment_id) == balances(two, payment_id) == (900, 0, 0)
        assert len(requests.get(f"{simulator.url}/ledger", timeout=10).json()[payment_id]["actions"]) == 3


def test_no_card_number_is_accepted_or_repeated(gateway: Gateway) -> None:
    """In a reference, a reason, a text of metadata or its name; with spaces and hyphens, too."""
    for card in ("4242424242424242", "4242 4242 4242 4242", "4-2 4242--4242424242"):
        sent: dict[str, Any] = {"reference": f"x {card}", "metadata": {card: "x", "y": card}}
        answers = [gateway.pay(**sent), act(gateway, authorized(gateway), "captures", **sent)]
        answers.append(act(gateway, authorized(gateway), "refunds", reason=card, **sent))
        for answer in answers:
            assert answer.status_code == 400
            assert card not in answer.text
            named = {error["field"] for error in answer.json()["errors"]}
            assert {"reference", "metadata.(unnamed)", "metadata.y"} <= named
        assert card not in gateway.log
