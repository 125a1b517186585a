"""Serving an app: the socket that it listens on, and uvicorn with its limits."""

import contextlib
import ctypes
import logging
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import uvicorn
import uvloop
from uvicorn.supervisors import Multiprocess

import store
from config import Config, ConfigError
from handlers.body import BODY_TIMEOUT_S
from server.connections import FILES_PER_STORE_CONNECTION, Clients, Connections, files_left
from server.listener import Listener
from server.protocol import Protocol

log = logging.getLogger("gateway.workers")

# Seconds that a payment in progress may need at a stop, in addition to the time for its body and for the bank: it is
# recorded, within store.WAIT_S, and answered.
SETTLE_S: Final = 6

# Seconds that a connection may be idle between two requests. This is longer than in deploy/nginx.conf, so nginx closes
# idle connections, and the gateway never closes one while nginx sends a payment on it.
KEEP_ALIVE_S: Final = 20

# Seconds after which a worker that does not respond is replaced. It does not respond while it starts, which takes ten
# times as long as usual on a busy machine; uvicorn's own 5 s would kill each worker before it has started.
WORKER_START_S: Final = 30

# The most connections of a process where MAX_CONNECTIONS is unset: about 200 MB.
MAX_CONNECTIONS: Final = 10_000

# The option of prctl(2) that says whether a process leaves a core dump.
_PR_SET_DUMPABLE: Final = 4


class Loop(uvloop.Loop):
    """uvloop's event loop, whose servers accept connections by `Listener`."""

    async def create_server(self, *arguments: Any, **options: Any) -> Any:
        """Serve the connections of a listening socket, as uvicorn asks for it."""
        (make_protocol,) = arguments
        return Listener(options["sock"], make_protocol, options["ssl"])


class Server(uvicorn.Server):
    """uvicorn's server, which awaits a function once it listens."""

    def __init__(self, options: uvicorn.Config, listening: Callable[[uvicorn.Server], Any]) -> None:
        super().__init__(options)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await self._listening(self)


class Workers(Multiprocess):
    """uvicorn's supervisor of the workers, which logs what becomes of them."""

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have ended or hang."""
        for process in self.processes:
            process.child_conn.close()  # a worker that ends while it is asked then counts as ended at once
        before = list(self.processes)
        super().keep_subprocess_alive()
        for old, new in zip(before, self.processes, strict=True):
            if new is not old:
                log.error("worker %d has ended (%s), and worker %d replaces it", old.pid, _end(old.exitcode), new.pid)

    def terminate_all(self) -> None:
        """Stop the workers, and stop listening.

        Each worker has the listening socket until it stops to accept connections. The supervisor accepts none, so with
        its own copy open, connections that are made after that would wait in vain until the last payment is answered.
        """
        log.info("process %d begins to stop its %d workers", os.getpid(), len(self.processes))
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Wait until the workers have stopped."""
        super().join_all()
        log.info("process %d has stopped, and so have its workers", os.getpid())


def _end(exitcode: int | None) -> str:
    """Return in words how a process ended, from the exit status that multiprocessing gives it."""
    if exitcode is None or exitcode >= 0:
        return f"exit status {exitcode}"
    return signal.Signals(-exitcode).name


def serve(config: Config, app: Any, listener: socket.socket, listening: Callable[[uvicorn.Server], Any]) -> None:
    """Serve `app` in this process until a signal ends it; `listening` is awaited once it accepts connections."""
    Server(_options(config, app), listening).run(sockets=[listener])


def serve_workers(config: Config, factory: str, listener: socket.socket) -> None:
    """Serve the app that `factory` (MODULE:FUNCTION) makes in each of WORKERS processes, until a signal ends it."""
    Workers(_options(config, factory), sockets=[listener]).run()


def connection_limit(config: Config) -> int:
    """Return how many connections a process may have. Raises `ConfigError` if too few files may be open.

    The files of the bank's and the store's connections are kept in reserve, so that no client takes them.
    """
    bank = config.bank_concurrency * (2 if config.simulates_bank() else 1)  # the simulator has the other ends
    left = files_left(bank + store.CONNECTIONS * FILES_PER_STORE_CONNECTION)
    if left < 1:
        raise ConfigError(
            f"BANK_CONCURRENCY is {config.bank_concurrency}, and the limit of open files is too low for it"
        )
    return min(left, config.max_connections or MAX_CONNECTIONS)


def _options(config: Config, app: Any) -> uvicorn.Config:
    limit = connection_limit(config)
    connections = Connections(limit, config.max_connections_per_client, Clients(config.trusted_proxies))
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=config.workers,
        loop="server.uvicorn_server:Loop",
        http=partial(Protocol, connections=connections),  # type: ignore[arg-type]  # called like the class
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_worker_healthcheck=WORKER_START_S,
        timeout_graceful_shutdown=math.ceil(
            BODY_TIMEOUT_S + config.bank_connect_timeout_s + config.bank_timeout_s + SETTLE_S
        ),
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, or exit with one line that gives the reason."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except UnicodeError:
        sys.exit(f"can't listen on HOST {host}: it is not a host name")
    except OSError as error:
        sys.exit(f"can't listen on HOST {host}, PORT {port}: {reason(error)}")


def reason(error: OSError) -> str:
    """Return the system's reason, without what Python appends in parentheses."""
    return str(error.strerror).partition(" (")[0]


def raise_file_limit() -> None:
    """Raise the limit of open files to the user's maximum: each connection is one, and the usual limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def forbid_core_dumps() -> None:
    """Never write this process's memory to a disk: it holds the cards of running requests (PCI DSS 3.3.1).

    Linux ignores the limit where a program collects core dumps. A process that is not dumpable leaves none there
    either, and only root can attach a debugger to it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
