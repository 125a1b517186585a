"""The HTTP/1.1 protocol: limits of size and time, and problem documents for malformed requests.

uvicorn's protocol for httptools limits neither the size of a request's head or trailers nor the time they take, parses
everything that a client sends at once, and answers malformed requests with text. docs/decisions/private-names.md lists
the private names that this subclass relies on.
"""

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handlers.body import BODY_TIMEOUT_S
from handlers.problems import HEADERS, MEDIA_TYPE, PROBLEMS, Code, document
from handlers.scope import ADDED_HEADERS
from server.connections import Connection, Connections
from server.middleware.observe import note
from server.middleware.security_headers import SecurityHeaders
from telemetry.request_context import RequestContext

# nginx allows heads of 32 KiB, Apache's httpd 100 fields of 8 KiB. All that frames a chunked body, which is its chunk
# sizes, chunk extensions and trailers, may have as many bytes.
MAX_HEAD_BYTES: Final = 32 * 1024

# How much of a body is parsed at once. It may end there, and be followed by as many bytes of other requests.
_PIECE_BYTES: Final = 1024

# Seconds. A head is one packet; a client that needs longer is holding a connection open.
HEAD_TIMEOUT_S: Final = 10.0

# Seconds. A response is one packet too, and the UI's largest file takes this long at 85 KB/s.
READ_TIMEOUT_S: Final = 20.0

# Seconds for a client to read what was written, before its connection is aborted.
LINGER_S: Final = 5.0

_UPGRADE: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Protocol(HttpToolsProtocol, Connection):
    """uvicorn's HTTP/1.1 protocol with limits.

    The requests of a connection are read one after the other: what follows a request is parsed after its answer.
    Otherwise one client could have thousands of requests parsed in one turn of the event loop. Trailers are ignored, as
    RFC 9110 (6.5) allows; uvicorn would take them for headers.

    Offers to upgrade are ignored, as RFC 9110 (7.8) allows. Java's HttpClient and `curl --http2` make one with every
    request, and httptools would then read the request's body as the new protocol.

    connections: those of the process; None without limits
    opening: the task that makes the connection, while there is one
    """

    _in_body = False
    _head_bytes = 0  # of the request whose head is being read
    _framing_bytes = 0  # of the body that is being read, without its content
    _later = b""  # received, and not parsed yet
    _refusal: Code | None = None  # of a request behind others that are not answered yet
    _answered: Any = None  # the cycle of the request that is being answered while the next one is parsed already

    def __init__(self, *arguments: Any, connections: Connections | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.counted_by = connections
        self.opening: asyncio.Task[Any] | None = None
        self._makes_room = False

    def make_room(self) -> None:
        """Close the connection now. It is idle, so nothing is lost."""
        self._makes_room = True
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None and self.config.is_ssl:
            self.opening.cancel()  # its handshake; without TLS uvloop would not close what it has opened

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._head = _Timeout(self.loop, HEAD_TIMEOUT_S, self._head_timed_out)
        self._unread = _Timeout(self.loop, BODY_TIMEOUT_S, self._close)  # the rest of a body that nobody reads
        self._reader = _Timeout(self.loop, READ_TIMEOUT_S, transport.abort)
        self._head.start()
        if self._makes_room:  # since it was accepted
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timeout in (self._head, self._unread, self._reader):
            timeout.cancel()
        self.leave()
        if self._answered is not None and not self._answered.response_complete:
            # uvicorn tells only the newest cycle, and the answer would be written to a closed transport.
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read its response."""
        self._reader.start()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._reader.stop()
        super().resume_writing()
        self._note_idle()

    def data_received(self, data: bytes) -> None:
        if self._later:
            self._later += data
            if len(self._later) > HIGH_WATER_LIMIT:  # until then, reading tells whether the client is still there
                self.flow.pause_reading()
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Parse a head, or a piece of a body, at a time, until a request is complete; keep the rest."""
        start = 0
        while start < len(data) and not self.transport.is_closing():
            if self.pipeline or self._is_answering():
                self._later = data[start:]
                return
            if self._in_body:
                stop = min(start + _PIECE_BYTES, len(data))
                self._parse_body(data[start:stop])
            else:
                blank_line = data.find(b"\r\n\r\n", start)
                stop = len(data) if blank_line < 0 else blank_line + 4
                self._parse_head(data[start:stop])
            start = stop

    def _parse_head(self, data: bytes) -> None:
        self._head.start()  # any byte ends uvicorn's own wait for the next request
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(Code.HEADERS_TOO_LARGE)
        elif b"upgrade" in data.lower():
            super().data_received(_UPGRADE.sub(b"\r\nx-upgrade:", data))
        else:
            super().data_received(data)

    def _parse_body(self, data: bytes) -> None:
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._in_body and self._framing_bytes > MAX_HEAD_BYTES:
            self._refuse(Code.HEADERS_TOO_LARGE)

    def _is_answering(self) -> bool:
        """Return whether a request is complete and its response is not."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def on_message_begin(self) -> None:
        self._head.start()
        self._head_bytes = max(self._head_bytes, 1)  # a pipelined head came with the request before it
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            raise ValueError("Host")  # RFC 9112, 3.2; httptools stops, and uvicorn calls `send_400_response`
        self._in_body = True
        self._head_bytes = self._framing_bytes = 0
        self._head.stop()
        if not self.pipeline:
            self._answered = self.cycle
        super().on_headers_complete()
        if self.counted_by is not None:
            self.counted_by.busy(self)
        self.headers = []  # for the trailers, which must not come into the scope

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._unread.stop()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        self._answered = None if is_last else self.pipeline[-1][0]  # which begins now
        if self.cycle.response_complete:
            self.cycle.body = bytearray()  # which the app may not have read; the connection may stay open for long
        super().on_response_complete()
        if self.transport.is_closing():
            self._close()
        elif self._refusal is not None and is_last:
            self._send_refusal(self._refusal)
        elif self._in_body and self.cycle.response_complete:  # answered before its body was complete
            self._unread.start()
        self._note_idle()
        later, self._later = self._later, b""
        self._parse(later)

    def _note_idle(self) -> None:
        """Tell `Connections` once every response is complete, and the client has read it."""
        is_complete = self.cycle is not None and self.cycle.response_complete and not self.pipeline
        if self.counted_by is not None and is_complete and not self.flow.write_paused:
            self.counted_by.idle(self)

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's text; PROBLEMS has ours
        self._refuse(Code.MALFORMED_REQUEST)

    def _close(self) -> None:
        """Close the connection, and abort it if the client does not read what was written."""
        self.transport.close()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def _head_timed_out(self) -> None:
        if self._head_bytes:
            self._refuse(Code.REQUEST_TIMEOUT)
        else:
            self._close()

    def _refuse(self, code: Code) -> None:
        self._head.stop()
        if self._is_answering():
            # A complete request, perhaps a payment, is being answered. Close after its response, because the bytes
            # that follow it can't be read.
            self.cycle.keep_alive = False
            return
        if self._refusal is not None:
            return
        if self.pipeline:  # sent now, it would be taken for the answer to an earlier request, maybe a payment
            self.pipeline.popleft()
            self._refusal = code
        elif self._in_body and self.cycle.response_started:
            self._close()  # another response would be taken for the answer to the next request
        else:
            self._send_refusal(code)

    def _send_refusal(self, code: Code) -> None:
        context = RequestContext(outcome=code)
        body = document(code, context.id)
        scope: dict[str, Any] = dict(self.scope) if self._in_body else {}  # of the request whose body is wrong
        more = b"".join(
            b"%s: %s\r\n" % header for header in (*self.server_state.default_headers, *scope.get(ADDED_HEADERS, ()))
        )
        head = b"content-length: %d\r\nconnection: close\r\nx-request-id: %s\r\n\r\n" % (len(body), context.id.encode())
        self.transport.write(_start_of_answer(code, https=self.config.is_ssl) + more + head + body)
        self._close()
        note(context, {"method": None, "path": None, "client": self.client}, PROBLEMS[code].status, 0.0)


class _Timeout:
    """Calls `then` after `seconds` from `start`, unless stopped before.

    A request starts and stops several. The event loop's timer keeps running after `stop`, which is cheaper than
    cancelling it and creating another.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, then: Callable[[], object]) -> None:
        self._loop, self._seconds, self._then = loop, seconds, then
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._at is None:
            self._at = self._loop.time() + self._seconds
            if self._timer is None:
                self._timer = self._loop.call_at(self._at, self._check)

    def stop(self) -> None:
        self._at = None

    def cancel(self) -> None:
        self._at = None
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        if self._at is not None and self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._check)
        elif self._at is not None:
            self._at = None
            self._then()


@lru_cache
def _start_of_answer(code: Code, *, https: bool) -> bytes:
    """Return the part of a refusal's head that depends on the code only."""
    status = PROBLEMS[code].status
    own = {"content-type": MEDIA_TYPE, **HEADERS.get(code, {})}
    headers = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    headers += SecurityHeaders("/", https=https).of_api
    line = b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())
    return line + b"".join(b"%s: %s\r\n" % header for header in headers)
