"""One deadline over a whole HTTP call, and the certainty of whether any of it was sent.

`requests` bounds the wait for each piece of a reply, not the call: a bank that drips a byte a
second holds it open for ever. And its exceptions do not tell a request that never left from one
that did. Both are known at the connection, so this module extends urllib3's: connecting and every
read of the reply get what is left of the deadline, and `was_sent()` turns true just before the first
byte goes out. Sockets do not block: bank/waiting.py waits for them. Connecting, which looks names up
and shakes hands in TLS, has a thread.
"""

import asyncio
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, cast

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError

from bank import waiting

R = TypeVar("R")

# All that one call may read, its retries and the bodies of 503s that urllib3 drains included.
MAX_READ_BYTES: Final = 512 * 1024

_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(slots=True)
class _Call:
    deadline: float
    threads: Executor
    budget: int = MAX_READ_BYTES
    sent: bool = False


_call: Final[ContextVar[_Call]] = ContextVar("call")


def start(seconds: float, threads: Executor) -> None:
    """Give this context's next call, its retries included, `seconds` from now, and threads to connect in."""
    _call.set(_Call(time.monotonic() + seconds, threads))


def was_sent() -> bool:
    """Whether any byte of this context's last attempt may have left."""
    return _call.get().sent


def left_s() -> float:
    """Return how many seconds are left. Raises `TimeoutError` when none are."""
    left = _call.get().deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline of the call has passed")
    return left


def _patiently(sock: socket.socket, attempt: Callable[[], R], *, to_read: bool) -> R:
    """Read or write, when the socket is ready for it."""
    while True:
        left = left_s()
        try:
            return attempt()
        except _WOULD_BLOCK as error:  # TLS may have to read before it can write, and the other way round
            if isinstance(error, ssl.SSLError):
                to_read = isinstance(error, ssl.SSLWantReadError)
        waiting.until_ready(sock, left, to_read=to_read)


class _Raw(io.RawIOBase):
    """A socket's reading end that stays within the call's deadline and budget."""

    def __init__(self, raw: socket.SocketIO, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = _patiently(self._sock, lambda: self._sock.recv_into(buffer), to_read=True)
        call = _call.get()
        call.budget -= read
        if call.budget < 0:
            raise OSError("the reply is too large")
        return read

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Raw(cast("socket.SocketIO", self.fp.detach()), sock))


class _HTTPConnection(HTTPConnection):
    """urllib3 starts a new attempt only when the one before certainly did not happen, so every
    attempt begins as not sent."""

    response_class = _Response
    _outgoing: list[bytes]
    _is_given_up = False

    def request(self, *args: Any, **kwargs: Any) -> None:
        _call.get().sent = False
        left_s()
        self._outgoing = []
        super().request(*args, **kwargs)
        self._send(b"".join(self._outgoing))

    def send(self, data: Any) -> None:
        self._outgoing.append(data)  # head and body go out together

    def connect(self) -> None:
        _call.get().sent = False
        self.timeout = min(self.timeout or left_s(), left_s())
        connecting = asyncio.get_running_loop().run_in_executor(_call.get().threads, self._connect)
        done: set[Any] = set()
        try:
            done, _ = waiting.wait(asyncio.wait([connecting], timeout=self.timeout))
        finally:
            self._is_given_up = not done
        if self._is_given_up:  # looking the host up has a clock of its own
            connecting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            raise ConnectTimeoutError(self, "no connection in time")
        connecting.result()
        self.sock.settimeout(0)

    def _connect(self) -> None:
        super().connect()
        if self._is_given_up:
            self.close()

    def _send(self, data: bytes) -> None:
        if self.sock is None:
            self.connect()
        left_s()
        _call.get().sent = True
        while data:
            sent = _patiently(self.sock, partial(self.sock.send, data), to_read=False)
            data = data[sent:]

    def getresponse(self) -> Any:
        self.timeout = 0.0  # which urllib3 sets on the socket: that it goes on not to block
        return super().getresponse()


class _HTTPSConnection(_HTTPConnection, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class DeadlinePools(PoolManager):
    """urllib3's pools, with connections that keep the deadline."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
