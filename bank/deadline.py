"""One deadline over a whole HTTP call, and the certainty of whether any of it was sent.

`requests` bounds the wait for each piece of a reply, not the call: a bank that drips a byte a
second holds it open for ever. And its exceptions do not tell a request that never left from one
that did. Both are known at the connection, so this module extends urllib3's: connecting and every
read of the reply get what is left of the deadline (a request is small enough that sending never
waits), and `was_sent()` turns true just before the first byte goes out. A call and its retries run in
one thread, which carries the state. Only the resolver of host names keeps a clock of its own.
"""

import http.client
import io
import socket
import threading
import time
from typing import Any, Final, cast

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

# All that one call may read, its retries and the bodies of 503s that urllib3 drains included.
MAX_READ_BYTES: Final = 512 * 1024


class _Call(threading.local):
    deadline: float = 0.0
    budget: int = 0
    sent: bool = False


_call = _Call()


def start(seconds: float) -> None:
    """Give this thread's next call, its retries included, `seconds` from now."""
    _call.deadline = time.monotonic() + seconds
    _call.budget = MAX_READ_BYTES
    _call.sent = False


def was_sent() -> bool:
    """Whether any byte of this thread's last attempt may have left."""
    return _call.sent


def _left() -> float:
    left = _call.deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline of the call has passed")
    return left


class _Raw(io.RawIOBase):
    """A socket's reading end that stays within the call's deadline and budget."""

    def __init__(self, raw: socket.SocketIO, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left())
        read = self._raw.readinto(buffer)
        _call.budget -= read or 0
        if _call.budget < 0:
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

    def request(self, *args: Any, **kwargs: Any) -> None:
        _call.sent = False
        _left()
        super().request(*args, **kwargs)

    def connect(self) -> None:
        _call.sent = False
        self.timeout = min(self.timeout or _left(), _left())
        super().connect()

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        _left()  # connecting may take longer than it was given: looking the host up has a clock of its own
        _call.sent = True
        super().send(data)


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
