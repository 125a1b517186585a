"""A gateway killed at every point of a payment's life: nothing is lost and nothing is made twice."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import requests

from bank.simulator import Simulator
from tests import support
from tests.support import Gateway, valid_payment, wait_until

CRASHING = Path(__file__).parent / "crashing.py"
POINTS = [
    "before-claim",
    "after-claim",
    "before-authorize",
    "at-working",
    "after-authorize",
    "before-settle",
    "after-settle",
]
KEY = {"Idempotency-Key": "the one payment"}


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_loses_nothing_and_doubles_nothing(point: str, database_url: str) -> None:
    """The client retries with its key until it has an answer; then ledger and table agree."""
    simulator = Simulator()
    simulator.start()
    settings = {
        "STORE_URL": database_url,
        "FINGERPRINT_KEY": "0f" * 32,
        "BANK_URL": simulator.url,
        "BANK_TIMEOUT_S": "3" if point == "at-working" else "0.5",
        "BANK_CONNECT_TIMEOUT_S": "0.2",
    }
    card = support.SLOW if point == "at-working" else support.AUTHORIZED_CARD
    body = valid_payment(amount=666, card_number=card)
    with Gateway(script=CRASHING, settings=settings, CRASH_AT=point) as doomed:
        with pytest.raises(requests.ConnectionError):
            requests.post(f"{doomed.api}/payments", json=body, headers=KEY, timeout=30)
        assert doomed.process.wait(10) == -9
    with Gateway(settings=settings) as gateway:
        answers: list[requests.Response] = []

        def answered() -> bool:
            answers.append(requests.post(f"{gateway.api}/payments", json=body, headers=KEY, timeout=30))
            return answers[-1].status_code == 201

        wait_until(answered, 40)
        seen = [status for status, _ in itertools.groupby(answer.status_code for answer in answers)]
        assert seen in ([201], [409, 201], [202, 201], [409, 202, 201]), "told to wait, then in doubt, then settled"
        _agree(gateway, simulator, answers[-1].json())
    simulator.stop()


def _agree(gateway: Gateway, simulator: Simulator, payment: dict[str, Any]) -> None:
    ledger = requests.get(f"{simulator.url}/ledger", timeout=10).json()
    authorized = [payment_id for payment_id, entry in ledger.items() if entry["authorized"]]
    if payment["status"] == "AUTHORIZED":
        assert authorized == [payment["id"]]
    else:
        assert payment["status"] == "DECLINED", "the bank never heard of it"
        assert authorized == []
    found = requests.get(f"{gateway.api}/payments/{payment['id']}", timeout=10).json()
    assert found == payment


@pytest.mark.parametrize(
    ("card_number", "status"), [(support.DROPPED, "AUTHORIZED"), (support.DROPPED_BEFORE, "DECLINED")]
)
def test_a_connection_dropped_before_or_after_the_work_is_found_out(
    card_number: str, status: str, database_url: str
) -> None:
    """The bank is asked: it did the work, or it never heard of the payment."""
    settings = {"STORE_URL": database_url, "FINGERPRINT_KEY": "0f" * 32, "BANK_TIMEOUT_S": "0.5"}
    with Gateway(settings=settings, BANK_CONNECT_TIMEOUT_S="0.2") as gateway:
        pending = gateway.pay(card_number=card_number)
        assert (pending.status_code, pending.json()["status"]) == (202, "PENDING")
        wait_until(lambda: gateway.find(pending.json()["id"]).json()["status"] != "PENDING", 30)
        assert gateway.find(pending.json()["id"]).json() == {**pending.json(), "status": status}
