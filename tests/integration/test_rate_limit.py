"""Rate limits: in one process, shared by processes through a Redis, and without that Redis."""

import hashlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import redis
import requests

from tests import support
from tests.support import Gateway, valid_payment, wait_until

KEYS = {name: f"pgw_test_{name}" for name in ("acme", "other")}
API_KEYS = ",".join(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items())


def pay(gateway: Gateway, merchant: str = "acme") -> requests.Response:
    headers = {"Authorization": f"Bearer {KEYS[merchant]}"}
    return requests.post(f"{gateway.api}/payments", json=valid_payment(), headers=headers, timeout=30)


def limit_of(answer: requests.Response) -> tuple[str, int, int]:
    """Return what RateLimit says: the limit's name, how many requests are left, and for how many seconds."""
    found = re.fullmatch(r'"([\w-]+)";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
    assert found is not None
    return found[1], int(found[2]), int(found[3])


def test_a_merchant_beyond_its_rate_gets_429_until_retry_after() -> None:
    """Each merchant has its own limit, and RateLimit, RateLimit-Policy and Retry-After say what is left of it."""
    with Gateway(API_KEYS=API_KEYS, RATE_LIMIT="3/2second;100/hour") as gateway:
        answers = [pay(gateway) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201] * 3
        assert [limit_of(answer)[:2] for answer in answers] == [("3-per-2second", left) for left in (2, 1, 0)]
        assert answers[0].headers["RateLimit-Policy"] == '"3-per-2second";q=3;w=2, "100-per-hour";q=100;w=3600'
        refused = pay(gateway)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert limit_of(refused)[1] == 0
        assert pay(gateway, "other").status_code == 201
        assert requests.get(f"{gateway.root}/health/ready", timeout=10).status_code == 200
        time.sleep(int(refused.headers["Retry-After"]))  # the time under test
        assert pay(gateway).status_code == 201
        read = requests.get(
            gateway.root + answers[0].headers["Location"], headers=answers[0].request.headers, timeout=10
        )
        assert limit_of(read)[1] == 1, "GET counts, too"


def test_every_answer_to_a_request_that_counted_says_what_is_left() -> None:
    """Errors and refusals too: each has both headers once, and one request less is left."""
    settings = {"BANK_CONCURRENCY": "1", "BANK_QUEUE": "1", "BANK_CONNECT_TIMEOUT_S": "20"}
    with Gateway(settings=settings, RATE_LIMIT="1000/hour") as gateway, ThreadPoolExecutor(2) as pool:
        send, url = partial(requests.post, timeout=60), f"{gateway.api}/payments"
        key = {"Idempotency-Key": "order-1"}
        answers = [
            send(url, json={}),
            send(url, data="{", headers={"Content-Type": "application/json"}),
            gateway.find(support.UNKNOWN_ID),
            gateway.find("x"),
            send(url, data="x" * 70_000, headers={"Content-Type": "application/json"}),
            send(url, data="card"),
            send(url, json=valid_payment(), headers=key),
            send(url, json=valid_payment(amount=1), headers=key),
            send(url, json=valid_payment(card_number=support.REFUSED)),
            send(url, json=valid_payment(card_number=support.UNAVAILABLE_CARD)),
        ]
        statuses = [400, 400, 404, 400, 413, 415, 201, 422, 500, 503]
        assert [answer.status_code for answer in answers] == statuses
        slow = [pool.submit(send, url, json=valid_payment(card_number=support.SLOW)) for _ in range(2)]

        def is_overloaded() -> bool:
            answers.append(send(url, json={}))
            return answers[-1].status_code == 503

        wait_until(is_overloaded)
        assert answers[-1].json()["code"] == "overloaded"
        assert [payment.result().status_code for payment in slow] == [201, 201]
        left = [limit_of(answer)[1] for answer in answers]
        assert left[: len(statuses)] == list(range(999, 999 - len(statuses), -1))
        assert left[-1] < left[len(statuses) - 1]
        assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"1000-per-hour";q=1000;w=3600'}
        head = "POST /api/v1/payments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with gateway.connect() as connection, connection.makefile("rb") as answer:
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".encode())
            assert b" 100 " in answer.readline(), "the request has been counted"
            connection.sendall(b"no chunk\r\n")
            refusal = answer.read()
        assert b" 400 " in refusal
        assert refusal.count(b"ratelimit-policy: ") == refusal.count(b"ratelimit: ") == 1
        elsewhere = requests.get(f"{gateway.api}/nothing", timeout=10)
        assert (elsewhere.status_code, "RateLimit" in elsewhere.headers) == (404, False), "it does not count"


def test_a_request_with_an_invalid_key_is_not_counted() -> None:
    """Without a merchant's key nobody can use up its rate."""
    with Gateway(API_KEYS=API_KEYS, RATE_LIMIT="2/minute") as gateway:
        for _ in range(5):
            answer = requests.get(f"{gateway.api}/payments/x", headers={"Authorization": "Bearer acme"}, timeout=10)
            assert answer.status_code == 401
        assert limit_of(pay(gateway))[1] == 1


def test_without_a_limit_there_are_no_rate_limit_headers(gateway: Gateway) -> None:
    """RATE_LIMIT is unset by default."""
    assert not [name for name in gateway.pay().headers if name.lower().startswith("ratelimit")]


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A Redis of the test's own, and its process."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with support.free_port() as port:
        pass
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        with redis.Redis(port=port) as client:
            wait_until(lambda: _pings(client))
        yield f"redis://127.0.0.1:{port}/0", server
        server.kill()


def _pings(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_processes_that_share_a_redis_share_the_rate(redis_url: tuple[str, "subprocess.Popen[bytes]"]) -> None:
    """Two gateways with a limit of 5 together accept 5 of 10 requests; when the Redis is gone, they accept all."""
    url, server = redis_url
    settings = {"API_KEYS": API_KEYS, "RATE_LIMIT": "5/minute", "RATE_LIMIT_STORE": url}
    with Gateway(settings=settings) as one, Gateway(settings=settings) as two:
        statuses = [pay((one, two)[number % 2]).status_code for number in range(10)]
        assert sorted(statuses) == [201] * 5 + [429] * 5
        server.kill()
        server.wait()
        started = time.monotonic()
        answers = [pay(one) for _ in range(10)]
        assert [answer.status_code for answer in answers] == [201] * 10
        assert time.monotonic() - started < 5, "at most one request a second waits 0.25 s for the Redis"
        assert "RateLimit" not in answers[-1].headers
        wait_until(lambda: "requests are not counted" in one.log)


def test_a_redis_that_is_missing_at_the_start_is_reported_and_stops_nothing() -> None:
    """The log has the cause before the first request; requests are served, and counted as not limited."""
    with support.free_port() as port:
        pass
    url = f"redis://user:s3cret@127.0.0.1:{port}/0"
    with Gateway(RATE_LIMIT="1/hour", RATE_LIMIT_STORE=url, METRICS_PORT="0") as gateway:
        missing = "WARNING gateway.rate_limit requests are not counted, RATE_LIMIT_STORE does not answer: refused\n"
        wait_until(lambda: missing in gateway.log)
        assert [gateway.pay().status_code for _ in range(3)] == [201] * 3
        metrics = re.search(r"Metrics (\S+)", gateway.banner)
        assert metrics is not None
        assert "payment_gateway_rate_limit_uncounted_total 3.0\n" in requests.get(metrics[1], timeout=10).text
        assert "s3cret" not in gateway.log


def test_a_redis_that_hangs_does_not_block_requests(redis_url: tuple[str, "subprocess.Popen[bytes]"]) -> None:
    """One request a second waits 0.25 s for it, none is refused, and when it answers again, it counts again."""
    url, server = redis_url
    with Gateway(API_KEYS=API_KEYS, RATE_LIMIT="1/hour", RATE_LIMIT_STORE=url) as gateway:
        assert [pay(gateway).status_code for _ in range(2)] == [201, 429]
        server.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        assert [pay(gateway).status_code for _ in range(5)] == [201] * 5
        assert time.monotonic() - started < 3
        server.send_signal(signal.SIGCONT)
        wait_until(lambda: pay(gateway).status_code == 429)
