"""Serving an app: the socket, TLS, limits on connections, and what is printed when it is ready."""

import contextlib
import ipaddress
import json
import logging
import math
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

import uvicorn
import uvloop
from uvicorn.supervisors import Multiprocess

import logs
from config import Config
from handlers.body import BODY_TIMEOUT_S
from handlers.protocol import Protocol

# What a payment in flight may still need when the gateway is told to stop, beyond the time for its
# body and for the bank: to be settled, for which the store has store.WAIT_S, and answered.
SETTLE_S: Final = 6

# How long a connection may idle between two requests: longer than deploy/nginx.conf keeps one, so that
# it is nginx which closes it, and never while it sends a payment.
KEEP_ALIVE_S: Final = 20

# A client says hello in TLS at once; asyncio would wait for a minute.
HANDSHAKE_TIMEOUT_S: Final = 10.0

log = logging.getLogger("gateway.server")


class Server(uvicorn.Server):
    """uvicorn's server, which calls back when it listens."""

    def __init__(self, options: uvicorn.Config, listening: Callable[[uvicorn.Server], Any]) -> None:
        super().__init__(options)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await self._listening(self)


class Loop(uvloop.Loop):
    """uvloop's event loop, with a bound on TLS handshakes, which uvicorn has no option for."""

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("ssl"):
            kwargs["ssl_handshake_timeout"] = HANDSHAKE_TIMEOUT_S
        return await super().create_server(*args, **kwargs)


def serve(config: Config, app: Any, listener: socket.socket, listening: Callable[[uvicorn.Server], Any]) -> None:
    """Serve `app` in this process until a signal ends it. `listening` is awaited when it can be called."""
    Server(_options(config, app), listening).run(sockets=[listener])


def serve_workers(config: Config, factory: str, listener: socket.socket) -> None:
    """Serve what `factory`, as MODULE:FUNCTION, makes in each of WORKERS processes, until a signal ends it."""
    Multiprocess(_options(config, factory), sockets=[listener]).run()


def _options(config: Config, app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=config.workers,
        loop="server:Loop",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(
            BODY_TIMEOUT_S + config.bank_connect_timeout_s + config.bank_timeout_s + SETTLE_S
        ),
    )


def listen(host: str, port: int) -> socket.socket:
    """Listen there, or exit with one line that says why not."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except UnicodeError:
        sys.exit(f"can't listen on HOST {host}: it is no host name")
    except OSError as error:
        sys.exit(f"can't listen on HOST {host}, PORT {port}: {why(error)}")


def why(error: OSError) -> str:
    """Say what is wrong; Python adds what it attempted, in brackets."""
    return str(error.strerror).partition(" (")[0]


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to this address or host name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return True  # nobody can, as `listen` will say
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def allow_connections() -> None:
    """Take as many open files as this user may have: a connection is one, and often 1024 is only the start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def url(config: Config, listener: socket.socket, path: str) -> str:
    """Return the URL of a path, as somebody on this machine can open it."""
    host, port = listener.getsockname()[:2]
    return at(host, port, path, scheme="https" if config.tls_cert else "http")


def at(host: str, port: int, path: str, scheme: str = "http") -> str:
    """Return a URL at an address that is listened on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # shown, not bound
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


def announce(config: Config, places: dict[str, str], example: str) -> None:
    """Say on standard output that it is ready, and where everything is; as JSON if that is how it logs."""
    if logs.is_json(config.log_format):
        line = {"message": "ready", **{name.lower(): place for name, place in places.items()}}
        print(json.dumps(line), flush=True)
        return
    lines = [f"  {name:<7} {place}" for name, place in places.items()]
    print("\n".join(["Payment gateway", *lines, "", "Try:", f"  {example}"]), flush=True)
