"""Accepting connections: a few in each turn of the event loop, and none beyond the limits of `Connections`.

asyncio's own servers accept whatever comes, and tell nobody of a connection before its TLS handshake has ended.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from server.protocol import Protocol

# Connections that are accepted in one turn of the event loop: less than 1 ms of CPU.
AT_ONCE: Final = 8

# Seconds until the next attempt after the system could not accept.
PAUSE_S: Final = 0.1

# Seconds for a TLS handshake, and for the client's answer to a TLS close; asyncio's own are 60 and 30.
TLS_HANDSHAKE_TIMEOUT_S: Final = 10.0
TLS_SHUTDOWN_TIMEOUT_S: Final = 1.0


class Listener:
    """Serves the connections of a listening socket, as asyncio's `Server` does.

    make_protocol: makes the `Protocol` of a new connection
    """

    def __init__(
        self, listening: socket.socket, make_protocol: Callable[[], Protocol], context: ssl.SSLContext | None
    ) -> None:
        self._socket = listening
        self._socket.settimeout(0)
        self._make_protocol = make_protocol
        self._tls: dict[str, Any] = {}
        if context is not None:
            self._tls = {
                "ssl": context,
                "ssl_handshake_timeout": TLS_HANDSHAKE_TIMEOUT_S,
                "ssl_shutdown_timeout": TLS_SHUTDOWN_TIMEOUT_S,
            }
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Accept no more connections; those that are open stay."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    async def wait_closed(self) -> None:
        """Return at once: nothing is left to wait for."""

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no memory or file descriptor, of this process or of the machine
                self._loop.remove_reader(self._socket)
                self._loop.call_later(PAUSE_S, self._resume)
                return
            protocol = self._make_protocol()
            if protocol.admit(str(address[0])):
                self._open(connection, protocol)
            else:
                connection.close()

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._accept)

    def _open(self, connection: socket.socket, protocol: Protocol) -> None:
        connection.settimeout(0)
        opening = self._loop.connect_accepted_socket(lambda: protocol, connection, **self._tls)
        protocol.opening = self._loop.create_task(opening)
        protocol.opening.add_done_callback(partial(_opened, connection, protocol))


def _opened(connection: socket.socket, protocol: Protocol, opening: "asyncio.Task[Any]") -> None:
    """Forget a connection that was not made, because the handshake failed or the connection had to make room."""
    protocol.opening = None
    if opening.cancelled() or opening.exception() is not None or protocol.transport is None:
        connection.close()
        protocol.leave()
