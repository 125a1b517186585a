"""One deadline for a whole HTTP call, and whether any of the request was sent.

`requests` limits the wait for each piece of a reply, not the whole call: a bank that sends one byte a second keeps
a call open forever. Its exceptions do not say whether any of the request was sent. Both are known at the connection,
so urllib3's connection classes use the socket of this module, `_Socket`: it sends and reads until the deadline only,
never blocks the event loop (bank/waiting.py), and notes when the first byte leaves. Name resolution, connecting and
the TLS handshake block, so they run in a thread.
"""

import asyncio
import io
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError

from bank import waiting

R = TypeVar("R")

# What one call may read in total, retries and the bodies of 503 replies included.
MAX_READ_BYTES: Final = 512 * 1024

_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(slots=True)
class _Call:
    deadline: float
    threads: Executor
    unread_bytes: int = MAX_READ_BYTES
    sent: bool = False


_call: Final[ContextVar[_Call]] = ContextVar("call")


def start(seconds: float, threads: Executor) -> None:
    """Start a call in this context: it ends `seconds` from now, retries included, and connects in `threads`."""
    _call.set(_Call(time.monotonic() + seconds, threads))


def was_sent() -> bool:
    """Return whether any byte of this context's last attempt may have left."""
    return _call.get().sent


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

    def request(self, *args: Any, **kwargs: Any) -> None:
        # urllib3 starts another attempt only when the bank certainly did not process the one before.
        _call.get().sent = False
        left_s()
        super().request(*args, **kwargs)
        self.sock.flush()

    def connect(self) -> None:
        _call.get().sent = False
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
        self._unsent = b""

    def sendall(self, data: bytes) -> None:
        """Keep `data` for `flush`, so that head and body leave in one packet."""
        self._unsent += data

    def flush(self) -> None:
        """Send what was kept. From the first byte on, the bank may process the request."""
        left_s()
        _call.get().sent = True
        while self._unsent:
            sent = _when_ready(self._sock, partial(self._sock.send, self._unsent), to_read=False)
            self._unsent = self._unsent[sent:]

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb", mode
        return io.BufferedReader(_Reader(self._sock))

    def settimeout(self, _seconds: float | None) -> None:
        """Do nothing: the deadline counts, and a timeout would make the socket block."""

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()


class _Reader(io.RawIOBase):
    """The reading end of a socket, within the call's deadline and its limit of bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._keeps_open = sock.makefile("rb", buffering=0)  # http.client may close the socket before this is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = _when_ready(self._sock, partial(self._sock.recv_into, buffer), to_read=True)
        call = _call.get()
        call.unread_bytes -= read
        if call.unread_bytes < 0:
            raise OSError("the reply is too large")
        return read

    def close(self) -> None:
        self._keeps_open.close()
        super().close()


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
