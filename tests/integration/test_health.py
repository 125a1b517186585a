"""What a load balancer asks: whether the gateway lives, and whether to send it payments."""

import hashlib
import signal
import time

import requests

from tests import support
from tests.postgres import Postgres
from tests.support import Gateway, valid_payment, wait_until

KEY = "pgw_test_" + "h" * 43
READY = {"status": "ready", "stopping": False, "store": "ok", "bank": "ok"}


def ask(gateway: Gateway, what: str, method: str = "GET") -> requests.Response:
    """As a load balancer does: over a connection of its own, and without a key."""
    return requests.request(method, f"{gateway.root}/health/{what}", timeout=10)


def pay(gateway: Gateway) -> requests.Response:
    return requests.post(f"{gateway.api}/payments", json=valid_payment(), timeout=30)


def test_a_gateway_that_works_lives_and_is_ready(gateway: Gateway) -> None:
    """In a few words, and with nothing else in them."""
    live, ready = ask(gateway, "live"), ask(gateway, "ready")
    assert (live.status_code, live.json()) == (200, {"status": "live"})
    assert (ready.status_code, ready.json()) == (200, READY)
    assert {answer.headers["Content-Type"] for answer in (live, ready)} == {"application/json"}


def test_head_is_answered_and_nothing_can_be_posted(gateway: Gateway) -> None:
    """HEAD is GET without the body; everything else is 405 with a problem document."""
    for what in ("live", "ready"):
        head = ask(gateway, what, "HEAD")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == ask(gateway, what).headers["Content-Length"]
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            refused = ask(gateway, what, method)
            assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
            assert refused.headers["Allow"] == "GET, HEAD"
    assert ask(gateway, "ready/").status_code == 404


def test_it_needs_no_key_and_is_not_counted() -> None:
    """With a key needed and used up: as many questions as one likes, all answered, none in the log."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with Gateway(API_KEYS=f"acme:{digest}", RATE_LIMIT="1/minute", key=KEY) as gateway:
        assert pay(gateway).status_code == 401
        assert [gateway.pay().status_code for _ in range(2)] == [201, 429]
        for what in ("live", "ready") * 20:
            assert ask(gateway, what).status_code == 200
            assert gateway.session.get(f"{gateway.root}/health/{what}", timeout=10).status_code == 200
        assert gateway.pay().status_code == 429
        wait_until(lambda: gateway.log.count("status=429") == 2)
        assert "/health" not in gateway.log, "a line every few seconds would hide the others"


def test_without_its_store_it_lives_and_is_not_ready(postgresql: Postgres) -> None:
    """Said within 2 s, without what is in STORE_URL; and it is ready again as soon as the store is."""
    settings = {"STORE_URL": postgresql.new_database(), "FINGERPRINT_KEY": "0f" * 32}
    with Gateway(settings=settings) as gateway:
        assert ask(gateway, "ready").json() == READY
        postgresql.stop()
        try:
            for _ in range(3):
                started = time.monotonic()
                unready = ask(gateway, "ready")
                assert time.monotonic() - started < 2
                assert (unready.status_code, unready.json()) == (
                    503,
                    READY | {"status": "unavailable", "store": "unreachable"},
                )
                assert ask(gateway, "live").status_code == 200
        finally:
            postgresql.start()
        wait_until(lambda: ask(gateway, "ready").json() == READY, 20)


def test_without_its_bank_it_is_degraded_and_gets_payments_all_the_same() -> None:
    """Taking every gateway out because of the one bank behind them would help nobody."""
    with support.free_port() as free:
        pass
    settings = {"BANK_URL": f"http://127.0.0.1:{free}", "BREAKER_FAILURES": "2", "BREAKER_OPEN_S": "60"}
    with Gateway(settings=settings, BANK_RETRIES="0") as gateway:
        assert pay(gateway).status_code == 503
        assert ask(gateway, "ready").json() == READY, "once is no rule"
        assert pay(gateway).status_code == 503
        degraded = ask(gateway, "ready")
        assert (degraded.status_code, degraded.json()) == (200, READY | {"status": "degraded", "bank": "unreachable"})


def test_a_gateway_that_is_told_to_stop_first_says_so_and_serves_on() -> None:
    """For DRAIN_S: unready, so that no more payments are sent to it, while those that come are made."""
    with Gateway(DRAIN_S="2") as gateway:
        assert pay(gateway).status_code == 201
        told = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(gateway, "ready").status_code == 503, 1.5)
        assert ask(gateway, "ready").json() == READY | {"status": "unavailable", "stopping": True}
        assert (pay(gateway).status_code, ask(gateway, "live").status_code) == (201, 200)
        assert gateway.process.wait(30) == 0
        assert time.monotonic() - told > 2
        assert "Traceback" not in gateway.log
