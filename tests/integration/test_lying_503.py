"""A bank that does its work and answers 503, or a proxy that does: a retry with the same key charges once."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from bank.simulator import Simulator
from tests import support
from tests.support import ROOT, Gateway, ScriptedBank, valid_payment


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    simulator = Simulator(latency_s=0.1)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Settings of a gateway on each store that asks the bank once for each request."""
    url = support.store_url(request.param, tmp_path, request)
    return {"STORE_URL": url, "FINGERPRINT_KEY": "0f" * 32, "BANK_RETRIES": "0"}


def pay(gateway: Gateway, key: str, **changes: object) -> requests.Response:
    return requests.post(
        f"{gateway.api}/payments", json=valid_payment(**changes), headers={"Idempotency-Key": key}, timeout=30
    )


def ids_at(bank: ScriptedBank) -> list[str]:
    """Return the ids under which the bank was sent payments, in order of arrival."""
    text = b"\n".join(sent for sent in bank.requests if sent.startswith(b"POST")).decode()
    return re.findall(r"(?i)idempotency-key: (\S+)", text)


def authorized(simulator: Simulator) -> list[str]:
    ledger: dict[str, Any] = requests.get(f"{simulator.url}/ledger", timeout=10).json()
    return [payment_id for payment_id, entry in ledger.items() if entry["authorized"]]


def listed(gateway: Gateway, settings: dict[str, str]) -> list[dict[str, Any]]:
    """Return what `run.py payments` lists."""
    environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "USER"}}
    port = gateway.api.split(":")[2].split("/")[0]
    command = [sys.executable, str(ROOT / "run.py"), "--port", port, "payments", "--json"]
    run = subprocess.run(
        command, env={**environment, **settings}, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


def test_a_retry_after_a_lying_503_has_the_same_id_at_the_bank(simulator: Simulator, settings: dict[str, str]) -> None:
    """The bank authorized once; until the retry, no answer and no list shows the payment."""
    with support.proxy(simulator.url, lies=2) as bank, Gateway(settings=settings, BANK_URL=bank.url) as gateway:
        key = str(uuid.uuid4())
        for _ in range(2):
            refused = pay(gateway, key)
            assert (refused.status_code, refused.json()["code"]) == (503, "bank_unavailable")
            assert gateway.find(ids_at(bank)[0]).status_code == 404
            assert listed(gateway, settings) == []
        answer = pay(gateway, key)
        assert (answer.status_code, answer.json()["status"]) == (201, "AUTHORIZED")
        assert ids_at(bank) == [answer.json()["id"]] * 3
        assert authorized(simulator) == [answer.json()["id"]]
        assert gateway.find(answer.json()["id"]).json() == answer.json()
        assert [payment["id"] for payment in listed(gateway, settings)] == [answer.json()["id"]]
        assert pay(gateway, key).content == answer.content
        assert len(ids_at(bank)) == 3, "a settled payment is replayed"


def test_another_payment_under_the_same_key_has_another_id(simulator: Simulator, settings: dict[str, str]) -> None:
    """After a 503 a merchant may use the key for another payment; then it belongs to that one."""
    with support.proxy(simulator.url, lies=1) as bank, Gateway(settings=settings, BANK_URL=bank.url) as gateway:
        assert pay(gateway, "key").status_code == 503
        other = pay(gateway, "key", amount=2000)
        assert (other.status_code, other.json()["amount"]) == (201, 2000)
        first_id, other_id = ids_at(bank)
        assert other.json()["id"] == other_id != first_id
        again = pay(gateway, "key")
        assert (again.status_code, again.json()["code"]) == (422, "idempotency_key_reused")
        assert len(ids_at(bank)) == 2


def test_retries_of_a_lying_503_at_the_same_time_are_one_payment(
    simulator: Simulator, settings: dict[str, str]
) -> None:
    """One of them asks the bank again, with the same id; the others get a 409 or its payment."""
    with support.proxy(simulator.url, lies=1) as bank, Gateway(settings=settings, BANK_URL=bank.url) as gateway:
        assert pay(gateway, "key").status_code == 503
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: pay(gateway, "key"), range(8)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {201, 409}
        payments = {answer.json()["id"] for answer in answers if answer.status_code == 201}
        assert payments == set(ids_at(bank)) == set(authorized(simulator))
        assert len(ids_at(bank)) == 2


def test_a_retry_that_is_never_sent_keeps_the_id(simulator: Simulator, settings: dict[str, str]) -> None:
    """The circuit is open for a retry; the next one still has the id that the bank knows."""
    breaker = {"BREAKER_FAILURES": "1", "BREAKER_OPEN_S": "1"}
    with (
        support.proxy(simulator.url, lies=1) as bank,
        Gateway(settings={**settings, **breaker}, BANK_URL=bank.url) as gateway,
    ):
        assert [pay(gateway, "key").status_code for _ in range(2)] == [503, 503]
        assert len(ids_at(bank)) == 1, "the second one was not sent"
        answers: list[requests.Response] = []

        def answered() -> bool:
            answers.append(pay(gateway, "key"))
            return answers[-1].status_code == 201

        support.wait_until(answered, 10)
        assert ids_at(bank) == [answers[-1].json()["id"]] * 2
        assert authorized(simulator) == [answers[-1].json()["id"]]
