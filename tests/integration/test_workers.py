"""Several workers: how they stop together."""

import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from tests.support import Gateway, reply, scripted_bank, valid_payment, wait_until

AUTHORIZED = reply(200, b'{"authorized": true, "authorization_code": "1"}')


def is_refused(gateway: Gateway) -> bool:
    try:
        gateway.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_workers_that_drain_refuse_connections_and_answer_what_is_in_progress(tmp_path: Path) -> None:
    """For DRAIN_S after SIGTERM they serve, unready; then connections are refused at once, as with one process."""
    released = threading.Event()

    def answer(connection: socket.socket) -> None:
        released.wait(60)
        AUTHORIZED(connection)

    settings = {"STORE_URL": f"sqlite:///{tmp_path}/payments.db", "FINGERPRINT_KEY": "0f" * 32, "BANK_TIMEOUT_S": "60"}
    with (
        scripted_bank(answer) as bank,
        Gateway(settings=settings, BANK_URL=bank.url, WORKERS="2", DRAIN_S="2") as gateway,
        ThreadPoolExecutor(1) as pool,
    ):
        health = f"{gateway.root}/health/ready"
        wait_until(lambda: requests.get(health, timeout=60).status_code == 200, 60)
        try:
            payment = pool.submit(requests.post, f"{gateway.api}/payments", json=valid_payment(), timeout=60)
            wait_until(lambda: bank.requests, 30)
            gateway.process.send_signal(signal.SIGTERM)
            wait_until(lambda: requests.get(health, timeout=10).json()["stopping"])
            wait_until(lambda: is_refused(gateway), 20)
            assert all(is_refused(gateway) for _ in range(20))
            assert not payment.done()
        finally:
            released.set()
        assert payment.result().status_code == 201
        assert gateway.process.wait(30) == 0
