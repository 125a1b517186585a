"""Errors are honest about money: a payment that is recorded is answered as a payment, whatever fails afterwards."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from bank.simulator import Simulator
from tests import support
from tests.support import Gateway, store_url, valid_payment, wait_until

FAILING = Path(__file__).parent / "failing.py"

# Only operations that succeed are answered with the rate.
RATE = {"ratelimit", "ratelimit-policy"}

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def failing(
    request: pytest.FixtureRequest, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway in which a request fails once, at the point that its X-Request-ID names (failing.py)."""
    url = store_url(request.param, tmp_path_factory.mktemp("store"), request)
    settings = {"STORE_URL": url, "BANK_URL": simulator.url, "RATE_LIMIT": "1000/second"}
    if request.param != "memory":
        settings["FINGERPRINT_KEY"] = "0f" * 32
    with Gateway(script=FAILING, settings=settings) as running:
        yield running


def pay(gateway: Gateway, point: str, key: str, **changes: Any) -> requests.Response:
    """Send a payment that fails at this point, and return its answer once it has failed there."""
    request_id = f"{point}.{next(_numbers)}"
    headers = {"X-Request-ID": request_id, "Idempotency-Key": key}
    url = f"{gateway.api}/payments"
    answer = requests.post(url, json=valid_payment(**changes), headers=headers, timeout=30)
    wait_until(lambda: f"failed on purpose: {request_id}\n" in gateway.log)
    return answer


@pytest.mark.parametrize(
    ("card_number", "status"), [(support.AUTHORIZED_CARD, "AUTHORIZED"), (support.DECLINED_CARD, "DECLINED")]
)
@pytest.mark.parametrize(
    "point",
    [
        "settle",
        "settled",
        "payment-metrics",
        "response",
        "send-inner",
        "send-outer",
        "request-metrics",
        "access-log",
    ],
)
def test_a_failure_after_the_claim_is_answered_with_the_payment(
    failing: Gateway, simulator: Simulator, point: str, card_number: str, status: str
) -> None:
    """201 with its outcome, or 202 with PENDING; GET and a repeated request then show the outcome, charged once."""
    key = f"key {next(_numbers)}"
    answer = pay(failing, point, key, card_number=card_number)
    payment = answer.json()
    assert (answer.status_code, payment["status"]) in {(201, status), (202, "PENDING")}
    assert answer.headers["Location"] == f"/api/v1/payments/{payment['id']}"
    if not point.startswith("settle"):
        assert answer.status_code == 201, "the outcome was recorded when it failed"
    wait_until(lambda: failing.find(payment["id"]).json()["status"] == status)
    outcome = failing.find(payment["id"]).json()
    assert support.lasting(outcome) == support.lasting(payment)
    if answer.status_code == 201:
        assert outcome == payment
    again = requests.post(
        f"{failing.api}/payments",
        json=valid_payment(card_number=card_number),
        headers={"Idempotency-Key": key},
        timeout=30,
    )
    assert (again.status_code, again.json(), again.headers["Idempotent-Replayed"]) == (201, outcome, "true")
    ledger = requests.get(f"{simulator.url}/ledger", timeout=10).json()
    assert ledger[payment["id"]]["authorized"] == (status == "AUTHORIZED")


@pytest.mark.parametrize("point", ["send-inner", "send-outer"])
def test_an_answer_that_was_made_twice_has_all_its_headers_once(failing: Gateway, point: str) -> None:
    """Also the request's id and the security headers, which other layers add."""
    usual = requests.post(f"{failing.api}/payments", json=valid_payment(), timeout=30)
    answer = pay(failing, point, f"key {next(_numbers)}")
    assert {*answer.headers} - RATE == {*usual.headers} - RATE
    assert answer.headers["X-Request-ID"].startswith(point)


@pytest.mark.parametrize("point", ["identify", "claim"])
def test_a_failure_before_the_claim_claims_nothing_about_money(
    failing: Gateway, simulator: Simulator, point: str
) -> None:
    """500 without a word of a charge; the bank was not asked, and the same request succeeds when sent again."""
    before = requests.get(f"{simulator.url}/ledger", timeout=10).json()
    key = f"key {next(_numbers)}"
    answer = pay(failing, point, key)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "charged" not in answer.text
    assert requests.get(f"{simulator.url}/ledger", timeout=10).json() == before
    again = requests.post(f"{failing.api}/payments", json=valid_payment(), headers={"Idempotency-Key": key}, timeout=30)
    assert again.status_code == 201


@pytest.mark.parametrize("point", ["find", "response"])
def test_a_read_that_fails_claims_nothing_about_money(failing: Gateway, point: str) -> None:
    """It is 500, and the payment is as it was."""
    payment = failing.pay().json()
    headers = {"X-Request-ID": f"{point}.{next(_numbers)}"}
    url = f"{failing.api}/payments/{payment['id']}"
    answer = requests.get(url, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "charged" not in answer.text
    assert failing.find(payment["id"]).json() == payment


def test_a_request_that_the_bank_refuses_charged_nothing_and_says_so(failing: Gateway) -> None:
    """The bank's 400 is the gateway's own error, and its detail is the one that mentions a charge."""
    answer = failing.pay(card_number=support.REFUSED)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.json()["detail"].endswith("Nothing was charged.")
