"""Card data lives as long as its request: nothing refers to it after the response, and nothing writes it to a disk."""

import contextlib
import gc
import hashlib
import json
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import requests

import config
from app import create_app
from tests.support import (
    ROOT,
    Gateway,
    free_port,
    reply,
    scripted_bank,
    serving,
    valid_payment,
    wait_until,
)

KEY = "pgw_test_" + "m" * 43
API_KEYS = f"acme:{hashlib.sha256(KEY.encode()).hexdigest()}"

# The card numbers of this test, by which they are found. It keeps no number itself.
PREFIX = "49990"
IN_BYTES = re.compile(rb"49990[0-9]{11}")
IN_STR = re.compile(r"49990[0-9]{11}")

# Of 200 card numbers, how many may be left in freed memory. docs/operations.md says how many were seen.
LEFT_OVER = 20

Script = Callable[[socket.socket], None]


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def stay_silent(_connection: socket.socket) -> None:
    """Answer nothing; the gateway's deadline passes."""


AUTHORIZED = reply(200, b'{"authorized": true, "authorization_code": "1"}')


def new_card() -> str:
    return f"{PREFIX}{random.randrange(10**11):011}"


class Client:
    """A connection that is kept open, and keeps nothing of what it sends."""

    def __init__(self, api: str) -> None:
        url = urlsplit(api)
        self._connection = socket.create_connection((url.hostname or "", url.port or 0), timeout=30)

    def send(self, body: bytes, key: str = KEY, **headers: str) -> None:
        lines = {"Host": "localhost", "Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        head = f"POST /api/v1/payments HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        self._connection.sendall(head.encode())
        self._connection.sendall(body[:40])
        self._connection.sendall(body[40:])

    def status(self) -> int:
        with self._connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            length = next(int(line.split()[1]) for line in answer if line.lower().startswith(b"content-length:"))
            while answer.readline().strip():
                pass
            answer.read(length)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def holders() -> list[str]:
    """Return every object that refers to a card number of this test, also one that awaits the garbage collector."""
    gc.unfreeze()
    if not _any_card_in(gc.get_referents(*gc.get_objects())):  # much faster than object by object
        return []
    return [
        f"{type(held).__name__}: {held!r}"[:500]
        for held in gc.get_objects()
        for referent in gc.get_referents(held)
        if _any_card_in([referent])
    ]


def assert_nothing_refers_to_a_card() -> None:
    """Assert it within 5 s: a response is sent before its request has ended, and a machine may be busy."""
    found: list[str] = []

    def is_free() -> bool:
        found.clear()  # it would hold the numbers itself
        found.extend(holders())
        return not found

    with contextlib.suppress(AssertionError):
        wait_until(is_free, 5)
    assert found == []


def _any_card_in(objects: list[Any]) -> bool:
    texts = [each for each in objects if isinstance(each, (str, bytes, bytearray))]
    return any((IN_STR if isinstance(text, str) else IN_BYTES).search(text) for text in texts)  # type: ignore[arg-type]


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """What refers to itself is not freed until the block ends: on a quiet gateway that would take hours."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


@contextlib.contextmanager
def gateway(bank_url: str) -> Iterator[str]:
    """Serve a gateway in this process, so that its objects can be searched."""
    settings = {"BANK_URL": bank_url, "API_KEYS": API_KEYS, "BANK_TIMEOUT_S": "0.5", "BREAKER_FAILURES": "1000"}
    with without_garbage_collection(), serving(create_app(config.load(settings)).app) as api:
        yield api


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(AUTHORIZED, 201, id="authorized"),
        pytest.param(reply(200, b'{"authorized": false}'), 201, id="declined"),
        pytest.param(reply(503, b""), 503, id="503 after retries"),
        pytest.param(reply(400, b"{}"), 500, id="refused"),
        pytest.param(reply(500, b""), 202, id="500"),
        pytest.param(reply(200, b"<html>"), 202, id="unreadable"),
        pytest.param(reply(200, b" " * 2**17), 202, id="too large"),
        pytest.param(hang_up, 202, id="connection lost"),
        pytest.param(stay_silent, 202, id="timeout"),
    ],
)
def test_nothing_refers_to_a_card_after_the_banks_answer(script: Script, status: int) -> None:
    """Whatever the bank did, and while the connections to the client and to the bank are still open."""
    with scripted_bank(script) as bank, gateway(bank.url) as api, Client(api) as client:
        for _ in range(2):
            client.send(json.dumps(valid_payment(card_number=new_card())).encode())
            assert client.status() == status
        assert bank.requests
        bank.requests.clear()
        assert_nothing_refers_to_a_card()


@pytest.mark.parametrize(
    ("changes", "headers", "status"),
    [
        pytest.param({"amount": 0}, {}, 400, id="invalid"),
        pytest.param({new_card(): 1}, {}, 400, id="unknown field"),
        pytest.param({}, {"Content_Type": "text/plain"}, 415, id="not read"),
        pytest.param({}, {"Content_Type": "application/json", "key": "wrong"}, 401, id="before the body is read"),
        pytest.param({}, {"Idempotency_Key": "used"}, 422, id="the key of another payment"),
    ],
)
def test_nothing_refers_to_a_card_after_a_refusal(
    changes: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    """Also if the body was not read, and while the connection is still open."""
    with scripted_bank(AUTHORIZED) as bank, gateway(bank.url) as api, Client(api) as client:
        client.send(json.dumps(valid_payment()).encode(), Idempotency_Key="used")
        assert client.status() == 201
        client.send(json.dumps(valid_payment(card_number=new_card(), **changes)).encode(), **headers)
        assert client.status() == status
        assert_nothing_refers_to_a_card()


def test_nothing_refers_to_a_card_when_the_bank_can_not_be_reached_or_the_client_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A refused connection is a 503; a client that closes its connection gets no answer."""
    with free_port() as free:
        pass
    with gateway(f"http://127.0.0.1:{free}") as api:
        with Client(api) as client:
            client.send(json.dumps(valid_payment(card_number=new_card())).encode())
            assert client.status() == 503
            assert_nothing_refers_to_a_card()
        with Client(api) as client:
            client.send(json.dumps(valid_payment(card_number=new_card())).encode())
        wait_until(lambda: caplog.text.count("the bank did not process it") == 2)  # the second request has begun, too
        assert_nothing_refers_to_a_card()


def memory_of(pid: int) -> Iterator[bytes]:
    """Yield each readable region of a process's memory."""
    regions = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for region in regions:
            addresses, rights, *_ = region.split()
            start, end = (int(address, 16) for address in addresses.split("-"))
            if "r" in rights and not region.endswith(("[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]")):
                memory.seek(start)
                with contextlib.suppress(OSError):
                    yield memory.read(end - start)


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.getuid() != 0, reason="only root reads /proc/PID/mem")
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_few_card_numbers_are_left_in_the_memory_of_the_process(kind: str, tmp_path: Path) -> None:
    """One second after 200 payments, the freed memory of the gateway holds few card numbers and CVV fields."""
    numbers = random.Random(8)
    cards = {f"4{numbers.randrange(10**14):014}{numbers.choice('13579')}" for _ in range(200)}
    store = {"STORE_URL": "memory:" if kind == "memory" else f"sqlite:///{tmp_path / 'payments.db'}"}
    settings = {**store, "FINGERPRINT_KEY": "0f" * 32}
    why = "the check of answers allocates memory, which changes what is left of requests"
    with scripted_bank(AUTHORIZED) as bank, Gateway(unchecked=why, settings=settings, BANK_URL=bank.url) as running:
        for number, card in enumerate(sorted(cards)):
            body = valid_payment(card_number=card, cvv=f"{numbers.randrange(1000):03}")
            pay = running.session.post if number % 2 else requests.post  # a connection that is kept, and new ones
            assert pay(f"{running.api}/payments", json=body, timeout=30).status_code == 201
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(1)
        found: set[str] = set()
        cvvs = 0
        for region in memory_of(running.process.pid):
            # A pattern that begins with a certain digit is found 60 times as fast as one that begins with any.
            found |= cards.intersection(text.decode() for text in re.findall(rb"4\d{15}", region))
            cvvs += len(re.findall(rb'"cvv": ?"\d{3}"', region))
    assert len(found) <= LEFT_OVER, f"{len(found)} card numbers and {cvvs} CVV fields"
    assert cvvs <= LEFT_OVER, f"{len(found)} card numbers and {cvvs} CVV fields"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_process_that_serves_leaves_no_core_dump(tmp_path: Path) -> None:
    """The limit is 0 in the gateway and its workers, and the kernel takes them for processes with secrets."""
    script = (
        "import ctypes, resource; from server import uvicorn_server; uvicorn_server.forbid_core_dumps(); "
        "print(*resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "0 0 0\n"
    settings = {"STORE_URL": f"sqlite:///{tmp_path / 'payments.db'}", "FINGERPRINT_KEY": "0f" * 32, "WORKERS": "2"}
    with Gateway(settings=settings) as running:
        assert running.pay().status_code == 201
        main = running.process.pid
        workers = [int(pid) for pid in Path(f"/proc/{main}/task/{main}/children").read_text().split()]
        assert len(workers) >= 2
        limits = {pid: Path(f"/proc/{pid}/limits").read_text() for pid in [main, *workers]}
        for limit in limits.values():
            assert re.search(r"^Max core file size +0 +0 ", limit, re.MULTILINE)
