"""The command line, and the composition root: `create_app(config)` wires everything together.

Start the gateway with `python run.py`; `python run.py --help` lists every setting.
"""

import argparse
import asyncio
import contextlib
import getpass
import json
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Final

import uvicorn
from connexion import AsyncApp
from connexion.datastructures import MediaTypeDict
from connexion.exceptions import ProblemException
from connexion.middleware import MiddlewarePosition
from connexion.options import SwaggerUIOptions
from connexion.resolver import RelativeResolver
from starlette.exceptions import HTTPException
from uvicorn.supervisors import Multiprocess

import bank
import config as configuration
import control
import idempotency
import logs
import operate
import payments
import resolver
import store
from bank.simulator import Simulator
from config import SETTINGS, Config, ConfigError
from handlers import gate, problems
from handlers.access_log import AccessLog
from handlers.contract import Contract, serve
from handlers.protocol import Protocol
from handlers.validation import BodyValidator, ParameterValidator

# What a payment in flight may still need when the gateway is told to stop, beyond the time for its
# body and for the bank: to be settled, for which the store has store.WAIT_S, and answered.
SETTLE_S: Final = 6


def today_utc() -> date:
    """Return the current date in UTC, by which cards expire."""
    return datetime.now(UTC).date()


def create_app(config: Config, *, today: Callable[[], date] = today_utc, validate_responses: bool = False) -> AsyncApp:
    """Wire the gateway together. `config.bank_url` must be set: main() starts the simulator.

    `validate_responses` is for tests: in production a response that broke the contract would turn
    a payment that was made into a 500.
    """
    assert config.bank_url is not None
    contract = Contract(config.supported_currencies, today)
    bank.configure(
        config.bank_url,
        connect_timeout_s=config.bank_connect_timeout_s,
        timeout_s=config.bank_timeout_s,
        retries=config.bank_retries,
        concurrency=config.bank_concurrency,
    )
    open_store(config)
    app = AsyncApp(
        "run",
        lifespan=_lifespan,
        resolver=RelativeResolver("handlers.payments"),
        swagger_ui_options=SwaggerUIOptions(serve_spec=False, swagger_ui_config={"displayRequestDuration": True}),
        validate_responses=validate_responses,
        validator_map={
            "body": MediaTypeDict({"*/*json": partial(BodyValidator, contract=contract)}),
            "parameter": partial(ParameterValidator, contract=contract),
        },
    )
    app.add_api(contract.document)
    app.add_middleware(AccessLog, position=MiddlewarePosition.BEFORE_EXCEPTION, contract=contract)
    app.add_middleware(gate.Gate, position=MiddlewarePosition.BEFORE_SWAGGER, contract=contract)
    for error in (ProblemException, HTTPException, Exception):
        app.add_error_handler(error, problems.render)
    serve(app, contract)
    return app


def open_store(config: Config, *, create: bool = True) -> None:
    """Open the store, and make its tables if told so. Raises `store.StoreMismatch` and `store.StoreUnavailable`."""
    idempotency.configure(config.fingerprint_key)
    store.configure(config.store_url, key_check=idempotency.key_check(), create=create)


@contextlib.asynccontextmanager
async def _lifespan(_app: object) -> AsyncIterator[None]:
    resolving = asyncio.create_task(resolver.run())
    yield
    resolving.cancel()
    await asyncio.gather(resolving, return_exceptions=True)
    await payments.close()
    await asyncio.to_thread(bank.close)
    store.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready, and takes the operator's commands on payments in memory."""

    def __init__(self, options: uvicorn.Config, config: Config, ready: str) -> None:
        super().__init__(options)
        self._gateway = config
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._gateway.store_url == store.MEMORY and sockets:
            port = sockets[0].getsockname()[1]
            with contextlib.suppress(OSError):  # without them the gateway still does what it is for
                self.servers.append(await control.listen(port, operate.parser(SETTINGS)))
        print(self._ready, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._gateway.store_url == store.MEMORY and sockets:
            control.path_for(sockets[0].getsockname()[1]).unlink(missing_ok=True)
        await super().shutdown(sockets)


def main() -> None:
    """Do what the command line says; serve, when it says nothing."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        options = operate.parser(SETTINGS).parse_args()
        overrides = {name: value for name, value in vars(options).items() if name in SETTINGS and value is not None}
        try:
            config = configuration.load(overrides)
            if options.command is None:
                _serve(config, overrides)
            else:
                sys.exit(_operate(config, options))
        except ConfigError as error:
            sys.exit(str(error))
        except (store.StoreMismatch, store.StoreUnavailable) as error:
            sys.exit(f"STORE_URL can't be used: {error}")
    # Served and stopped. A thread that hangs in a call to a database which vanished would keep the process.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _operate(config: Config, options: argparse.Namespace) -> int:
    operator = getpass.getuser()
    if config.store_url == store.MEMORY:
        try:
            status, text = control.send(config.port, sys.argv[1:], operator)
        except OSError:
            status, text = 1, f"no gateway with payments in memory runs on PORT {config.port}"
    else:
        open_store(config, create=False)
        status, text = asyncio.run(operate.run(options, operator))
        store.close()
    print(text, file=sys.stderr if status else sys.stdout)
    return status


def worker() -> AsyncApp:
    """Make the app in a process that uvicorn started, from what main() handed on."""
    config = configuration.load()
    logs.configure(config.log_level)
    return create_app(config)


def _serve(config: Config, overrides: dict[str, str]) -> None:
    logs.configure(config.log_level)
    listener = _listen_or_exit(config.host, config.port)
    simulator = None
    bank_url = config.bank_url
    if bank_url is None:
        simulator = Simulator()
        simulator.start()
        bank_url = simulator.url
    ready = _ready(config, listener, bank_url, simulated=simulator is not None)
    try:
        if config.workers == 1:
            app = create_app(replace(config, bank_url=bank_url))
            _Server(_uvicorn(config, app), config, ready).run(sockets=[listener])
        else:
            open_store(config)  # once, before the workers do, so that what is wrong is said once
            store.close()
            configuration.hand_on({**overrides, "BANK_URL": bank_url})
            print(ready, flush=True)
            Multiprocess(_uvicorn(config, "run:worker"), sockets=[listener]).run()
    finally:
        if simulator is not None:
            simulator.stop()


def _uvicorn(config: Config, app: AsyncApp | str) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=config.workers,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(
            gate.BODY_TIMEOUT_S + config.bank_connect_timeout_s + config.bank_timeout_s + SETTLE_S
        ),
    )


def _listen_or_exit(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except UnicodeError:
        sys.exit(f"can't listen on HOST {host}: it is no host name")
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # Python adds what it attempted
        sys.exit(f"can't listen on HOST {host}, PORT {port}: {why}")


def _ready(config: Config, listener: socket.socket, bank_url: str, *, simulated: bool) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # shown, not bound
    contract = Contract(config.supported_currencies, today_utc)
    api = f"http://{f'[{host}]' if ':' in host else host}:{port}{contract.base_path}"
    payment = json.dumps(contract.document["components"]["examples"]["Authorized"]["value"])
    kind = "the built-in simulator: no money moves" if simulated else "set by BANK_URL"
    return f"""\
Payment gateway
  API   {api}/payments
  UI    {api}/ui/
  Bank  {bank_url} ({kind})
  Store {config.store_url.partition(":")[0]}

Try:
  curl -i {api}/payments -H 'Content-Type: application/json' -d '{payment}'
"""


if __name__ == "__main__":
    main()
