"""What /metrics shows of a running gateway, and what it never shows."""

import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests import support
from tests.postgres import Postgres
from tests.support import ROOT, Gateway, reply, scripted_bank, valid_payment, wait_until, workers

KEY = "pgw_test_" + "m" * 43
PAY_SILENT = partial(requests.post, json=valid_payment(card_number=support.SILENT), timeout=60)


def scrape(gateway: Gateway) -> str:
    """Return /metrics from the address in the gateway's banner."""
    found = re.search(r"Metrics (http://\S+/metrics)", gateway.banner)
    assert found is not None, gateway.banner
    answer = requests.get(found[1], timeout=10)
    assert answer.status_code == 200
    return answer.text


def samples(gateway: Gateway) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(scrape(gateway)) for sample in family.samples]


def figure(gateway: Gateway, name: str, **labels: str) -> float:
    """Return the sum of all samples with these labels of a metric, named without its prefix."""
    found = (sample for sample in samples(gateway) if sample.name == f"payment_gateway_{name}")
    return sum(sample.value for sample in found if labels.items() <= sample.labels.items())


def test_requests_and_payments_are_counted_by_their_outcome() -> None:
    """Requests have an operation and a status, payments an outcome and a currency; a replay is no new payment."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with Gateway(METRICS_PORT="0", key=KEY, API_KEYS=f"acme:{digest}") as gateway:
        count = partial(figure, gateway)
        assert [gateway.pay(cvv="4931").status_code for _ in range(3)] == [201] * 3
        assert gateway.pay(card_number=support.DECLINED_CARD, currency="USD").status_code == 201
        assert gateway.pay(card_number=support.GARBAGE, currency="CNY").status_code == 202
        assert gateway.pay(cvv="49310").status_code == 400
        gateway.session.headers["Idempotency-Key"] = "order 4711"
        assert [gateway.pay().headers.get("Idempotent-Replayed") for _ in range(3)] == [None, "true", "true"]
        assert gateway.find(str(uuid4())).status_code == 404
        assert gateway.session.put(f"{gateway.root}/{support.AUTHORIZED_CARD}", timeout=10).status_code == 404

        statuses = {"201": 7, "202": 1, "400": 1}
        answered = partial(count, "requests_total", operation="create_payment")
        assert {status: answered(status=status) for status in statuses} == statuses
        assert count("requests_total", operation="get_payment", status="404") == 1
        assert count("payments_total", outcome="AUTHORIZED", currency="GBP") == 4
        assert count("payments_total", outcome="DECLINED", currency="USD") == 1
        assert count("payments_total", outcome="PENDING", currency="CNY") == 1
        assert count("payments_total") == 6

        assert count("request_seconds_count", operation="create_payment") == 9
        assert count("bank_seconds_count") == 6, "the bank was asked for six payments"
        assert 0 < count("bank_seconds_sum") <= count("request_seconds_sum", operation="create_payment")

        wait_until(lambda: count("resolved_total", outcome="AUTHORIZED") == 1, 20)
        assert count("payments_total") == 6, "a payment that was PENDING is counted once, as PENDING"

        found = re.search(r"Metrics http://127.0.0.1:(\d+)/metrics", gateway.banner)
        assert found is not None
        # Where all addresses are taken, no other one of the machine is free.
        socket.create_server(("127.0.0.2", int(found[1]))).close()

        text = scrape(gateway)
        assert not any(secret in text for secret in (support.AUTHORIZED_CARD, KEY, digest, digest[:12]))
        labels = [sample.labels for sample in samples(gateway) if sample.name.startswith("payment_gateway_")]
        assert {value for shown in labels for name, value in shown.items() if name != "le"} == {
            *("create_payment", "get_payment", "other", *statuses, "404"),
            *("AUTHORIZED", "DECLINED", "PENDING", "GBP", "USD", "CNY"),
        }, "no label has a value that a merchant chose"


def test_calls_in_progress_and_refused_payments_are_shown() -> None:
    """With one call in progress and one waiting, the next is counted as refused; both gauges return to 0."""
    settings = {"BANK_CONCURRENCY": "1", "BANK_QUEUE": "1", "BANK_CONNECT_TIMEOUT_S": "20"}
    with Gateway(METRICS_PORT="0", settings=settings) as gateway, ThreadPoolExecutor(2) as pool:
        count = partial(figure, gateway)
        slow = partial(requests.post, json=valid_payment(card_number=support.SLOW), timeout=60)
        in_progress = [pool.submit(slow, f"{gateway.api}/payments") for _ in range(2)]
        wait_until(lambda: (count("bank_in_flight"), count("bank_queued")) == (1, 1))
        assert count("shed_total") == 0
        refused = gateway.pay()
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert count("shed_total") == 1
        assert [payment.result().status_code for payment in in_progress] == [201, 201]
        wait_until(lambda: (count("bank_in_flight"), count("bank_queued")) == (0, 0))
        assert count("bank_seconds_sum") > 3.9, "two calls take 2 s each; the wait for a slot does not count"


def test_retries_and_the_state_of_the_breaker_are_shown() -> None:
    """Each payment is retried twice until the circuit opens, then not at all; the first that succeeds closes it."""
    settings = {"BANK_RETRIES": "2", "BREAKER_FAILURES": "3", "BREAKER_OPEN_S": "2"}
    with Gateway(METRICS_PORT="0", settings=settings) as gateway:
        seen = []
        for _ in range(4):
            assert gateway.pay(card_number=support.UNAVAILABLE_CARD).status_code == 503
            seen.append((figure(gateway, "bank_retries_total"), figure(gateway, "breaker_state")))
        assert seen == [(2, 0), (4, 0), (6, 2), (6, 2)]
        wait_until(lambda: gateway.pay().status_code == 201)
        assert figure(gateway, "breaker_state") == 0


def test_unresolved_payments_are_shown_until_an_operator_settles_them() -> None:
    """The gauges show the number of unresolved payments and the growing age of the oldest."""
    with scripted_bank(reply(502, b"")) as bank, Gateway(METRICS_PORT="0", BANK_URL=bank.url) as gateway:
        count = partial(figure, gateway)
        assert (count("pending_payments"), count("pending_oldest_age_seconds")) == (0, 0)
        payments = [gateway.pay().json()["id"] for _ in range(2)]
        wait_until(lambda: count("pending_payments") == 2 and count("pending_oldest_age_seconds") > 2)
        assert count("pending_oldest_age_seconds") < 60
        port = gateway.api.split(":")[2].split("/")[0]
        for payment_id in payments:
            settle = ["--port", port, "settle", payment_id, "declined", "--note", "asked"]
            subprocess.run([sys.executable, "run.py", *settle], cwd=ROOT, check=True, timeout=30)
        wait_until(lambda: (count("pending_payments"), count("pending_oldest_age_seconds")) == (0, 0))
        assert count("resolved_total") == 0, "the resolver settled none of them"


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """Pause a worker, so that the other accepts every connection."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def serves_without(gateway: Gateway, pid: int) -> bool:
    """Return whether the gateway answers while this worker is paused."""
    with paused(pid), contextlib.suppress(requests.RequestException):
        return requests.get(f"{gateway.root}/health/live", timeout=1).ok
    return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the test finds the workers in Linux's /proc")
def test_metrics_are_the_sum_of_all_workers_even_when_one_is_killed(postgresql: Postgres) -> None:
    """The counts of a killed worker remain in the sum, and its calls in progress no longer count."""
    settings = {"STORE_URL": postgresql.new_database(), "FINGERPRINT_KEY": "0f" * 32, "BANK_TIMEOUT_S": "60"}
    with Gateway(METRICS_PORT="0", WORKERS="2", settings=settings) as gateway, ThreadPoolExecutor(5) as pool:
        count, url = partial(figure, gateway), f"{gateway.api}/payments"
        wait_until(lambda: len(workers(gateway)) == 2)
        one, other = workers(gateway)
        wait_until(lambda: serves_without(gateway, other) and serves_without(gateway, one), 30)
        hanging: list[Future[requests.Response]] = []
        for pid, payments, silent in ((one, 25, 3), (other, 15, 2)):
            with paused(pid):
                for _ in range(payments):
                    assert requests.post(url, json=valid_payment(), timeout=20).status_code == 201
                already = len(hanging)
                hanging += [pool.submit(PAY_SILENT, url) for _ in range(silent)]
                wait_until(lambda expected=already + silent: count("bank_in_flight") == expected)  # type: ignore[misc]

        def is_counted(payments: int) -> bool:
            requests_counted = count("requests_total", operation="create_payment", status="201")
            return count("payments_total") == requests_counted == count("bank_seconds_count") == payments

        assert is_counted(40)
        for killed, left in ((other, 2), (one, 0)):
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda expected=left: count("bank_in_flight") == expected)  # type: ignore[misc]
            assert is_counted(40)
        assert all(isinstance(payment.exception(), requests.ConnectionError) for payment in hanging)
        wait_until(lambda: support.answers(f"{gateway.root}/health/live"), 30)
        assert requests.post(url, json=valid_payment(), timeout=20).status_code == 201
        assert is_counted(41), "the workers that replace them continue the counts"


def test_a_busy_metrics_port_is_reported_in_one_line() -> None:
    """The gateway exits with the host, the port and the system's reason, instead of serving without metrics."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"PORT": "0", "METRICS_PORT": str(port)}
        command = [sys.executable, "run.py"]
        run = subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    message = f"can't listen on METRICS_HOST 127.0.0.1, METRICS_PORT {port}: Address already in use\n"
    assert (run.returncode, run.stdout, run.stderr) == (1, "", message)
