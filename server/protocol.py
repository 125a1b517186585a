"""HTTP/1.1 before there is a request to route: bounds on its head, and errors as problem documents too."""

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Final

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from handlers.body import BODY_TIMEOUT_S
from handlers.problems import HEADERS, MEDIA_TYPE, PROBLEMS, Code, document
from server import overload
from server.middleware.observe import note
from server.middleware.security_headers import SecurityHeaders
from telemetry.request_context import RequestContext

# httptools sets no limit of its own. nginx allows 32 KiB of headers, Apache's httpd 100 fields of 8.
MAX_HEAD_BYTES: Final = 32 * 1024

# The head of a request is one packet; who takes longer than this for it is holding a connection open.
HEAD_TIMEOUT_S: Final = 10.0

# An answer is one packet too, and the UI's largest file takes this long at 50 KB/s.
READ_TIMEOUT_S: Final = 20.0

# What a connection that is closed has left for its client to read.
LINGER_S: Final = 5.0

_UPGRADE: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, stricter.

    Offers to upgrade are ignored, as RFC 9110 (7.8) allows. Java's HttpClient and `curl --http2` make
    one with every request, and httptools would then take the request's body for the new protocol.
    """

    _in_body = False
    _refused: RequestContext | None = None  # a payment too many, of which the body is still to come
    _head_bytes = 0  # of the request whose head is being read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._head = _Bound(self.loop, HEAD_TIMEOUT_S, self._head_did_not_come)
        self._rest = _Bound(self.loop, BODY_TIMEOUT_S, self._close)  # of a body that nobody waits for
        self._reader = _Bound(self.loop, READ_TIMEOUT_S, transport.abort)
        self._head.start()

    def connection_lost(self, exc: Exception | None) -> None:
        for bound in (self._head, self._rest, self._reader):
            bound.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The other side does not read what it asked for."""
        self._reader.start()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._reader.stop()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head.start()  # whatever came ended uvicorn's wait for the next request
            head, end, rest = data.partition(b"\r\n\r\n")
            self._head_bytes += len(head)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(Code.MALFORMED_REQUEST)
                return
            if b"upgrade" in head.lower():
                data = _UPGRADE.sub(b"\r\nx-upgrade:", head) + end + rest
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._head.start()
        self._head_bytes = max(self._head_bytes, 1)  # there is one, though it came with what was before
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._head_bytes = 0
        is_free = self.cycle is None or self.cycle.response_complete
        if is_free and not self.expect_100_continue:
            self._refused = overload.refuse(self.parser.get_method().decode(), self.url.decode("latin-1"), self.headers)
        if self._refused is None:  # otherwise the body has the rest of the head's time
            self._head.stop()
            super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        start = partial(super()._start_asgi_task, cycle, app)
        overload.begin(cycle.scope, start)  # type: ignore[arg-type]  # a TypedDict is no mapping to mypy

    def on_body(self, body: bytes) -> None:
        if self._refused is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._rest.stop()
        if self._refused is None:
            super().on_message_complete()
            return
        refused, self._refused = self._refused, None
        self._head.stop()
        self._answer(refused, "POST", Code.OVERLOADED, close=not self.parser.should_keep_alive())
        self.on_response_complete()
        overload.rest(self.flow.pause_reading, self._go_on)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._close()
        elif self._in_body:  # of a request that was answered before it was all there
            self._rest.start()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's sentence; ours is in the table
        self._refuse(Code.MALFORMED_REQUEST)

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _close(self) -> None:
        """Close, but do not wait for ever until all that was written is read."""
        self.transport.close()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def _head_did_not_come(self) -> None:
        if self._head_bytes:
            self._refuse(Code.REQUEST_TIMEOUT)
        else:
            self._close()

    def _refuse(self, code: Code) -> None:
        self._head.stop()
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            # A complete request is being answered, a payment perhaps. Its answer comes first, and last:
            # what follows it on this connection can't be read.
            self.cycle.keep_alive = False
            return
        self._answer(RequestContext(outcome=code), None, code, close=True)

    def _answer(self, refused: RequestContext, method: str | None, code: Code, *, close: bool) -> None:
        body, status = document(code, refused.id), PROBLEMS[code].status
        date = b"".join(b"%s: %s\r\n" % header for header in self.server_state.default_headers)
        rest = b"content-length: %d\r\nconnection: %s\r\nx-request-id: %s\r\n\r\n%s"
        rest %= len(body), b"close" if close else b"keep-alive", refused.id.encode(), body
        self.transport.write(_start_of_answer(code, https=self.config.is_ssl) + date + rest)
        if close:
            self._close()
        note(refused, method, status, 0.0)


class _Bound:
    """Does something `seconds` after it was started, unless it is stopped before.

    A request starts and stops some, so a timer that is no longer wanted goes on, and is not made anew.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, then: Callable[[], object]) -> None:
        self._loop, self._seconds, self._then = loop, seconds, then
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._at is None:
            self._at = self._loop.time() + self._seconds
            if self._timer is None:
                self._timer = self._loop.call_at(self._at, self._look)

    def stop(self) -> None:
        self._at = None

    def end(self) -> None:
        self._at = None
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._at is not None and self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._look)
        elif self._at is not None:
            self._at = None
            self._then()


@lru_cache
def _start_of_answer(code: Code, *, https: bool) -> bytes:
    """The part of an answer's head that is the same for each of its kind."""
    status = PROBLEMS[code].status
    own = {"content-type": MEDIA_TYPE, **HEADERS.get(code, {})}
    headers = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    headers += SecurityHeaders("/", https=https).of_api
    line = b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())
    return line + b"".join(b"%s: %s\r\n" % header for header in headers)
