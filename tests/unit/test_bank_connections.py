"""Kept connections to the bank: nothing that the bank sends unasked is read as the answer to a later payment."""

import asyncio
import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trustme

from bank import BankError, NoAnswer, NotReached, Refused
from bank.client import AcquiringBank
from tests.support import authorization_request, kind_of, reply, scripted_bank

DECLINED = {"authorized": False, "authorization_code": ""}
STRAY = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"authorized": true}'
DELAY_S = 0.05


def declined(length: int, *, chunked: bool = False) -> bytes:
    """Return a reply of `length` bytes in all, by which the bank declines."""
    body = json.dumps(DECLINED).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %4d\r\n\r\n"
    if chunked:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%04x\r\n"
    end = b"\r\n0\r\n\r\n" if chunked else b""
    body = body.ljust(length - len(head % 0) - len(end))
    return (head % len(body) + body + end).ljust(length)


class Bank:
    """A script for `ScriptedBank`: the first reply on each connection is followed by a stray one.

    followed: sends the reply and what follows it
    """

    def __init__(self, followed: Callable[[socket.socket], None]) -> None:
        self._followed = followed
        self.connections: set[tuple[str, int]] = set()
        self.sent = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        peer = connection.getpeername()
        if peer in self.connections:
            connection.sendall(declined(200))
            return
        self.connections.add(peer)
        self._followed(connection)
        self.sent.set()


@pytest.fixture(scope="module", params=["http", "TLSv1_2", "TLSv1_3"])
def transport(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Transport":
    return Transport(request.param, tmp_path_factory.mktemp("tls"))


class Transport:
    """Plain HTTP, or TLS of one version with an authority of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.tls: ssl.SSLContext | None = None
        self.ca_file: str | None = None
        if name != "http":
            authority = trustme.CA()
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.minimum_version = self.tls.maximum_version = ssl.TLSVersion[name]
            authority.issue_cert("127.0.0.1").configure_cert(self.tls)
            self.ca_file = str(folder / "ca.pem")
            authority.cert_pem.write_to_path(self.ca_file)


def client(url: str, ca_file: str | None = None) -> AcquiringBank:
    return AcquiringBank(url, connect_timeout_s=5, timeout_s=5, retries=0, concurrency=1, ca_file=ca_file)


def outcome(acquirer: AcquiringBank) -> bool | type[BankError]:
    """Authorize a payment, and return the answer or the kind of the error."""
    try:
        return asyncio.run(acquirer.authorize(authorization_request())).authorized
    except BankError as error:
        return kind_of(error)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(declined(8 * 1024), id="8 KiB"),
        pytest.param(declined(8 * 1024 - 1), id="8 KiB less 1"),
        pytest.param(declined(8 * 1024 + 1), id="8 KiB and 1"),
        pytest.param(declined(200), id="200 bytes"),
        pytest.param(declined(8 * 1024, chunked=True), id="8 KiB in a chunk"),
        pytest.param(declined(200, chunked=True), id="200 bytes in a chunk"),
    ],
)
@pytest.mark.parametrize("when", ["in the same packet", "in the next packet", "50 ms later", "in part"])
def test_a_stray_reply_is_not_the_answer_to_the_next_payment(transport: Transport, answer: bytes, when: str) -> None:
    """The connection is closed, wherever the stray reply waits: in our buffer, in TLS or in the socket."""

    def followed(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if when == "in the same packet":
            connection.sendall(answer + STRAY)  # one TLS record, too
        elif when == "in part":
            connection.sendall(answer + STRAY[:5])
            with contextlib.suppress(ConnectionError):  # the gateway may have closed the connection already
                connection.sendall(STRAY[5:])
        else:
            connection.sendall(answer)
            time.sleep(DELAY_S if when == "50 ms later" else 0)
            connection.sendall(STRAY)

    script = Bank(followed)
    with scripted_bank(script, transport.tls) as bank:
        acquirer = client(bank.url, transport.ca_file)
        for _ in range(3):
            script.sent.clear()
            assert outcome(acquirer) is False, "the bank authorized none"
            assert script.sent.wait(5)
        acquirer.close()
    assert len(script.connections) == 3


def test_a_connection_with_nothing_left_to_read_is_kept(transport: Transport) -> None:
    """Three payments take one connection, also over TLS 1.3, whose session tickets are no reply."""
    connections = set()

    def script(connection: socket.socket) -> None:
        connections.add(connection.getpeername())
        connection.sendall(declined(8 * 1024))

    with scripted_bank(script, transport.tls) as bank:
        acquirer = client(bank.url, transport.ca_file)
        assert [outcome(acquirer) for _ in range(3)] == [False] * 3
        acquirer.close()
    assert len(connections) == 1


def test_a_connection_that_the_bank_closed_while_it_was_idle_is_not_used(transport: Transport) -> None:
    """The next payment takes another one, so no payment is in doubt because of it."""
    closed = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(declined(200))
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    with scripted_bank(script, transport.tls) as bank:
        acquirer = client(bank.url, transport.ca_file)
        for _ in range(3):
            closed.clear()
            assert outcome(acquirer) is False
            assert closed.wait(5)
        acquirer.close()
    assert len(bank.requests) == 3


NO_IDS: list[object] = ["", None, True, [], {}]


def constant(value: object) -> Callable[[str], object]:
    return lambda _: value


def own_id(payment_id: str) -> str:
    return payment_id


@pytest.mark.parametrize(
    ("status", "field", "expected"),
    [
        (200, own_id, True),
        (400, own_id, Refused),
        (503, own_id, NotReached),
        *[(status, lambda _: str(uuid4()), NoAnswer) for status in (200, 400, 404, 503)],
        *[(200, constant(value), NoAnswer) for value in NO_IDS],
    ],
)
def test_a_reply_that_names_another_payment_is_no_answer(
    status: int, field: Callable[[str], object], expected: bool | type[BankError]
) -> None:
    """Whatever its status, it belongs to another call, so the connection is closed as well."""
    connections = set()

    def script(connection: socket.socket) -> None:
        connections.add(connection.getpeername())
        key = re.search(rb"Idempotency-Key: (\S+)", bank.requests[-1])
        assert key is not None
        body = {"authorized": True, "payment_id": field(key[1].decode())}
        reply(status, json.dumps(body).encode())(connection)

    with scripted_bank(script) as bank:
        acquirer = client(bank.url)
        assert [outcome(acquirer) for _ in range(2)] == [expected] * 2
        acquirer.close()
    assert len(connections) == (2 if expected is NoAnswer else 1)


def test_a_look_up_that_names_another_payment_is_no_answer() -> None:
    """The bank offers look-ups, so it is asked again, on another connection."""
    connections = set()

    def script(connection: socket.socket) -> None:
        connections.add(connection.getpeername())
        reply(200, f'{{"payment_id": "{uuid4()}", "status": "declined"}}'.encode())(connection)

    with scripted_bank(script) as bank:
        acquirer = client(bank.url)
        for _ in range(2):
            with pytest.raises(NoAnswer):
                asyncio.run(acquirer.look_up(uuid4()))
        acquirer.close()
    assert len(connections) == 2


def test_a_reply_to_a_request_that_was_not_sent_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection ends before the payment leaves; what the bank had sent by then is no answer to it."""

    class Broken(socket.socket):
        def send(self, data: Any, *flags: int) -> int:
            if len(data) == 1:  # a byte that wakes the event loop
                return super().send(data, *flags)
            raise BrokenPipeError

    def speaks_first(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            reply(200, b'{"authorized": true}')(connection)
            connection.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=speaks_first, args=[listener], daemon=True).start()
        monkeypatch.setattr(socket, "socket", Broken)
        acquirer = client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert outcome(acquirer) is NotReached
        acquirer.close()
