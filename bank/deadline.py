"""One deadline for a whole HTTP call, whether any of the request was sent, and that the reply read is its own.

`requests` limits the wait for each piece of a reply, not the whole call: a bank that sends one byte a second keeps
a call open forever. Its exceptions do not say whether any of the request was sent. Both are known at the connection,
so urllib3's connection classes use the socket of this module, `_Socket`: it sends and reads until the deadline only,
never blocks the event loop (bank/waiting.py), and notes when the first byte leaves. Name resolution, connecting and
the TLS handshake block, so they run in a thread.

A kept connection carries another request only if nothing is left to read after the reply before: that would be read as
the answer to another payment. docs/decisions/http-connections.md says what can't be known.
"""

import asyncio
import io
import re
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self, TypeVar

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError

from bank import waiting

R = TypeVar("R")

# What one call may read in total, retries and the bodies of 503 replies included.
MAX_READ_BYTES: Final = 512 * 1024

# Alerts by which a server ends a handshake because of the client's certificate (RFC 8446, 6.2), as OpenSSL names them.
# In TLS 1.3 they arrive after the request was sent, but the server has not read it.
# docs/decisions/tls-client-certificates.md
_CERTIFICATE_REFUSED: Final = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)

# The status line of an interim reply, which says nothing about the request's outcome (RFC 9110, 15.2). 101 is
# not skipped, because the request offers no other protocol.
_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d\b")
_END_OF_HEAD: Final = (b"\r\n", b"\n", b"")

_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(slots=True)
class _Call:
    deadline: float
    threads: Executor
    unread_bytes: int = MAX_READ_BYTES
    sent: bool = False
    connection: HTTPConnection | None = None
    earlier_sent: bool = False


_call: Final[ContextVar[_Call]] = ContextVar("call")


def start(seconds: float, threads: Executor) -> None:
    """Start a call in this context: it ends `seconds` from now, retries included, and connects in `threads`."""
    _call.set(_Call(time.monotonic() + seconds, threads))


def was_sent() -> bool:
    """Return whether any byte of this context's last attempt may have left, and the bank may have read it."""
    return _call.get().sent


def any_was_sent() -> bool:
    """Return whether any byte of any attempt in this context may have left: a bank may work and answer 503."""
    call = _call.get()
    return call.earlier_sent or call.sent


def close_connection() -> None:
    """Close the connection of this context's last attempt, because its reply can't be trusted.

    The connection may be in the pool again. No other call has taken it, if this one has not waited since.
    """
    connection = _call.get().connection
    if connection is not None:
        connection.close()


def left_s() -> float:
    """Return how many seconds are left. Raises `TimeoutError` when none are."""
    left = _call.get().deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline of the call has passed")
    return left


class DeadlinePools(PoolManager):
    """urllib3's connection pools, with connections that keep the deadline."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}


class _HTTPConnection(HTTPConnection):
    _abandoned = False

    @property
    def is_connected(self) -> bool:
        """Return whether a kept connection can be used. urllib3 asks right before it sends, and else connects again."""
        return self.sock is not None and self.sock.is_idle()

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._begin()
        left_s()
        super().request(*args, **kwargs)
        self.sock.flush()

    def connect(self) -> None:
        self._begin()
        self.timeout = min(self.timeout or left_s(), left_s())
        connecting = asyncio.get_running_loop().run_in_executor(_call.get().threads, self._connect)
        done: set[Any] = set()
        try:
            done, _ = waiting.wait(asyncio.wait([connecting], timeout=self.timeout))
        finally:
            self._abandoned = not done
        if self._abandoned:  # `timeout` limits the attempts to connect, but not the resolution of the name
            connecting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            raise ConnectTimeoutError(self, "no connection in time")
        connecting.result()

    def _begin(self) -> None:
        # urllib3 starts another attempt only when the bank certainly did not process the one before.
        call = _call.get()
        call.earlier_sent |= call.sent
        call.sent, call.connection = False, self

    def _connect(self) -> None:
        super().connect()
        self.sock: Any = _Socket(self.sock)
        if self._abandoned:
            self.close()


class _HTTPSConnection(_HTTPConnection, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Socket:
    """A connected socket with only those methods that http.client and urllib3 call; any other is an error.

    Checked on urllib3 2.8.0 and Python 3.11 to 3.13.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._replies = _Replies(sock)
        self._unsent = b""

    def sendall(self, data: bytes) -> None:
        """Keep `data` for `flush`, so that head and body leave in one packet."""
        self._unsent += data

    def flush(self) -> None:
        """Send what was kept. From the first byte on, the bank may process the request."""
        left_s()
        while self._unsent:
            sent = _when_ready(self._sock, self._send, to_read=False)
            self._unsent = self._unsent[sent:]

    def _send(self) -> int:
        call = _call.get()
        sent_before, call.sent = call.sent, True
        try:
            return self._sock.send(self._unsent)
        except _WOULD_BLOCK:
            raise  # TLS may have sent a part of a record
        except OSError:
            if sent_before:
                raise
        call.sent = False
        # Not BrokenPipeError: urllib3 would read a reply after that, which could not be the answer to this request.
        raise ConnectionError("the connection had ended before anything was sent")

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb", mode
        return self._replies.begin()

    def is_idle(self) -> bool:
        return self._replies.is_idle()

    def settimeout(self, _seconds: float | None) -> None:
        """Do nothing: the deadline counts, and a timeout would make the socket block."""

    def close(self) -> None:
        self._replies.end()


class _Replies(io.BufferedReader):
    """What the bank sends on one connection. http.client opens it for each reply, and closes it at the reply's end.

    The socket stays open meanwhile, unless there is more to read. It is one reader for all replies, because what has
    been read beyond a reply is in its buffer.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = _Reader(sock)
        self._in_reply = self._at_status = self._ended = False
        super().__init__(self._reader)

    def begin(self) -> Self:
        """Open it for the next reply."""
        self._in_reply = self._at_status = True
        return self

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line. Interim replies before a reply are skipped; http.client skips only 100 Continue."""
        line = super().readline(size)
        while self._at_status and _INTERIM.match(line):
            while super().readline(size) not in _END_OF_HEAD:
                pass
            line = super().readline(size)
        self._at_status = False
        return line

    def close(self) -> None:
        """End the reply."""
        self._in_reply = False
        if self._ended or not self.is_idle():
            self._sock.close()

    def end(self) -> None:
        """Close the socket, after the reply that is being read: it may end with the connection."""
        self._ended = True
        if not self._in_reply:
            self._sock.close()

    def is_idle(self) -> bool:
        """Return whether there is nothing to read in the buffer, TLS or the socket, not even the connection's end."""
        self._reader.waits = self._reader.empty = False
        try:
            return not self.peek(1) and self._reader.empty  # an empty buffer is filled by one read that does not wait
        except OSError:
            return False
        finally:
            self._reader.waits = True


class _Reader(io.RawIOBase):
    """The reading end of a socket, within the call's deadline and its limit of bytes.

    It notes when the bank refuses the client's certificate in place of a reply. On a connection that had a reply, such
    an alert is not about the handshake.

    waits: whether a read waits for the bank
    empty: whether a read that did not wait found nothing
    """

    def __init__(self, sock: socket.socket) -> None:
        self.waits, self.empty = True, False
        self._received = False
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if not self.waits:
            return self._read_now(buffer)
        call = _call.get()
        try:
            read = _when_ready(self._sock, partial(self._sock.recv_into, buffer), to_read=True)
        except ssl.SSLError as error:
            if error.reason in _CERTIFICATE_REFUSED and not self._received:
                call.sent = False
            raise
        self._received = True
        call.unread_bytes -= read
        if call.unread_bytes < 0:
            raise OSError("the reply is too large")
        return read

    def _read_now(self, buffer: Any) -> int | None:
        try:
            return self._sock.recv_into(buffer)
        except _WOULD_BLOCK:
            self.empty = True
            return None


def _when_ready(sock: socket.socket, attempt: Callable[[], R], *, to_read: bool) -> R:
    """Return the result of `attempt`, which reads or writes, as soon as the socket allows it."""
    while True:
        left = left_s()
        try:
            return attempt()
        except _WOULD_BLOCK as error:  # TLS may have to read before it can write, and to write before it can read
            if isinstance(error, ssl.SSLError):
                to_read = isinstance(error, ssl.SSLWantReadError)
        waiting.until_ready(sock, left, to_read=to_read)
