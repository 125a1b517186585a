"""The bank client: the meaning of each answer, its time limits, and that no card number leaks."""

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import responses
import trustme
from prometheus_client import REGISTRY
from responses import matchers

from bank import Authorization, AuthorizationRequest, BankError, LookUp, NoAnswer, NoLookUp, NotReached, Refused
from bank.client import AcquiringBank
from bank.errors import NoReply, Unavailable
from config import VERSION
from tests.support import ScriptedBank, kind_of, reply, scripted_bank

CARD_NUMBER = "2222405343248877"
CVV = "9173"
URL = "http://bank.test"


def authorization_request() -> AuthorizationRequest:
    return AuthorizationRequest(
        payment_id=uuid4(),
        merchant="acme",
        card_number=CARD_NUMBER,
        expiry_month=4,
        expiry_year=2030,
        currency="GBP",
        amount=100,
        cvv=CVV,
        trace={"X-Request-ID": "the request", "traceparent": "the trace"},
        answer_by=time.monotonic() + 60,
    )


def client(url: str = URL, *, connect_timeout_s: float = 5, timeout_s: float = 10, retries: int = 2) -> AcquiringBank:
    return AcquiringBank(url, connect_timeout_s=connect_timeout_s, timeout_s=timeout_s, retries=retries, concurrency=4)


def outcome(bank: AcquiringBank) -> bool | type[BankError]:
    """Authorize a payment, and return the answer or the kind of the error."""
    try:
        return asyncio.run(bank.authorize(authorization_request())).authorized
    except BankError as error:
        return kind_of(error)
    finally:
        bank.close()


@pytest.fixture
def fake() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


def test_it_sends_the_fields_of_the_protocol(fake: responses.RequestsMock) -> None:
    """It has five fields, with the expiry as zero-padded MM/YYYY and the CVV as a string. A header has the version."""
    wanted = {
        "card_number": CARD_NUMBER,
        "expiry_date": "04/2030",
        "currency": "GBP",
        "amount": 100,
        "cvv": CVV,
    }
    fake.post(f"{URL}/payments", json={"authorized": True}, match=[matchers.json_params_matcher(wanted)])
    assert outcome(client()) is True
    assert fake.calls[0].request.headers["User-Agent"] == f"payment-gateway/{VERSION}"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, '{"authorized": true, "authorization_code": "x"}', True),
        (200, '{"authorized": false, "authorization_code": ""}', False),
        *[(status, "{}", Refused) for status in (400, 401, 402, 403, 404, 405, 406, 410, 413, 415, 418, 422, 451)],
        *[(status, "{}", NoAnswer) for status in (408, 409, 425, 429, 499)],
        *[(status, '{"authorized": true}', NoAnswer) for status in (201, 202, 204, 206, 226)],
        *[(status, '{"authorized": false}', NoAnswer) for status in (300, 304, 500, 501, 502, 504, 507, 599)],
        (200, "", NoAnswer),
        (200, "<html>", NoAnswer),
        (200, "[" * 10_000, NoAnswer),
        (200, "[true]", NoAnswer),
        (200, "{}", NoAnswer),
        (200, '{"authorized": true, "authorized": false}', NoAnswer),
        (200, '{"authorized": false, "x": NaN}', NoAnswer),
        *[(200, f'{{"authorized": {value}}}', NoAnswer) for value in ('"true"', "1", "0", "null", "[]", "{}")],
    ],
)
def test_each_answer_has_its_meaning(
    fake: responses.RequestsMock, status: int, body: str, expected: bool | type[BankError]
) -> None:
    """A decline is a value, and an answer that leaves open whether money moved is NoAnswer."""
    fake.post(f"{URL}/payments", status=status, body=body)
    assert outcome(client()) is expected
    assert len(fake.calls) == 1, "none of these is sent again"


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (2, 3)])
def test_a_503_is_retried_and_then_not_reached(retries: int, attempts: int) -> None:
    """The client makes BANK_RETRIES further attempts, with backoff, and ignores the bank's Retry-After."""
    with scripted_bank(reply(503, b"{}", "Retry-After: 3600")) as bank:
        assert outcome(client(bank.url, timeout_s=3, retries=retries)) is NotReached
    assert len(bank.requests) == attempts


def test_a_503_before_an_answer_does_not_count() -> None:
    """The answer to the second attempt is the outcome."""
    answers = [reply(503, b"{}"), reply(200, b'{"authorized": true}')]
    with scripted_bank(lambda connection: answers.pop(0)(connection)) as bank:
        assert outcome(client(bank.url, timeout_s=3)) is True


def test_a_503_followed_by_silence_may_have_moved_money() -> None:
    """The last attempt decides: the bank did not process the first, but may have processed the second."""
    answers: list[Callable[[socket.socket], None]] = [reply(503, b"{}"), lambda connection: time.sleep(3)]
    with scripted_bank(lambda connection: answers.pop(0)(connection)) as bank:
        assert outcome(client(bank.url, timeout_s=2)) is NoAnswer
    assert len(bank.requests) == 2


@pytest.mark.parametrize("status", [408, 409, 425, 429, 499, 500])
def test_a_503_followed_by_an_open_outcome_may_have_moved_money(status: int) -> None:
    """A 409, for example, says that the first attempt is still in progress, so its 503 was not the truth."""
    answers = [reply(503, b"{}"), reply(status, b"{}")]
    with scripted_bank(lambda connection: answers.pop(0)(connection)) as bank:
        assert outcome(client(bank.url, timeout_s=3)) is NoAnswer
    assert len(bank.requests) == 2, "it is not sent again"


def test_a_refused_connection_is_retried_and_then_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens there, so nothing was sent."""
    attempts = []

    class Counted(socket.socket):
        def connect(self, address: Any) -> None:
            attempts.append(address)
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Counted)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert outcome(client(f"http://127.0.0.1:{port}", timeout_s=3)) is NotReached
    assert len(attempts) == 3


def test_an_unknown_host_is_not_reached() -> None:
    """The name does not resolve, so nothing was sent. `.invalid` never resolves (RFC 2606)."""
    assert outcome(client("http://bank.invalid", retries=0)) is NotReached


def test_a_connect_timeout_is_not_reached() -> None:
    """The listener's queue is full, so no connection is made."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for connection in waiting:
            connection.setblocking(False)
            connection.connect_ex(full.getsockname())
        started = time.monotonic()
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        assert outcome(client(url, connect_timeout_s=0.3, timeout_s=5, retries=1)) is NotReached
        assert 0.5 < time.monotonic() - started < 4, "two attempts of 0.3 s"
        for connection in waiting:
            connection.close()


def test_retries_end_with_the_deadline() -> None:
    """BANK_TIMEOUT_S limits the whole call, retries and backoff included."""
    with scripted_bank(reply(503, b"{}")) as bank:
        started = time.monotonic()
        assert outcome(client(bank.url, timeout_s=0.5, retries=10)) is NotReached
    assert time.monotonic() - started < 2
    assert len(bank.requests) < 11


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _drip(prefix: bytes, drop: bytes) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        connection.sendall(prefix)
        for _ in range(100):
            connection.sendall(drop)
            time.sleep(0.05)

    return script


def _then_close(data: bytes) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.close()

    return script


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(lambda connection: time.sleep(2), id="silence"),
        pytest.param(lambda connection: connection.close(), id="closed without a reply"),
        pytest.param(_reset, id="reset after sending"),
        pytest.param(_drip(b"HTTP/1.1 200 OK\r\nX-", b"a"), id="headers a byte at a time"),
        pytest.param(_drip(OK + b"Content-Length: 1000\r\n\r\n{", b" "), id="a body a byte at a time"),
        pytest.param(_drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="endless 100 Continue"),
        pytest.param(_drip(b"HTTP/1.1 103 X\r\n", b"Link: x\r\n"), id="an endless interim reply"),
        pytest.param(_then_close(b"HTTP/1.1 103 Early Hints\r\n\r\n"), id="closed after an interim reply"),
        pytest.param(_then_close(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), id="101"),
        pytest.param(_drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), id="endless chunks"),
        pytest.param(_then_close(OK + b'Content-Length: 999\r\n\r\n{"authorized": true}'), id="cut off"),
        pytest.param(_then_close(b"SSH-2.0-OpenSSH_9.2\r\n"), id="not HTTP"),
        pytest.param(reply(200, b'{"authorized": true, "x": "' + b"x" * 65536 + b'"}'), id="larger than 64 KiB"),
        pytest.param(reply(200, b'{"authorized": true}', "Content-Encoding: gzip"), id="declared as compressed"),
    ],
)
def test_every_failure_after_sending_may_have_moved_money(script: Callable[[socket.socket], None]) -> None:
    """The client makes one attempt, keeps the deadline and raises NoAnswer."""
    with scripted_bank(script) as bank:
        started = time.monotonic()
        assert outcome(client(bank.url, timeout_s=0.6)) is NoAnswer
        assert time.monotonic() - started < 2
    assert len(bank.requests) == 1


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(lambda connection: time.sleep(2), NoReply, id="silence"),
        pytest.param(lambda connection: connection.close(), NoReply, id="closed without a reply"),
        pytest.param(_then_close(OK + b'Content-Length: 999\r\n\r\n{"authorized": true}'), NoReply, id="cut off"),
        pytest.param(reply(200, b"?"), NoAnswer, id="not JSON"),
        pytest.param(reply(500, b""), NoAnswer, id="500"),
        pytest.param(reply(503, b"{}"), Unavailable, id="503"),
    ],
)
def test_a_missing_reply_and_a_503_are_told_from_other_answers(
    script: Callable[[socket.socket], None], expected: type[BankError]
) -> None:
    """The circuit of a merchant counts them."""
    with scripted_bank(script) as bank:
        acquirer = client(bank.url, timeout_s=1, retries=0)
        with pytest.raises(BankError) as caught:
            asyncio.run(acquirer.authorize(authorization_request()))
        acquirer.close()
    assert type(caught.value) is expected


def test_a_redirect_is_not_followed() -> None:
    """Following it would send the card number to another server."""
    with scripted_bank(reply(200, b'{"authorized": true}')) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            with scripted_bank(reply(status, b"", f"Location: {elsewhere.url}/payments")) as bank:
                assert outcome(client(bank.url)) is NoAnswer
    assert elsewhere.requests == []


def _endless(status: int, *headers: str) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        connection.sendall(
            "\r\n".join([f"HTTP/1.1 {status} X", "Transfer-Encoding: chunked", *headers, "", ""]).encode()
        )
        for _ in range(2000):  # 128 MiB
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")

    return script


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (_endless(200), NoAnswer),
        (_endless(307, "Location: /elsewhere"), NoAnswer),
        (_endless(503), NotReached),
        (_endless(400), Refused),
    ],
)
def test_an_endless_reply_is_not_read_to_its_end(
    script: Callable[[socket.socket], None], expected: type[BankError]
) -> None:
    """The client does not read it to parse it, to follow a redirect, or to reuse the connection."""
    with scripted_bank(script) as bank:
        started = time.process_time()
        assert outcome(client(bank.url, timeout_s=5, retries=0)) is expected
        assert time.process_time() - started < 1


def test_a_request_that_waited_too_long_is_not_sent() -> None:
    """After `answer_by` the payment counts as abandoned, so the bank must not get it any more."""
    with scripted_bank(reply(200, b'{"authorized": true}')) as bank:
        late = replace(authorization_request(), answer_by=time.monotonic() - 1)
        with pytest.raises(NotReached):
            asyncio.run(client(bank.url).authorize(late))
    assert bank.requests == []


def test_a_request_is_not_sent_late_after_a_slow_name_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver ignores timeouts; a request whose time is over by then is not sent."""
    look_up = socket.getaddrinfo

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.8)
        return look_up(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with scripted_bank(reply(200, b'{"authorized": true}')) as bank:
        assert outcome(client(bank.url, timeout_s=0.5)) is NotReached
    assert bank.requests == []


def test_the_payments_id_is_sent_as_idempotency_key() -> None:
    """A bank that supports the header never authorizes the payment twice."""
    request = authorization_request()
    with scripted_bank(reply(200, b'{"authorized": true}')) as bank:
        asyncio.run(client(bank.url).authorize(request))
    assert f"Idempotency-Key: {request.payment_id}\r\n".encode() in bank.requests[0]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c", "3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c"),
        ("A 1~", "A 1~"),
        ("x" * 64, "x" * 64),
        ("x" * 65, ""),
        ("é", ""),
        ("a\nb", ""),
        ("a\x7f", ""),
        ("\x1b[2J", ""),
        (f"code {CARD_NUMBER}", ""),
        *[(value, "") for value in (None, True, 123456, ["A1"], {"A1": "A1"})],
    ],
)
def test_an_authorization_code_is_kept_only_if_it_is_short_printable_ascii(
    fake: responses.RequestsMock, given: object, kept: str
) -> None:
    """Anything else, or a code that repeats the card number, becomes "", and the bank's answer counts all the same."""
    fake.post(f"{URL}/payments", json={"authorized": True, "authorization_code": given})
    answer = asyncio.run(client().authorize(authorization_request()))
    assert answer == Authorization(authorized=True, code=kept, response_code="10000")


PAYMENT_ID = UUID("3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c")
NAMED = {"payment_id": str(PAYMENT_ID)}
NOT_TRUE: list[Any] = [False, None, 1, "true", [], {}]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {**NAMED, "status": "authorized"}, LookUp(authorized=True)),
        (200, {**NAMED, "status": "authorized", "authorization_code": "A1"}, LookUp(authorized=True, code="A1")),
        (200, {**NAMED, "status": "authorized", "final": True}, LookUp(authorized=True)),
        (200, {**NAMED, "status": "declined", "authorization_code": "", "final": True}, LookUp(authorized=False)),
        (200, {**NAMED, "status": "unknown", "final": True}, LookUp(authorized=None, final=True)),
        (200, {**NAMED, "status": "unknown"}, LookUp(authorized=None)),
        *[(200, {**NAMED, "status": "unknown", "final": value}, LookUp(authorized=None)) for value in NOT_TRUE],
        (200, {**NAMED, "status": "whatever"}, NoAnswer),
        (200, {"payment_id": "another", "status": "unknown"}, NoAnswer),
        (200, {"status": "unknown"}, NoLookUp),
        (200, {}, NoLookUp),
        (400, {"errorMessage": "The request supplied is not supported by the simulator"}, NoLookUp),
        (404, {}, NoLookUp),
        *[(status, {}, NoAnswer) for status in (408, 409, 425, 429, 499, 500)],
        (503, {}, NotReached),
    ],
)
def test_a_look_up_counts_only_if_it_names_the_payment(
    fake: responses.RequestsMock, status: int, body: dict[str, Any], expected: object
) -> None:
    """For a bank without look-up, such as the official simulator, the outcome is NoLookUp, not "unknown"."""
    fake.get(f"{URL}/payments/{PAYMENT_ID}", status=status, json=body)
    try:
        found: object = asyncio.run(client().look_up(PAYMENT_ID))
    except BankError as error:
        found = kind_of(error)
    assert found == expected


def test_chunked_replies_and_kept_connections_are_supported() -> None:
    """The official simulator answers in chunks; two payments take one connection."""
    chunked = b'Transfer-Encoding: chunked\r\n\r\n14\r\n{"authorized": true}\r\n0\r\n\r\n'
    connections = set()

    def script(connection: socket.socket) -> None:
        connections.add(connection.getpeername())
        connection.sendall(OK + chunked)

    with scripted_bank(script) as bank:
        acquirer = client(bank.url)
        assert all(asyncio.run(acquirer.authorize(authorization_request())).authorized for _ in range(2))
        acquirer.close()
    assert len(connections) == 1


@pytest.mark.parametrize("status", [100, 102, 103])
def test_interim_replies_are_skipped(status: int) -> None:
    """They may have headers and may be several; the connection is kept after the reply that follows them."""
    connections = set()

    def script(connection: socket.socket) -> None:
        connections.add(connection.getpeername())
        for part in (b"HTTP/1.1 %d X\r\nLink: </x>; rel=preload\r\n\r\n" % status, b"HTTP/1.1 %d \r\n\r\n" % status):
            connection.sendall(part)
        reply(200, b'{"authorized": true}')(connection)

    with scripted_bank(script) as bank:
        acquirer = client(bank.url)
        assert all(asyncio.run(acquirer.authorize(authorization_request())).authorized for _ in range(2))
        acquirer.close()
    assert len(connections) == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_reply_that_ends_the_connection_is_read(version: str) -> None:
    """Its body has no length and comes after http.client closed its own end of the connection."""

    def script(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/{version} 200 OK\r\nConnection: close\r\n\r\n".encode())
        time.sleep(0.1)  # the body is not in the packet of the head
        connection.sendall(b'{"authorized": true}')
        connection.close()

    with scripted_bank(script) as bank:
        assert outcome(client(bank.url)) is True


def test_closing_ends_kept_connections() -> None:
    """A client that is closed leaves no connection open at the bank."""
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            reply(200, b'{"authorized": true}')(connection)
            if not connection.recv(1):
                ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=[listener], daemon=True).start()
        acquirer = client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert asyncio.run(acquirer.authorize(authorization_request())).authorized
        acquirer.close()
        assert ended.wait(5)


def test_the_pool_is_as_large_as_the_concurrency() -> None:
    """Four calls at once, twice, take four connections, which are kept."""
    together = threading.Barrier(4)
    connections = set()

    def script(connection: socket.socket) -> None:
        connections.add(connection.getpeername())
        together.wait(5)
        reply(200, b'{"authorized": true}')(connection)

    with scripted_bank(script) as bank:
        acquirer = client(bank.url, timeout_s=5)

        async def four_at_once() -> None:
            await asyncio.gather(*(acquirer.authorize(authorization_request()) for _ in range(4)))

        for _ in range(2):
            asyncio.run(four_at_once())
        acquirer.close()
    assert len(connections) == 4
    assert len(bank.requests) == 8


def test_a_request_leaves_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body are sent at once, and the head declares the body's length and nothing twice."""
    sent: list[bytes] = []

    class Recorded(socket.socket):
        def send(self, data: Any, *flags: int) -> int:
            sent.append(bytes(data))
            return super().send(data, *flags)

    with scripted_bank(reply(200, b'{"authorized": true}')) as bank:
        monkeypatch.setattr(socket, "socket", Recorded)
        acquirer = client(bank.url)
        for _ in range(2):  # the second on the kept connection
            assert asyncio.run(acquirer.authorize(authorization_request())).authorized
        acquirer.close()
    assert [data for data in sent if len(data) > 1] == bank.requests  # a single byte wakes the event loop
    head, _, body = bank.requests[0].partition(b"\r\n\r\n")
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
    assert len(set(names)) == len(names)
    assert f"Content-Length: {len(body)}".encode() in head
    assert not {b"transfer-encoding", b"connection", b"cookie", b"authorization"} & set(names)


def authorize_during_other_work(
    acquirer: AcquiringBank, begun: threading.Event, done: threading.Event, request: AuthorizationRequest | None = None
) -> bool:
    """Authorize, and as soon as `begun` is set, set `done` from the event loop."""
    begun.clear()
    done.clear()

    async def other_work() -> None:
        await asyncio.to_thread(begun.wait, 10)
        done.set()

    async def both() -> bool:
        answer, _ = await asyncio.gather(acquirer.authorize(request or authorization_request()), other_work())
        return answer.authorized

    return asyncio.run(both())


def test_the_event_loop_goes_on_while_a_name_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver blocks a thread and nothing else."""
    resolve, begun, done = socket.getaddrinfo, threading.Event(), threading.Event()

    def waits_for_the_loop(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert done.wait(5)
        return resolve(*args, **kwargs)

    with scripted_bank(reply(200, b'{"authorized": true}')) as bank:
        monkeypatch.setattr(socket, "getaddrinfo", waits_for_the_loop)
        acquirer = AcquiringBank(bank.url, connect_timeout_s=10, timeout_s=10, retries=0, concurrency=1)
        assert authorize_during_other_work(acquirer, begun, done) is True
        acquirer.close()


def test_the_event_loop_goes_on_while_the_bank_works() -> None:
    """On a new connection and on a kept one, the bank answers only after the event loop did something else."""
    begun, done = threading.Event(), threading.Event()

    def script(connection: socket.socket) -> None:
        begun.set()
        if done.wait(5):
            reply(200, b'{"authorized": true}')(connection)

    with scripted_bank(script) as bank:
        acquirer = client(bank.url, timeout_s=10)
        for _ in range(2):
            assert authorize_during_other_work(acquirer, begun, done) is True
        acquirer.close()


def test_the_event_loop_goes_on_while_the_bank_reads_slowly() -> None:
    """On a new connection and on a kept one, with a request larger than the buffers of both sockets."""
    begun, done = threading.Event(), threading.Event()
    large = replace(authorization_request(), trace={"X-Large": "x" * 8 * 1024 * 1024})

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as request:
            while request.peek(1):
                begun.set()
                if not done.wait(5):
                    return
                length = 0
                while (line := request.readline()) != b"\r\n":
                    if line.startswith(b"Content-Length: "):
                        length = int(line.split()[1])
                request.read(length)
                reply(200, b'{"authorized": true}')(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener], daemon=True)
        thread.start()
        acquirer = client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=20)
        for _ in range(2):
            assert authorize_during_other_work(acquirer, begun, done, large) is True
        acquirer.close()
        thread.join(5)


def test_the_event_loop_goes_on_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait before a further attempt is asyncio's, and each further attempt is counted."""

    def blocking(_seconds: float) -> None:
        raise AssertionError("time.sleep blocks the event loop")

    def retries() -> float:
        return REGISTRY.get_sample_value("payment_gateway_bank_retries_total") or 0

    before = retries()
    answers = [reply(503, b"{}"), reply(503, b"{}"), reply(200, b'{"authorized": true}')]
    monkeypatch.setattr(time, "sleep", blocking)
    with scripted_bank(lambda connection: answers.pop(0)(connection)) as bank:
        assert outcome(client(bank.url, timeout_s=10)) is True
    assert retries() == before + 2


def test_proxies_and_netrc_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The card number goes to BANK_URL and nowhere else, without credentials."""
    with scripted_bank(reply(502, b"")) as proxy, scripted_bank(reply(200, b'{"authorized": true}')) as bank:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        (tmp_path / ".netrc").write_text("default login someone password something\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        assert outcome(client(bank.url)) is True
    assert proxy.requests == []
    assert b"authorization:" not in bank.requests[0].lower()


def test_cookies_of_the_bank_are_not_kept() -> None:
    """Calls share connections, but nothing of one call is sent with another."""
    with scripted_bank(reply(200, b'{"authorized": true}', "Set-Cookie: a=b")) as bank:
        acquirer = client(bank.url)
        for _ in range(2):
            asyncio.run(acquirer.authorize(authorization_request()))
        acquirer.close()
    assert b"cookie" not in bank.requests[1].lower()


def test_a_bank_with_an_untrusted_certificate_gets_no_card_number() -> None:
    """When the TLS handshake fails, nothing was sent, so the bank was not reached."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    received = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as secured:
                        received.append(secured.recv(65536))
                except OSError as error:
                    received.append(type(error).__name__.encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"https://localhost:{listener.getsockname()[1]}"
        assert outcome(client(url, retries=0)) is NotReached
        thread.join(5)
    assert CARD_NUMBER.encode() not in b"".join(received)


@pytest.mark.parametrize(
    "script", [reply(400, b'{"errorMessage": "2222405343248877"}'), reply(500, b"9173"), lambda c: c.close()]
)
def test_no_error_holds_the_card_number(script: Callable[[socket.socket], None]) -> None:
    """Neither the error nor anything chained to it holds the request, whose body has card number and CVV."""
    with scripted_bank(script) as bank, pytest.raises(BankError) as caught:
        asyncio.run(client(bank.url).authorize(authorization_request()))
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)
    assert CARD_NUMBER not in shown
    assert CVV not in shown


def test_a_request_shows_neither_card_number_nor_cvv() -> None:
    """Its repr may get into a log line or a debugger."""
    assert CARD_NUMBER not in repr(authorization_request())
    assert CVV not in repr(authorization_request())


def test_scripted_bank_reads_whole_requests() -> None:
    """The tests above count requests, so a request must not be counted in parts."""
    bank = ScriptedBank(reply(200, b'{"authorized": false}'))
    assert outcome(client(bank.url)) is False
    assert json.loads(bank.requests[0].partition(b"\r\n\r\n")[2])["card_number"] == CARD_NUMBER
    bank.close()
