"""Crashes: a gateway is killed at each step of a payment; no payment is lost or charged twice."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import requests

from bank.simulator import Simulator
from tests import support
from tests.support import Gateway, lasting, valid_payment, wait_until

CRASHING = Path(__file__).parent / "crashing.py"
STEPS = [
    "before-claim",
    "in-claim",
    "after-claim",
    "before-authorize",
    "at-working",
    "after-authorize",
    "before-settle",
    "in-change",
    "after-settle",
]
KEY = {"Idempotency-Key": "the only payment"}


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_loses_no_payment_and_charges_none_twice(step: str, database_url: str) -> None:
    """The client retries with its key until it has an answer; then the bank's ledger and the database agree."""
    simulator = Simulator()
    simulator.start()
    settings = {
        **_settings(database_url, simulator.url),
        "BANK_TIMEOUT_S": "3" if step == "at-working" else "0.5",
    }
    card = support.SLOW if step == "at-working" else support.AUTHORIZED_CARD
    _crash(settings, step, card)
    with Gateway(settings=settings) as gateway:
        _agree(gateway, simulator, _retry(gateway, card))
    simulator.stop()


@pytest.mark.parametrize("step", ["before-release", "after-release"])
def test_a_crash_after_a_lying_503_charges_none_twice(step: str, database_url: str) -> None:
    """Before the release the payment is PENDING and is looked up; after it the retry has the same id at the bank."""
    simulator = Simulator()
    simulator.start()
    with support.proxy(simulator.url, lies=1) as proxy:
        settings = _settings(database_url, proxy.url)
        _crash(settings, step)
        with Gateway(settings=settings) as gateway:
            payment = _retry(gateway)
            assert payment["status"] == "AUTHORIZED"
            _agree(gateway, simulator, payment)
    simulator.stop()


@pytest.mark.parametrize("step", ["after-claim", "before-authorize", "after-authorize", "after-settle"])
def test_a_crash_of_a_retry_after_a_lying_503_charges_none_twice(step: str, database_url: str) -> None:
    """Whatever the retry had done, the payment keeps the id that the bank knows."""
    simulator = Simulator()
    simulator.start()
    with support.proxy(simulator.url, lies=1) as proxy:
        settings = _settings(database_url, proxy.url)
        with Gateway(settings=settings) as gateway:
            assert _post(gateway).status_code == 503
        _crash(settings, step)
        with Gateway(settings=settings) as gateway:
            payment = _retry(gateway)
            assert payment["status"] == "AUTHORIZED"
            _agree(gateway, simulator, payment)
    simulator.stop()


def _settings(database_url: str, bank_url: str) -> dict[str, str]:
    return {
        "STORE_URL": database_url,
        "FINGERPRINT_KEY": "0f" * 32,
        "BANK_URL": bank_url,
        "BANK_TIMEOUT_S": "0.5",
        "BANK_CONNECT_TIMEOUT_S": "0.2",
        "BANK_RETRIES": "0",
    }


def _post(gateway: Gateway, card: str = support.AUTHORIZED_CARD) -> requests.Response:
    body = valid_payment(amount=666, card_number=card)
    return requests.post(f"{gateway.api}/payments", json=body, headers=KEY, timeout=30)


def _crash(settings: dict[str, str], step: str, card: str = support.AUTHORIZED_CARD) -> None:
    """Send the payment to a gateway that is killed at this step."""
    with Gateway(script=CRASHING, settings=settings, CRASH_AT=step) as crashing:
        with pytest.raises(requests.ConnectionError):
            _post(crashing, card)
        assert crashing.process.wait(10) == -9


def _retry(gateway: Gateway, card: str = support.AUTHORIZED_CARD) -> dict[str, Any]:
    """Send the payment again until it is answered with 201, and return it."""
    answers: list[requests.Response] = []

    def answered() -> bool:
        answers.append(_post(gateway, card))
        return answers[-1].status_code == 201

    wait_until(answered, 40)
    seen = [status for status, _ in itertools.groupby(answer.status_code for answer in answers)]
    assert seen in ([201], [409, 201], [202, 201], [409, 202, 201]), "in use, then PENDING, then settled"
    payment: dict[str, Any] = answers[-1].json()
    return payment


def _agree(gateway: Gateway, simulator: Simulator, payment: dict[str, Any]) -> None:
    ledger = requests.get(f"{simulator.url}/ledger", timeout=10).json()
    authorized = [payment_id for payment_id, entry in ledger.items() if entry["authorized"]]
    if payment["status"] == "AUTHORIZED":
        assert authorized == [payment["id"]]
    else:
        assert payment["status"] == "DECLINED", "the bank does not know it"
        assert authorized == []
    found = requests.get(f"{gateway.api}/payments/{payment['id']}", timeout=10).json()
    assert found == payment


@pytest.mark.parametrize(
    ("card_number", "status"), [(support.DROPPED, "AUTHORIZED"), (support.DROPPED_BEFORE, "DECLINED")]
)
def test_a_dropped_connection_is_resolved_by_a_look_up(card_number: str, status: str, database_url: str) -> None:
    """The bank has authorized the payment before it dropped the connection, or does not know it."""
    settings = {"STORE_URL": database_url, "FINGERPRINT_KEY": "0f" * 32, "BANK_TIMEOUT_S": "0.5"}
    with Gateway(settings=settings, BANK_CONNECT_TIMEOUT_S="0.2") as gateway:
        pending = gateway.pay(card_number=card_number)
        assert (pending.status_code, pending.json()["status"]) == (202, "PENDING")
        wait_until(lambda: gateway.find(pending.json()["id"]).json()["status"] != "PENDING", 30)
        settled = gateway.find(pending.json()["id"]).json()
        assert (settled["status"], lasting(settled)) == (status, lasting(pending.json()))
