"""Several workers: how they stop together, how one that dies is replaced, and what the log says of both."""

import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support import Gateway, reply, scripted_bank, valid_payment, wait_until, workers

AUTHORIZED = reply(200, b'{"authorized": true, "authorization_code": "1"}')


def is_refused(gateway: Gateway) -> bool:
    try:
        gateway.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def catches_sigterm(pid: str | int) -> bool:
    """Return whether a process handles SIGTERM, as a worker does shortly before it serves."""
    (mask,) = re.findall(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) & 1 << (signal.SIGTERM - 1))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the test finds the workers in Linux's /proc")
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
        wait_until(lambda: [catches_sigterm(pid) for pid in workers(gateway)] == [True, True], 60)
        assert all(requests.get(health, timeout=60).status_code == 200 for _ in range(20))  # both serve by now
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
    begun = re.findall(
        r"process (\d+) begins to stop at SIGTERM: it serves for 2 s more and then finishes", gateway.log
    )
    ended = re.findall(r"process (\d+) has stopped\n", gateway.log)
    assert len(begun) == 2
    assert sorted(ended) == sorted(begun)
    supervisor = gateway.process.pid
    assert gateway.log.count(f"process {supervisor} begins to stop its 2 workers\n") == 1
    assert gateway.log.count(f"process {supervisor} has stopped, and so have its workers\n") == 1


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the test finds the workers in Linux's /proc")
def test_a_worker_that_dies_is_replaced_and_the_log_says_so(tmp_path: Path) -> None:
    """The line has both processes, and how the first one ended. One that can't start says why, in one line."""
    folder, moved = tmp_path / "folder", tmp_path / "moved"
    folder.mkdir()
    settings = {"STORE_URL": f"sqlite:///{folder}/payments.db", "FINGERPRINT_KEY": "0f" * 32}
    with Gateway(settings=settings, WORKERS="2") as gateway:
        wait_until(lambda: gateway.pay().status_code == 201, 60)
        killed, other = workers(gateway)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: f"worker {killed} has ended (SIGKILL), and worker " in gateway.log, 30)
        (new,) = re.findall(rf"ERROR gateway.workers worker {killed} .* and worker (\d+) replaces it", gateway.log)
        wait_until(lambda: sorted(workers(gateway)) == sorted([other, int(new)]))
        folder.rename(moved)
        os.kill(other, signal.SIGKILL)
        wait_until(lambda: "can't start: the store at STORE_URL can't be used now: no such folder\n" in gateway.log, 30)
        moved.rename(folder)
    assert "Traceback" not in gateway.log


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the test finds the workers in Linux's /proc")
def test_a_worker_that_dies_while_it_is_asked_is_replaced_at_once(tmp_path: Path) -> None:
    """The supervisor asks each worker twice a second, and gives one that lives 30 s to respond."""
    settings = {"STORE_URL": f"sqlite:///{tmp_path}/payments.db", "FINGERPRINT_KEY": "0f" * 32}
    with Gateway(settings=settings, WORKERS="2") as gateway:
        wait_until(lambda: gateway.pay().status_code == 201, 60)
        killed, _ = workers(gateway)
        os.kill(killed, signal.SIGSTOP)
        time.sleep(2)  # the supervisor has asked the worker by now
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: f"worker {killed} has ended (SIGKILL), and worker " in gateway.log, 20)
