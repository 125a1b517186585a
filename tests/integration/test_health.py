"""The health checks: whether the process runs, and whether a load balancer should send it payments."""

import hashlib
import signal
import time

import requests
import sqlalchemy as sa

from config import VERSION
from tests import support
from tests.postgres import Postgres
from tests.support import Gateway, valid_payment, wait_until

KEY = "pgw_test_" + "h" * 43
READY = {
    "status": "ready",
    "stopping": False,
    "store": "ok",
    "store_cause": None,
    "bank": "ok",
    "clock": "ok",
    "simulator": True,
}


def ask(gateway: Gateway, check: str, method: str = "GET") -> requests.Response:
    """Request a health check as a load balancer does: over a new connection and without a key."""
    return requests.request(method, f"{gateway.root}/health/{check}", timeout=10)


def pay(gateway: Gateway) -> requests.Response:
    return requests.post(f"{gateway.api}/payments", json=valid_payment(), timeout=30)


def test_a_working_gateway_is_live_and_ready(gateway: Gateway) -> None:
    """Both checks answer 200 with a small JSON object that holds nothing but the states."""
    live, ready = ask(gateway, "live"), ask(gateway, "ready")
    assert (live.status_code, live.json()) == (200, {"status": "live", "version": VERSION})
    assert (ready.status_code, ready.json()) == (200, READY)
    assert {answer.headers["Content-Type"] for answer in (live, ready)} == {"application/json"}


def test_health_checks_accept_get_and_head_only(gateway: Gateway) -> None:
    """HEAD is answered like GET without the body, and any other method is a 405 with a problem document."""
    for check in ("live", "ready"):
        head = ask(gateway, check, "HEAD")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == ask(gateway, check).headers["Content-Length"]
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            refused = ask(gateway, check, method)
            assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
            assert refused.headers["Allow"] == "GET, HEAD"
    assert ask(gateway, "ready/").status_code == 404


def test_a_health_check_needs_no_key_and_is_not_counted() -> None:
    """Checks are answered with and without a key, also beyond the rate limit, and are not logged."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with Gateway(API_KEYS=f"acme:{digest}", RATE_LIMIT="1/minute", key=KEY) as gateway:
        assert pay(gateway).status_code == 401
        assert [gateway.pay().status_code for _ in range(2)] == [201, 429]
        for check in ("live", "ready") * 20:
            assert ask(gateway, check).status_code == 200
            assert gateway.session.get(f"{gateway.root}/health/{check}", timeout=10).status_code == 200
        assert gateway.pay().status_code == 429
        wait_until(lambda: gateway.log.count("status=429") == 2)
        assert "/health" not in gateway.log, "health checks are logged at DEBUG only"


def test_a_gateway_without_its_store_is_live_and_not_ready(own_postgresql: Postgres) -> None:
    """The answer comes within 2 s and shows nothing of STORE_URL; when the store is back, the gateway is ready."""
    settings = {"STORE_URL": own_postgresql.new_database(), "FINGERPRINT_KEY": "0f" * 32}
    with Gateway(settings=settings) as gateway:
        assert ask(gateway, "ready").json() == READY
        own_postgresql.stop()
        try:
            for _ in range(3):
                started = time.monotonic()
                unready = ask(gateway, "ready")
                assert time.monotonic() - started < 2
                state = unready.json()
                assert state.pop("store_cause") in {"refused", "no such file", "connection lost", "shutting down"}
                expected = READY | {"status": "unavailable", "store": "unreachable"}
                del expected["store_cause"]
                assert (unready.status_code, state) == (503, expected)
                assert ask(gateway, "live").status_code == 200
        finally:
            own_postgresql.start()
        wait_until(lambda: ask(gateway, "ready").json() == READY, 20)


def test_a_gateway_that_its_store_no_longer_serves_is_not_ready(database_url: str) -> None:
    """A newer gateway has changed the schema; readiness gives the reason and the log has it once."""
    with Gateway(STORE_URL=database_url, FINGERPRINT_KEY="0f" * 32, BANK_URL="simulator:") as gateway:
        assert ask(gateway, "ready").json() == READY
        engine = sa.create_engine(database_url)
        with engine.begin() as newer:
            newer.exec_driver_sql("UPDATE meta SET value = '9999' WHERE name = 'oldest_gateway'")
        engine.dispose()
        for _ in range(2):
            answer = ask(gateway, "ready")
            assert answer.status_code == 503
            too_old = {"status": "unavailable", "store": "gateway_too_old", "store_cause": "schema too new"}
            assert answer.json() == READY | too_old
        assert ask(gateway, "live").status_code == 200
        assert gateway.stop() == 0
        assert gateway.log.count("a newer gateway has changed the store") == 1


def test_a_gateway_whose_database_takes_no_writes_is_not_ready(postgresql: Postgres) -> None:
    """A payment that fails says it at once. Without payments it is found out within seconds, and so is the recovery."""
    url = postgresql.new_database()
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    name = sa.make_url(url).database

    def change(*statements: str) -> None:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def is_unwritable(cause: str) -> bool:
        answer = ask(gateway, "ready")
        state = {"status": "unavailable", "store": "unwritable", "store_cause": cause}
        return (answer.status_code, answer.json()) == (503, READY | state)

    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
    with Gateway(STORE_URL=url, FINGERPRINT_KEY="0f" * 32) as gateway:
        assert pay(gateway).status_code == 201
        assert ask(gateway, "ready").json() == READY
        change(f"ALTER DATABASE {name} SET default_transaction_read_only = on", f"{others} pg_backend_pid()")
        refused = pay(gateway)
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        assert is_unwritable("read only")
        engine.dispose()  # its next connection is not read only
        change("SET default_transaction_read_only = off", f"ALTER DATABASE {name} RESET default_transaction_read_only")
        change(f"{others} pg_backend_pid()")
        wait_until(lambda: ask(gateway, "ready").json() == READY, 30)
        change("ALTER TABLE changes RENAME TO other")
        wait_until(lambda: is_unwritable("no such table"), 30)
    engine.dispose()
    for line in ("no writes: read only", "writes again", "no writes: no such table"):
        assert f"the store takes {line}\n" in gateway.log


def test_a_gateway_whose_circuit_is_open_is_degraded_and_still_ready() -> None:
    """The status stays 200: to take every gateway out of service because of their one bank would not help."""
    with support.free_port() as free:
        pass
    settings = {"BANK_URL": f"http://127.0.0.1:{free}", "BREAKER_FAILURES": "2", "BREAKER_OPEN_S": "60"}
    with Gateway(settings=settings, BANK_RETRIES="0") as gateway:
        assert pay(gateway).status_code == 503
        ready = READY | {"simulator": False}
        assert ask(gateway, "ready").json() == ready, "one failure does not open the circuit"
        assert pay(gateway).status_code == 503
        degraded = ask(gateway, "ready")
        assert (degraded.status_code, degraded.json()) == (200, ready | {"status": "degraded", "bank": "unreachable"})


def test_a_stopping_gateway_is_not_ready_and_serves_for_drain_s() -> None:
    """After SIGTERM /health/ready is a 503 for DRAIN_S seconds, while payments that arrive are still made."""
    with Gateway(DRAIN_S="2") as gateway:
        assert pay(gateway).status_code == 201
        signalled = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(gateway, "ready").status_code == 503, 1.5)
        assert ask(gateway, "ready").json() == READY | {"status": "unavailable", "stopping": True}
        assert (pay(gateway).status_code, ask(gateway, "live").status_code) == (201, 200)
        assert gateway.process.wait(30) == 0
        assert time.monotonic() - signalled > 2
    assert "Traceback" not in gateway.log
    name = f"INFO gateway.lifespan process {gateway.process.pid}"
    stop = f"{name} begins to stop at SIGTERM: it serves for 2 s more and then finishes the requests in progress\n"
    assert gateway.log.count(stop) == gateway.log.count(f"{name} has stopped\n") == 1
