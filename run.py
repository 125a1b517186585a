"""The command line, and the composition root: `create_app(config)` wires everything together.

Start the gateway with `python run.py`; `python run.py --help` lists every setting.
"""

import argparse
import asyncio
import contextlib
import getpass
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import uvicorn
from connexion import AsyncApp
from connexion.datastructures import MediaTypeDict
from connexion.exceptions import ProblemException
from connexion.middleware import MiddlewarePosition
from connexion.options import SwaggerUIOptions
from connexion.resolver import RelativeResolver
from starlette.exceptions import HTTPException

import access
import bank
import config as configuration
import control
import idempotency
import logs
import metrics
import operate
import payments
import resolver
import server
import store
from bank.simulator import Simulator
from config import Config, ConfigError
from handlers import cors, health, problems
from handlers.body import Body
from handlers.contract import Contract, serve
from handlers.gate import Gate
from handlers.headers import SecurityHeaders
from handlers.keys import BearerKey
from handlers.observe import Observe
from handlers.rate_limit import RateLimit
from handlers.validation import BodyValidator, ParameterValidator
from settings import SETTINGS


def today_utc() -> date:
    """Return the current date in UTC, by which cards expire."""
    return datetime.now(UTC).date()


def create_app(
    config: Config,
    *,
    today: Callable[[], date] = today_utc,
    validate_responses: bool = False,
    may_be_open: bool = True,
) -> AsyncApp:
    """Wire the gateway together. `config.bank_url` must be set: main() starts the simulator.

    validate_responses: for tests; in production a response that broke the contract would turn a payment
        that was made into a 500
    may_be_open: whether everybody is let in as long as there are no API keys
    """
    assert config.bank_url is not None
    contract = Contract(config.supported_currencies, today, access.is_open)
    bank.configure(
        config.bank_url,
        connect_timeout_s=config.bank_connect_timeout_s,
        timeout_s=config.bank_timeout_s,
        retries=config.bank_retries,
        concurrency=config.bank_concurrency,
        queue=config.bank_queue,
        breaker_failures=config.breaker_failures,
        breaker_open_s=config.breaker_open_s,
        ca_file=config.bank_ca_file,
        client_cert=config.bank_client_cert,
    )
    open_store(config)
    access.configure(config.api_keys, may_be_open=may_be_open)
    app = AsyncApp(
        "run",
        lifespan=partial(_lifespan, config),
        resolver=RelativeResolver("handlers.payments"),
        swagger_ui_options=SwaggerUIOptions(serve_spec=False, swagger_ui_config={"displayRequestDuration": True}),
        validate_responses=validate_responses,
        security_map={"bearer": BearerKey},
        validator_map={
            "body": MediaTypeDict({"*/*json": partial(BodyValidator, contract=contract)}),
            "parameter": partial(ParameterValidator, contract=contract),
        },
    )
    app.add_api(contract.document)
    _add_middlewares(app, config, contract)
    for error in (ProblemException, HTTPException, Exception):
        app.add_error_handler(error, problems.render)
    serve(app, contract)
    health.serve(app)
    return app


def _add_middlewares(app: AsyncApp, config: Config, contract: Contract) -> None:
    """In the order in which a request meets them; Connexion's check of keys stands between Gate and RateLimit."""
    outside, inside = MiddlewarePosition.BEFORE_EXCEPTION, MiddlewarePosition.BEFORE_VALIDATION
    headers = SecurityHeaders(f"{contract.base_path}/ui/", https=config.tls_cert is not None)
    app.add_middleware(Observe, position=outside, contract=contract, security_headers=headers)
    if config.cors_origins:
        app.add_middleware(
            cors.Cors,
            position=outside,
            allow_origins=config.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=cors.SENT,
            expose_headers=cors.SHOWN,
        )
    app.add_middleware(Gate, position=MiddlewarePosition.BEFORE_SWAGGER, contract=contract)
    if config.rate_limit:
        app.add_middleware(RateLimit, position=inside, items=config.rate_limit, store_url=config.rate_limit_store)
    app.add_middleware(Body, position=inside)


def open_store(config: Config, *, create: bool = True) -> None:
    """Open the store, and make its tables if told so. Raises `store.StoreMismatch` and `store.StoreUnavailable`."""
    idempotency.configure(config.fingerprint_key)
    store.configure(config.store_url, key_check=idempotency.key_check(), create=create)


@contextlib.asynccontextmanager
async def _lifespan(config: Config, _app: object) -> AsyncIterator[None]:
    health.configure(stopping=False)
    _drain_on_sigterm(config.drain_s)
    await access.refresh()
    tasks = [asyncio.create_task(resolver.run()), asyncio.create_task(access.run())]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await payments.close()
    await asyncio.to_thread(bank.close)
    store.close()


def _drain_on_sigterm(drain_s: float) -> None:
    """Be unready from SIGTERM on, and only `drain_s` later stop as uvicorn does."""
    if threading.current_thread() is not threading.main_thread():
        return  # a test that serves in a thread
    loop, stop = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    def drain(*caught: Any) -> None:
        health.configure(stopping=True)
        if callable(stop):
            loop.call_soon_threadsafe(loop.call_later, drain_s, stop, *caught)

    signal.signal(signal.SIGTERM, drain)


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
    logs.close()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _operate(config: Config, options: argparse.Namespace) -> int:
    operator = getpass.getuser()
    access.configure(config.api_keys)
    if config.store_url == store.MEMORY:
        status, text = _operate_in_memory(config, options, operator)
    else:
        # The first key may be made before the first gateway starts: it may need one.
        open_store(config, create=options.command == "keys")
        status, text = asyncio.run(operate.run(options, operator, live=config.bank_url is not None))
        store.close()
    print(text, file=sys.stderr if status else sys.stdout)
    return status


def _operate_in_memory(config: Config, options: argparse.Namespace, operator: str) -> tuple[int, str]:
    try:
        return control.send(config.port, sys.argv[1:], operator)
    except OSError:
        if options.command == "keys" and options.keys == "create":  # for API_KEYS
            return asyncio.run(operate.run(options, operator, live=config.bank_url is not None))
        return 1, f"no gateway with payments in memory runs on PORT {config.port}"


def worker() -> AsyncApp:
    """Make the app in a process that uvicorn started, from what main() handed on."""
    config = configuration.load()
    logs.configure(config.log_level, config.log_format)
    return create_app(config, may_be_open=server.is_loopback(config.host))


def _serve(config: Config, overrides: dict[str, str]) -> None:
    logs.configure(config.log_level, config.log_format)
    server.allow_connections()
    _check_who_may_call(config)
    listener = server.listen(config.host, config.port)
    with _bank(config) as bank_url, _metrics(config) as (metrics_url, workers_folder):
        places = _places(config, listener, bank_url, metrics_url)
        announce = partial(server.announce, config, places, _curl(config, places["API"]))
        if config.workers == 1:
            app = create_app(replace(config, bank_url=bank_url), may_be_open=server.is_loopback(config.host))
            server.serve(config, app, listener, partial(_listening, config, listener, announce))
        else:
            configuration.hand_on({**overrides, **workers_folder, "BANK_URL": bank_url})
            announce()
            server.serve_workers(config, "run:worker", listener)


def _check_who_may_call(config: Config) -> None:
    """Open the store for a moment, so that what is wrong is said once, and ask it for keys."""
    open_store(config)
    access.configure(config.api_keys)
    asyncio.run(access.refresh())
    store.close()
    if access.is_open() and not server.is_loopback(config.host):
        sys.exit(
            f"HOST {config.host} can be reached by others, and there are no API keys: make one with "
            "`run.py keys create MERCHANT`, or set API_KEYS, or let HOST be 127.0.0.1"
        )


@contextlib.contextmanager
def _bank(config: Config) -> Iterator[str]:
    """The bank's URL; without one, that of a simulator which runs as long as the gateway."""
    if config.bank_url is not None:
        yield config.bank_url
        return
    simulator = Simulator()
    simulator.start()
    try:
        yield simulator.url
    finally:
        simulator.stop()


@contextlib.contextmanager
def _metrics(config: Config) -> Iterator[tuple[str | None, dict[str, str]]]:
    """Serve /metrics, if told so; with several workers, from a folder that they are told of by a setting."""
    if config.metrics_port is None:
        yield None, {}
        return
    with tempfile.TemporaryDirectory(prefix="payment-gateway-metrics-") as folder:
        shared = folder if config.workers > 1 else None
        try:
            port = metrics.serve(config.host, config.metrics_port, shared)
        except OSError as error:
            sys.exit(f"can't listen on HOST {config.host}, METRICS_PORT {config.metrics_port}: {server.why(error)}")
        yield server.at(config.host, port, "/metrics"), {metrics.FOLDER_VARIABLE: folder} if shared else {}


async def _listening(
    config: Config, listener: socket.socket, announce: Callable[[], None], serving: uvicorn.Server
) -> None:
    """Take the operator's commands on payments in memory, and say that all is ready."""
    if config.store_url == store.MEMORY:
        with contextlib.suppress(OSError):  # without them the gateway still does what it is for
            port, live = listener.getsockname()[1], config.bank_url is not None
            serving.servers.append(await control.listen(port, operate.parser(SETTINGS), live=live))
    announce()


def _places(config: Config, listener: socket.socket, bank_url: str, metrics_url: str | None) -> dict[str, str]:
    base = _contract(config).base_path
    kind = "set by BANK_URL" if config.bank_url else "the built-in simulator: no money moves"
    places = {
        "API": server.url(config, listener, f"{base}/payments"),
        "UI": server.url(config, listener, f"{base}/ui/"),
        "Bank": f"{bank_url} ({kind})",
        "Store": config.store_url.partition(":")[0],
        "Keys": "none: open to everybody on this machine" if access.is_open() else "needed",
    }
    return places if metrics_url is None else {**places, "Metrics": metrics_url}


def _curl(config: Config, api: str) -> str:
    payment = json.dumps(_contract(config).document["components"]["examples"]["Authorized"]["value"])
    key = "" if access.is_open() else " -H 'Authorization: Bearer KEY'"
    return f"curl -i {api}{key} -H 'Content-Type: application/json' -d '{payment}'"


def _contract(config: Config) -> Contract:
    return Contract(config.supported_currencies, today_utc, access.is_open)


if __name__ == "__main__":
    main()
