"""What a request costs, counted in Python calls: unlike time, the count does not depend on how busy the machine is.

A test fails when a request makes 25 % more calls than the figures below. Change a figure when there is a reason for a
higher cost, or after reducing it. The figures are from Python 3.11; later versions make fewer calls. The same costs in
microseconds are in docs/performance.md.
"""

import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import requests

from bank.simulator import Simulator
from tests import support
from tests.support import Gateway, ScriptedBank, store_url, wait_until

COUNTING = Path(__file__).with_name("counting.py")
UNCHECKED = "the check of answers makes calls, too"
REQUESTS = 50
ALLOWED_GROWTH = 1.25

# Calls for each request, by store. One request comes at a time, so no two share a transaction or a statement.
PAYMENT: Final = {"memory": 1690, "sqlite": 2470, "postgresql": 2130}
READ: Final = {"memory": 309, "sqlite": 711, "postgresql": 516}
REFUSAL: Final = 323


class Measured(NamedTuple):
    store: str
    gateway: Gateway


@pytest.fixture(scope="module", params=PAYMENT)
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, simulator: Simulator
) -> Iterator[Measured]:
    url = store_url(request.param, tmp_path_factory.mktemp("store"), request)
    options = {"STORE_URL": url, "FINGERPRINT_KEY": "0f" * 32, "BANK_URL": simulator.url, "LOG_FORMAT": "json"}
    with Gateway(script=COUNTING, unchecked=UNCHECKED, settings=options) as gateway:
        yield Measured(request.param, gateway)


def calls(gateway: Gateway, send: Callable[[], requests.Response], status: int) -> float:
    """Return the mean number of calls of a request, which must be answered with `status`."""

    def so_far() -> int:
        counts = gateway.log.count("CALLS")
        gateway.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: gateway.log.count("CALLS") > counts)
        return int(re.findall(r"CALLS (\d+)\n", gateway.log)[-1])

    for _ in range(20):  # warm up: the first requests connect, compile patterns and fill caches
        assert send().status_code == status
    before = so_far()
    for _ in range(REQUESTS):
        assert send().status_code == status
    return (so_far() - before) / REQUESTS


def test_a_payment_costs_no_more_than_its_figure(measured: Measured) -> None:
    """A payment makes at most 25 % more calls than `PAYMENT`, including its call to the bank."""
    assert calls(measured.gateway, measured.gateway.pay, 201) < ALLOWED_GROWTH * PAYMENT[measured.store]


def test_a_read_costs_no_more_than_its_figure(measured: Measured) -> None:
    """Reading a payment makes at most 25 % more calls than `READ`."""
    payment_id = measured.gateway.pay().json()["id"]
    found = calls(measured.gateway, lambda: measured.gateway.find(payment_id), 200)
    assert found < ALLOWED_GROWTH * READ[measured.store]


def test_a_refusal_costs_no_more_than_its_figure() -> None:
    """Refusing a payment when no slot is free makes at most 25 % more calls than `REFUSAL`."""
    release = threading.Event()

    def answer_nothing(_connection: socket.socket) -> None:
        release.wait(60)

    bank = ScriptedBank(answer_nothing)
    settings = {"BANK_URL": bank.url, "BANK_CONCURRENCY": "1", "BANK_QUEUE": "0", "BANK_TIMEOUT_S": "60"}
    with (
        Gateway(script=COUNTING, unchecked=UNCHECKED, settings=settings, LOG_FORMAT="json") as gateway,
        ThreadPoolExecutor(1) as pool,
    ):
        in_progress = pool.submit(requests.post, f"{gateway.api}/payments", json=support.valid_payment(), timeout=60)
        wait_until(lambda: bank.requests)
        assert calls(gateway, gateway.pay, 503) < ALLOWED_GROWTH * REFUSAL
        gateway.process.kill()
        release.set()
        assert isinstance(in_progress.exception(), requests.ConnectionError)
    bank.close()
