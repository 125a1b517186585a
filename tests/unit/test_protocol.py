"""The protocol by itself: the bytes and the seconds that a connection may take, and its own problem documents."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.server import ServerState

from handlers.body import BODY_TIMEOUT_S
from server.middleware.security_headers import SecurityHeaders
from server.protocol import HEAD_TIMEOUT_S, LINGER_S, MAX_HEAD_BYTES, READ_TIMEOUT_S, Protocol
from server.uvicorn_server import KEEP_ALIVE_S
from telemetry import metrics
from tests import clock

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """A connection to a client. One that does not read keeps it open until it is aborted."""

    def __init__(self, *, client_reads: bool = True) -> None:
        super().__init__()
        self.written = b""
        self.written_late = b""
        self.reads = True
        self.closed_at_s: float | None = None
        self.aborted_at_s: float | None = None
        self._client_reads = client_reads
        self._protocol: Protocol | None = None
        self._loop = asyncio.get_running_loop()

    def connect(self, protocol: Protocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        if self.closed_at_s is None:  # asyncio drops what is written later
            self.written += bytes(data)
        else:
            self.written_late += bytes(data)

    def is_closing(self) -> bool:
        return self.closed_at_s is not None

    def close(self) -> None:
        if self.closed_at_s is None:
            self.closed_at_s = self._loop.time()
            if self._client_reads:
                self._lose()

    def abort(self) -> None:
        if self.aborted_at_s is None:
            self.aborted_at_s = self._loop.time()
            if self.closed_at_s is None:
                self.closed_at_s = self.aborted_at_s
            self._lose()

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def _lose(self) -> None:
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, None)
            self._protocol = None


class Application:
    """Reads a request's body and answers 201 with it; `answer` may do something else before it."""

    def __init__(self, before: Callable[[str], Awaitable[object]] | None = None, *, reads_body: bool = True) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self._before, self._reads_body = before, reads_body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers.append(scope["headers"])
        body, more = b"", self._reads_body
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        self.requests.append((f"{scope['method']} {scope['path']}", body))
        if self._before is not None:
            await self._before(scope["path"])
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 201, "headers": head})
        await send({"type": "http.response.body", "body": body})


def connected(application: Any, *, client_reads: bool = True, https: bool = False) -> tuple[Protocol, Transport]:
    """Return the server's end of a new connection."""
    options = uvicorn.Config(
        application,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    options.load()
    options.ssl_keyfile = "key.pem" if https else None  # by now only the mark of an https server
    state = ServerState()
    state.default_headers = [(b"date", b"Tue, 24 Nov 2026 10:15:30 GMT")]
    protocol, transport = Protocol(options, state, {}), Transport(client_reads=client_reads)
    transport.connect(protocol)
    return protocol, transport


async def settled() -> None:
    """Let every task do what it can without time passing."""
    for _ in range(50):
        await asyncio.sleep(0)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def responses(written: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Return the status, headers and body of each response."""
    found = []
    while written:
        head, _, rest = written.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in lines)}
        length = int(headers["content-length"])
        found.append((int(line.split()[1]), headers, rest[:length]))
        written = rest[length:]
    return found


def problem(transport: Transport) -> tuple[int, str]:
    """Return the status and code of the one response, which is a problem document."""
    ((status, headers, body),) = responses(transport.written)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    document = json.loads(body)
    assert document["status"] == status
    return status, document["code"]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run the scenario, and fail if a callback of the event loop failed."""

    async def checked() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
        await scenario()
        await asyncio.sleep(100)  # whatever timers are left do no harm
        assert failures == []

    clock.run(checked())


def head_of(size: int) -> bytes:
    """Return a request's head of this many bytes."""
    start, end = b"GET /x HTTP/1.1\r\nHost: x\r\nX: ", b"\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize("packet", [200_000, 1500, 100], ids=["one packet", "packets", "small packets"])
def test_a_head_may_have_the_limit_in_bytes_and_not_one_more(packet: int) -> None:
    """However many packets it comes in; the larger is answered 431 once, and never served."""

    async def scenario() -> None:
        for size, statuses in ((MAX_HEAD_BYTES, [201]), (MAX_HEAD_BYTES + 1, [431])):
            application = Application()
            protocol, transport = connected(application)
            data = head_of(size)
            for start in range(0, len(data), packet):
                if transport.is_closing():
                    break
                protocol.data_received(data[start : start + packet])
            await settled()
            assert [status for status, _, _ in responses(transport.written)] == statuses
            assert transport.is_closing() == (statuses == [431])
            assert len(application.requests) == (statuses == [201])
            transport.abort()

    run(scenario)


def test_each_request_of_a_connection_has_the_limit_of_its_own() -> None:
    """Many requests that together are larger are served; a head that is too large after them is refused."""

    async def scenario() -> None:
        protocol, transport = connected(Application())
        for _ in range(5):
            protocol.data_received(head_of(MAX_HEAD_BYTES // 2))
            await settled()
        protocol.data_received(head_of(MAX_HEAD_BYTES + 1))
        await settled()
        assert [status for status, _, _ in responses(transport.written)] == [201] * 5 + [431]
        assert transport.is_closing()

    run(scenario)


def test_a_large_body_is_not_a_large_head() -> None:
    """How large a body may be is decided where it is read."""

    async def scenario() -> None:
        application = Application()
        protocol, transport = connected(application)
        protocol.data_received(POST.replace(b"Length: 5\r\n\r\nhello", b"Length: 100000\r\n\r\n"))
        for _ in range(10):
            protocol.data_received(b"x" * 10_000)
            await settled()
        assert application.requests == [("POST /x", b"x" * 100_000)]
        protocol.data_received(GET)
        await settled()
        assert [status for status, _, _ in responses(transport.written)] == [201, 201]

    run(scenario)


def test_a_pipelined_head_is_limited_too() -> None:
    """The request before it is answered first."""

    async def scenario() -> None:
        protocol, transport = connected(Application())
        protocol.data_received(GET + b"GET /y HTTP/1.1\r\nX: ")
        await settled()
        for _ in range(3):
            if not transport.is_closing():
                protocol.data_received(b"x" * (MAX_HEAD_BYTES // 2))
        await settled()
        assert [status for status, _, _ in responses(transport.written)] == [201, 431]
        assert transport.is_closing()

    run(scenario)


@pytest.mark.parametrize("drip", [b"", b"x"], ids=["nothing more", "a byte a second"])
def test_a_head_that_is_too_slow_is_a_timeout(drip: bytes) -> None:
    """Bytes that come slowly do not prolong it."""

    async def scenario() -> None:
        protocol, transport = connected(Application())
        await asyncio.sleep(3)
        protocol.data_received(b"GET /x HTTP/1.1\r\nX: ")
        while not transport.is_closing():
            await asyncio.sleep(1)
            if drip and not transport.is_closing():
                protocol.data_received(drip)
        assert problem(transport) == (408, "request_timeout")
        assert transport.closed_at_s == pytest.approx(HEAD_TIMEOUT_S)

    run(scenario)


def test_the_second_head_of_a_connection_has_the_same_time() -> None:
    """It begins with its first byte; a head that is whole in time stops it."""

    async def scenario() -> None:
        protocol, transport = connected(Application())
        protocol.data_received(GET)
        await asyncio.sleep(KEEP_ALIVE_S - 1)
        protocol.data_received(b"GET /x")
        began = now_s()
        await asyncio.sleep(HEAD_TIMEOUT_S - 1)
        protocol.data_received(b" HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(KEEP_ALIVE_S - 1)
        assert not transport.is_closing()
        protocol.data_received(b"GET /x")
        began = now_s()
        await asyncio.sleep(2 * HEAD_TIMEOUT_S)
        assert [status for status, _, _ in responses(transport.written)] == [201, 201, 408]
        assert transport.closed_at_s == pytest.approx(began + HEAD_TIMEOUT_S)

    run(scenario)


def test_an_idle_connection_is_closed_without_a_word() -> None:
    """A new one after the time for a head, one that served a request after the keep-alive timeout."""

    async def scenario() -> None:
        _, new = connected(Application())
        await asyncio.sleep(2 * HEAD_TIMEOUT_S)
        assert new.closed_at_s == pytest.approx(HEAD_TIMEOUT_S)
        assert new.written == b""
        began = now_s()
        protocol, used = connected(Application())
        protocol.data_received(GET)
        await asyncio.sleep(2 * KEEP_ALIVE_S)
        assert used.closed_at_s == pytest.approx(began + KEEP_ALIVE_S)
        assert [status for status, _, _ in responses(used.written)] == [201]

    run(scenario)


def test_blank_lines_do_not_keep_a_connection_open() -> None:
    """They end the wait for the next request, so they begin a head."""

    async def scenario() -> None:
        protocol, transport = connected(Application())
        protocol.data_received(GET)
        await asyncio.sleep(1)
        while not transport.is_closing():
            assert now_s() <= HEAD_TIMEOUT_S + 1
            protocol.data_received(b"\r\n")
            await asyncio.sleep(1)

    run(scenario)


def test_a_pipelined_head_that_is_too_slow_is_a_timeout() -> None:
    """Its time begins with it, though its first bytes came with the request before it."""

    async def scenario() -> None:
        protocol, transport = connected(Application())
        await asyncio.sleep(3)
        protocol.data_received(GET + b"GET /y")
        began = now_s()
        await asyncio.sleep(KEEP_ALIVE_S - 1)
        assert [status for status, _, _ in responses(transport.written)] == [201, 408]
        assert transport.closed_at_s == pytest.approx(began + HEAD_TIMEOUT_S)

    run(scenario)


@pytest.mark.parametrize("https", [False, True], ids=["http", "https"])
def test_a_malformed_request_is_answered_with_a_problem_document(*, https: bool) -> None:
    """With the headers of any other answer; it is counted, and its id is the document's instance."""

    async def scenario() -> None:
        counter = metrics.REQUESTS.labels("other", 400)
        before = counter._value.get()
        protocol, transport = connected(Application(), https=https)
        protocol.data_received(b"GARBAGE\r\n\r\n")
        await settled()
        ((status, headers, body),) = responses(transport.written)
        assert (status, json.loads(body)["code"]) == (400, "malformed_request")
        assert headers.pop("x-request-id") == json.loads(body)["instance"]
        secure = {name.decode(): value.decode() for name, value in SecurityHeaders("/", https=https).of_api}
        assert ("strict-transport-security" in secure) == https
        assert headers == {
            "content-type": "application/problem+json",
            "content-length": str(len(body)),
            "connection": "close",
            "date": "Tue, 24 Nov 2026 10:15:30 GMT",
            **secure,
        }
        assert transport.is_closing()
        assert counter._value.get() - before == 1

    run(scenario)


def test_malformed_requests_have_different_ids() -> None:
    """Only what is the same for all of them is kept."""

    async def scenario() -> None:
        ids = set()
        for _ in range(2):
            protocol, transport = connected(Application())
            protocol.data_received(b"GARBAGE\r\n\r\n")
            ((_, headers, body),) = responses(transport.written)
            assert headers["x-request-id"] == json.loads(body)["instance"]
            ids.add(headers["x-request-id"])
        assert len(ids) == 2

    run(scenario)


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
@pytest.mark.parametrize("protocol_name", ["h2c", "websocket"])
def test_an_offer_to_upgrade_is_ignored(name: str, protocol_name: str) -> None:
    """RFC 9110, 7.8: the request is served with its body, and the connection goes on."""

    async def scenario() -> None:
        application = Application()
        protocol, transport = connected(application)
        offer = f"\r\nConnection: Upgrade, HTTP2-Settings\r\n{name}: {protocol_name}\r\nHTTP2-Settings: AAMAAABkAARA"
        protocol.data_received(POST.replace(b"\r\nHost: x", b"\r\nHost: x" + offer.encode()))
        await settled()
        protocol.data_received(GET.replace(b"\r\nHost: x", b"\r\nHost: x" + offer.encode()))
        await settled()
        protocol.data_received(POST)
        await settled()
        assert application.requests == [("POST /x", b"hello"), ("GET /x", b""), ("POST /x", b"hello")]
        assert [status for status, _, _ in responses(transport.written)] == [201] * 3
        assert not transport.is_closing()

    run(scenario)


def test_the_word_upgrade_elsewhere_is_left_as_it_is() -> None:
    """Only the header of that name is renamed, not a path or a body."""

    async def scenario() -> None:
        application = Application()
        protocol, _ = connected(application)
        body = b"\r\nupgrade: me"
        head = b"POST /upgrade: HTTP/1.1\r\nHost: x\r\nX-Note: upgrade: it\r\nContent-Length: %d\r\n\r\n" % len(body)
        for packets in ([head + body], [head, body]):
            for packet in packets:
                protocol.data_received(packet)
                await settled()
        assert application.requests == [("POST /upgrade:", body)] * 2

    run(scenario)


@pytest.mark.parametrize(
    ("second", "refused"),
    [
        pytest.param(b"GARBAGE\r\n\r\n", 400, id="malformed"),
        pytest.param(head_of(MAX_HEAD_BYTES + 1), 431, id="too large"),
        pytest.param(b"GET /x", 408, id="too slow"),
    ],
)
def test_a_request_being_answered_is_answered_before_what_follows_it_is_refused(second: bytes, refused: int) -> None:
    """A payment's answer is not lost because the bytes after it can't be read."""

    async def scenario() -> None:
        answer = asyncio.Event()
        application = Application(lambda _path: answer.wait())
        protocol, transport = connected(application)
        protocol.data_received(POST)
        await settled()
        protocol.data_received(second)
        await asyncio.sleep(HEAD_TIMEOUT_S + 1)
        assert (transport.written, transport.is_closing()) == (b"", False)
        answer.set()
        await asyncio.sleep(HEAD_TIMEOUT_S + 1)
        (status, _, body), (then, headers, _) = responses(transport.written)
        assert (status, body, then, headers["connection"]) == (201, b"hello", refused, "close")
        assert transport.is_closing()
        assert application.requests == [("POST /x", b"hello")]

    run(scenario)


@pytest.mark.parametrize("kind", [GET, POST, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"], ids=["GET", "POST", "chunked"])
@pytest.mark.parametrize("packet", [1_000_000, 1000, 7], ids=["one packet", "packets", "small packets"])
def test_pipelined_requests_are_parsed_one_after_the_other(kind: bytes, packet: int) -> None:
    """The first waits for the bank: of those behind it no more are parsed than one piece of a body may hold."""

    async def scenario() -> None:
        answer = asyncio.Event()
        application = Application(lambda _path: answer.wait())
        protocol, transport = connected(application)
        behind = 3000 if packet > 100 else 100
        data = kind + GET * (behind - 1)
        for start in range(0, len(data), packet):
            protocol.data_received(data[start : start + packet])
            await asyncio.sleep(0)
        await settled()
        protocol.data_received(GET)
        assert len(application.requests) == 1
        assert len(protocol.pipeline) < 50
        assert transport.reads == (len(protocol._later) <= HIGH_WATER_LIMIT), (
            "reading tells whether the client is there"
        )
        assert len(protocol._later) > 0
        answer.set()
        while len(application.requests) <= behind:
            await settled()
        await settled()
        assert [status for status, _, _ in responses(transport.written)] == [201] * (1 + behind)
        assert transport.reads
        assert not transport.is_closing()

    run(scenario)


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        pytest.param(b"0\r\n", b"X: y\r\n", id="trailers"),
        pytest.param(b"0\r\nX: ", b"x", id="one trailer"),
        pytest.param(b"0\r\n", b"x", id="the name of a trailer"),
        pytest.param(b"5;a=", b"x", id="a chunk extension"),
        pytest.param(b"", b"0", id="the size of a chunk"),
        pytest.param(b"", b"1;a=bc\r\nx\r\n", id="the extensions of small chunks"),
    ],
)
@pytest.mark.parametrize("packet", [200_000, 1500], ids=["one packet", "packets"])
@pytest.mark.parametrize("answered", [False, True], ids=["read", "answered early"])
def test_the_framing_of_a_body_is_limited_like_a_head(
    begin: bytes, more: bytes, packet: int, *, answered: bool
) -> None:
    """Whether it comes in one packet or many, and whether or not the body is read; the request is not served."""

    async def scenario() -> None:
        application = Application(reads_body=not answered)
        protocol, transport = connected(application)
        protocol.data_received(CHUNKED)
        await settled()
        data = begin + more * (200_000 // len(more))
        fed = 0
        while fed < len(data) and not transport.is_closing():
            protocol.data_received(data[fed : fed + packet])
            fed += packet
        await settled()
        assert transport.is_closing()
        assert protocol._framing_bytes <= MAX_HEAD_BYTES + 1024
        if answered:  # a second response would be taken for that to another request
            assert [status for status, _, _ in responses(transport.written)] == [201]
        else:
            status, code = problem(transport)
            assert (status, code) in {(431, "headers_too_large"), (400, "malformed_request")}
            assert application.requests == []

    run(scenario)


def test_a_body_may_come_in_small_chunks() -> None:
    """The chunk sizes of 4,000 chunks of one byte are within the limit."""

    async def scenario() -> None:
        application = Application()
        protocol, _ = connected(application)
        protocol.data_received(CHUNKED + b"1\r\nx\r\n" * 4000 + b"0\r\n\r\n")
        await settled()
        assert application.requests == [("POST /x", b"x" * 4000)]

    run(scenario)


@pytest.mark.parametrize("split", [False, True], ids=["one packet", "byte by byte"])
def test_trailers_are_not_headers(*, split: bool) -> None:
    """Neither for the request, which has read its headers by then, nor for the next one on the connection."""

    async def scenario() -> None:
        application = Application()
        protocol, transport = connected(application)
        trailers = b"Idempotency-Key: k\r\nAuthorization: Bearer k\r\nHost: y\r\nExpect: 100-continue\r\n"
        data = CHUNKED + b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n" + POST
        for packet in [data[at : at + 1] for at in range(len(data))] if split else [data]:
            protocol.data_received(packet)
        await settled()
        assert application.requests == [("POST /x", b"hello")] * 2
        assert application.headers == [
            [(b"host", b"x"), (b"transfer-encoding", b"chunked")],
            [(b"host", b"x"), (b"content-length", b"5")],
        ]
        assert [status for status, _, _ in responses(transport.written)] == [201, 201]

    run(scenario)


@pytest.mark.parametrize(
    "trailer", [b"Transfer-Encoding: chunked", b"Connection: upgrade\r\nUpgrade: h2c", b"Upgrade: x"]
)
def test_a_trailer_does_not_change_where_the_next_request_begins(trailer: bytes) -> None:
    """What follows is read as the requests that it is, or the connection ends."""

    async def scenario() -> None:
        application = Application()
        protocol, _ = connected(application)
        protocol.data_received(CHUNKED + b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n" + POST + GET)
        await settled()
        requests = [("POST /x", b"hello"), ("POST /x", b"hello"), ("GET /x", b"")]
        assert application.requests == requests[: len(application.requests)]

    run(scenario)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /x HTTP/1.1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nX: y\r\nhOST: y\r\n\r\n", 400),
        (b"GET /x HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /x HTTP/1.0\r\n\r\n", 201),
        (b"GET /x HTTP/1.0\r\nHost: x\r\n\r\n", 201),
        (b"GET /x HTTP/1.1\r\nHost:\r\n\r\n", 201),
    ],
)
def test_a_request_has_one_host(head: bytes, status: int) -> None:
    """RFC 9112, 3.2. Only a request of HTTP/1.0, like HAProxy's health check, may have none."""

    async def scenario() -> None:
        application = Application()
        protocol, transport = connected(application)
        protocol.data_received(head)
        await settled()
        ((answered, _, _),) = responses(transport.written)
        assert answered == status
        assert len(application.requests) == (status == 201)
        assert transport.is_closing() or b"1.1" in head

    run(scenario)


@pytest.mark.parametrize(
    ("rest", "refused"),
    [pytest.param(b"GARBAGE\r\n\r\n", [], id="head"), pytest.param(CHUNKED + b"not hex\r\n", [400], id="body")],
)
def test_requests_in_the_pipeline_are_answered_before_the_malformed_one_behind_them(
    rest: bytes, refused: list[int]
) -> None:
    """A refusal that came first would be taken for the answer to a payment."""

    async def scenario() -> None:
        answer = asyncio.Event()
        application = Application(lambda path: answer.wait() if path == "/x" else asyncio.sleep(0))
        protocol, transport = connected(application)
        protocol.data_received(POST + POST.replace(b"/x", b"/y") + rest)
        await settled()
        protocol.data_received(b"more that can't be read")
        await settled()
        assert (transport.written, transport.is_closing()) == (b"", False)
        answer.set()
        await settled()
        statuses = [status for status, _, _ in responses(transport.written)]
        assert statuses == [201, 201, *refused]
        assert transport.is_closing()
        assert application.requests == [("POST /x", b"hello"), ("POST /y", b"hello")]

    run(scenario)


def test_a_body_that_is_malformed_is_answered_at_once() -> None:
    """Its request is not served."""

    async def scenario() -> None:
        application = Application()
        protocol, transport = connected(application)
        protocol.data_received(CHUNKED + b"5\r\nhello\r\n")
        await settled()
        protocol.data_received(b"not hex\r\n")
        await settled()
        assert problem(transport) == (400, "malformed_request")
        assert application.requests == []

    run(scenario)


def test_trailers_that_nobody_reads_have_the_time_of_the_body() -> None:
    """Bytes that come slowly do not prolong it."""

    async def scenario() -> None:
        protocol, transport = connected(Application(reads_body=False))
        protocol.data_received(CHUNKED + b"0\r\nX: ")
        while not transport.is_closing():
            await asyncio.sleep(1)
            protocol.data_received(b"x")
        assert transport.closed_at_s is not None
        assert transport.closed_at_s <= BODY_TIMEOUT_S
        assert [status for status, _, _ in responses(transport.written)] == [201]

    run(scenario)


def test_the_rest_of_a_body_that_nobody_reads_has_its_time() -> None:
    """After an early answer the connection is closed if the body does not end, and goes on if it does."""

    async def scenario() -> None:
        protocol, transport = connected(Application(reads_body=False))
        protocol.data_received(POST[:-1])
        await asyncio.sleep(BODY_TIMEOUT_S - 1)
        assert [status for status, _, _ in responses(transport.written)] == [201]
        protocol.data_received(POST[-1:])
        await settled()
        protocol.data_received(GET)
        await settled()
        assert [status for status, _, _ in responses(transport.written)] == [201, 201]
        began = now_s()
        protocol.data_received(POST[:-3])
        for byte in (b"l", b"l"):
            await asyncio.sleep(2)
            protocol.data_received(byte)
        await asyncio.sleep(BODY_TIMEOUT_S)
        assert transport.closed_at_s is not None
        assert transport.closed_at_s <= began + BODY_TIMEOUT_S
        assert [status for status, _, _ in responses(transport.written)] == [201] * 3

    run(scenario)


def test_a_pipelined_body_may_take_its_time_after_the_answer_to_the_request_before_it() -> None:
    """Somebody reads that body, so it is not one that nobody reads."""

    async def scenario() -> None:
        answer = asyncio.Event()
        application = Application(lambda path: answer.wait() if path == "/x" else asyncio.sleep(0))
        protocol, transport = connected(application)
        protocol.data_received(POST + POST.replace(b"/x", b"/y")[:-1])
        await settled()
        answer.set()
        await asyncio.sleep(BODY_TIMEOUT_S + 1)
        protocol.data_received(POST[-1:])
        await settled()
        assert [status for status, _, _ in responses(transport.written)] == [201, 201]
        assert not transport.is_closing()

    run(scenario)


def test_a_client_that_does_not_read_is_cut_off() -> None:
    """Its time begins when the buffer is full, and again when it was read in between."""

    async def scenario() -> None:
        protocol, transport = connected(Application(lambda _path: asyncio.Event().wait()), client_reads=False)
        protocol.data_received(POST)
        await settled()
        began = now_s()
        protocol.pause_writing()
        await asyncio.sleep(READ_TIMEOUT_S - 5)
        protocol.resume_writing()
        await asyncio.sleep(1)
        protocol.pause_writing()
        began = now_s()
        await asyncio.sleep(READ_TIMEOUT_S + 1)
        assert transport.aborted_at_s == pytest.approx(began + READ_TIMEOUT_S)

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "closed_after_s"),
    [
        pytest.param(b"GARBAGE\r\n\r\n", 0.0, id="refused"),
        pytest.param(b"", HEAD_TIMEOUT_S, id="idle"),
        pytest.param(GET.replace(b"Host: x", b"Host: x\r\nConnection: close"), 0.0, id="last request"),
        pytest.param(GET, KEEP_ALIVE_S, id="kept alive"),
    ],
)
def test_a_client_that_does_not_read_its_last_response_is_cut_off(sent: bytes, closed_after_s: float) -> None:
    """Closing waits for the client to read what was written, so it needs an end of its own."""

    async def scenario() -> None:
        protocol, transport = connected(Application(), client_reads=False)
        if sent:
            protocol.data_received(sent)
        await asyncio.sleep(50)
        assert transport.closed_at_s == pytest.approx(closed_after_s)
        assert transport.aborted_at_s == pytest.approx(closed_after_s + LINGER_S)

    run(scenario)


def test_nothing_happens_on_a_connection_that_was_lost() -> None:
    """Its timers are stopped, whatever was waited for."""

    async def scenario() -> None:
        for sent in (b"", b"GET /x", POST[:-1]):
            protocol, transport = connected(Application(reads_body=False))
            if sent:
                protocol.data_received(sent)
            await settled()
            written = transport.written
            protocol.pause_writing()
            transport.abort()
            aborted_at_s = now_s()
            await asyncio.sleep(100)
            assert (transport.written, transport.written_late) == (written, b"")
            assert transport.aborted_at_s == aborted_at_s

    run(scenario)
