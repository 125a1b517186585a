"""Another bank: a gateway whose BANK_URL has changed says nothing about payments that were sent to the bank before."""

import json
from collections.abc import Iterator

import pytest
import requests

from bank.simulator import Simulator
from tests import support
from tests.integration.test_operator import command
from tests.support import Gateway, valid_payment, wait_until


@pytest.fixture
def simulators() -> Iterator[tuple[Simulator, Simulator]]:
    """The bank, and another one."""
    both = Simulator(), Simulator()
    for simulator in both:
        simulator.start()
    yield both
    for simulator in both:
        simulator.stop()


def settings(database_url: str, bank_url: str) -> dict[str, str]:
    return {
        "STORE_URL": database_url,
        "FINGERPRINT_KEY": "0f" * 32,
        "BANK_URL": bank_url,
        "BANK_TIMEOUT_S": "0.3",
        "BANK_CONNECT_TIMEOUT_S": "0.2",
        "BANK_RETRIES": "0",
    }


def pay(gateway: Gateway, **changes: object) -> requests.Response:
    headers = {"Idempotency-Key": "the only payment"}
    return requests.post(f"{gateway.api}/payments", json=valid_payment(**changes), headers=headers, timeout=30)


def is_known(simulator: Simulator) -> bool:
    return bool(requests.get(f"{simulator.url}/ledger", timeout=10).json())


def test_a_pending_payment_is_looked_up_at_its_bank_only(
    simulators: tuple[Simulator, Simulator], database_url: str
) -> None:
    """The other bank would not know it, and promise so. When an operator says where the bank is, it is settled."""
    simulator, other = simulators
    with Gateway(settings=settings(database_url, simulator.url)) as gateway:
        answer = pay(gateway, card_number=support.DROPPED)
        payment_id = answer.json()["id"]
        assert answer.status_code == 202
        gateway.process.kill()
    with Gateway(settings=settings(database_url, other.url)) as gateway:
        warning = (
            f"payment {payment_id} is PENDING, it was sent to {simulator.url}, and the configured bank is {other.url}"
        )
        wait_until(lambda: gateway.log.count(warning) > 1, 30)
        assert gateway.find(payment_id).json()["status"] == "PENDING"
        (pending,) = json.loads(command(database_url, "pending", "--json").stdout)
        assert pending["bank"] == simulator.url
        assert not is_known(other), "it was not even asked"
    with support.proxy(simulator.url, lies=0) as moved, Gateway(settings=settings(database_url, moved.url)) as gateway:
        wait_until(lambda: f"{payment_id} is PENDING, it was sent to {simulator.url}" in gateway.log, 30)
        said = command(database_url, "same-bank", simulator.url, moved.url)
        assert (said.returncode, said.stdout) == (
            0,
            f"{simulator.url} is {moved.url} now; PENDING payments of {simulator.url}: 1\n",
        )
        wait_until(lambda: gateway.find(payment_id).json()["status"] == "AUTHORIZED", 40)
    for old, new in ((other.url, other.url), (other.url, "unknown")):
        assert command(database_url, "same-bank", old, new).returncode == 1


def test_a_retry_after_a_503_is_not_sent_to_another_bank(
    simulators: tuple[Simulator, Simulator], database_url: str
) -> None:
    """The first bank may have authorized the payment behind its 503, so the retry is PENDING."""
    simulator, other = simulators
    with support.proxy(simulator.url, lies=1) as bank:
        with Gateway(settings=settings(database_url, bank.url)) as gateway:
            assert pay(gateway).status_code == 503
        with Gateway(settings=settings(database_url, other.url)) as gateway:
            answers = [pay(gateway) for _ in range(2)]
            assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(202, "PENDING")] * 2
            assert not is_known(other)
        with Gateway(settings=settings(database_url, bank.url)) as gateway:
            wait_until(lambda: pay(gateway).status_code == 201, 40)
            settled = pay(gateway).json()
            assert (settled["status"], support.lasting(settled)) == ("AUTHORIZED", support.lasting(answers[0].json()))
        assert list(requests.get(f"{simulator.url}/ledger", timeout=10).json()) == [answers[0].json()["id"]]
