"""Clocks: a gateway whose clock is wrong says so, and decides nothing about money by it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from bank.simulator import Simulator
from tests import support
from tests.integration.test_operator import command, settings
from tests.postgres import Postgres
from tests.support import Gateway, valid_payment, wait_until

SKEWED = Path(__file__).parents[1] / "skewed_clock.py"


@pytest.mark.parametrize(("offset_s", "clock"), [(60, "differs"), (-60, "differs"), (3, "ok"), (0, "ok")])
def test_a_gateway_says_when_its_clock_differs_from_the_databases(offset_s: int, clock: str, database_url: str) -> None:
    """In readiness, which stays 200, in the log and in a metric, from a difference of more than 5 s on."""
    options = {**settings(database_url), "METRICS_PORT": "0", "CLOCK_OFFSET_S": str(offset_s)}
    with Gateway(script=SKEWED, settings=options) as gateway:

        def offset() -> float:
            metrics = gateway.banner.split("Metrics")[1].split()[0]
            lines = requests.get(metrics, timeout=10).text.splitlines()
            return next(float(line.split()[1]) for line in lines if line.startswith("payment_gateway_clock_offset_s"))

        wait_until(lambda: abs(offset() - offset_s) < 2)
        ready = requests.get(f"{gateway.root}/health/ready", timeout=10)
        assert (ready.status_code, ready.json()["status"], ready.json()["clock"]) == (200, "ready", clock)
        assert gateway.pay().status_code == 201
        warned = "s ahead of the database's"
        if clock == "differs":
            wait_until(lambda: warned in gateway.log)
        else:
            gateway.stop()
            assert warned not in gateway.log


@pytest.mark.parametrize(("makes_s", "asks_s"), [(-3600, 0), (0, 3600)])
def test_a_running_request_is_in_progress_whatever_the_clocks_say(
    makes_s: int, asks_s: int, postgresql: Postgres
) -> None:
    """Of two gateways on one PostgreSQL the one that makes the payment is an hour slow, or the other an hour fast."""
    simulator = Simulator()
    simulator.start()
    common = {**settings(postgresql.new_database()), "BANK_URL": simulator.url, "BANK_TIMEOUT_S": "60"}

    def post(gateway: Gateway) -> requests.Response:
        body = valid_payment(card_number=support.SILENT)
        return requests.post(f"{gateway.api}/payments", json=body, headers={"Idempotency-Key": "key"}, timeout=60)

    with (
        Gateway(script=SKEWED, settings=common, CLOCK_OFFSET_S=str(makes_s)) as maker,
        Gateway(script=SKEWED, settings=common, CLOCK_OFFSET_S=str(asks_s)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(post, maker)
        wait_until(lambda: requests.get(f"{simulator.url}/ledger", timeout=10).json())
        in_use = post(other)
        assert (in_use.status_code, in_use.json()["code"]) == (409, "idempotency_key_in_use")
        assert command(common["STORE_URL"], "pending").stdout == "none\n"
        (payment_id,) = requests.get(f"{simulator.url}/ledger", timeout=10).json()
        assert other.find(payment_id).json()["status"] == "PENDING", "its resolver has not looked it up"
        maker.process.kill()
        with pytest.raises(requests.ConnectionError):
            running.result()
    simulator.stop()
