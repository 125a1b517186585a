"""The composition root: `create_app(config)` wires everything together. Tests call the same function."""

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from connexion import AsyncApp
from connexion.exceptions import ProblemException
from connexion.middleware.exceptions import ExceptionMiddleware
from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.response_validation import ResponseValidationMiddleware
from connexion.middleware.server_error import ServerErrorMiddleware
from connexion.middleware.swagger_ui import SwaggerUIMiddleware
from connexion.options import SwaggerUIOptions
from connexion.resolver import RelativeResolver
from starlette.exceptions import HTTPException

import bank
import store
from config import Config
from handlers import health, problems
from handlers.contract import HANDLERS, Contract, serve
from handlers.operations import Operations
from merchants import Merchants
from payments import resolver
from server import overload
from server.middleware import cors
from server.middleware.authenticate import Keys
from server.middleware.gate import Gate
from server.middleware.observe import Observe
from server.middleware.rate_limit import RateLimit
from server.middleware.security_headers import SecurityHeaders


def today_utc() -> date:
    """Return the current date in UTC, by which cards expire."""
    return datetime.now(UTC).date()


def create_app(
    config: Config,
    *,
    today: Callable[[], date] = today_utc,
    validate_responses: bool = False,
    merchants: Merchants | None = None,
) -> AsyncApp:
    """Wire the gateway together. `config.bank_url` must be set: main() starts the simulator.

    validate_responses: for tests; in production a response that broke the contract would turn a payment
        that was made into a 500
    merchants: those of API_KEYS, unless given
    """
    assert config.bank_url is not None
    merchants = merchants or Merchants(config.api_keys)
    contract = Contract(config.supported_currencies, today, merchants.is_open)
    overload.configure(contract)
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
    app = AsyncApp(
        "run",
        lifespan=partial(_lifespan, config, merchants),
        middlewares=_middlewares(config, contract, merchants, validate_responses=validate_responses),
        resolver=RelativeResolver(HANDLERS),
        swagger_ui_options=SwaggerUIOptions(serve_spec=False, swagger_ui_config={"displayRequestDuration": True}),
    )
    app.add_api(contract.document)
    for error in (ProblemException, HTTPException, Exception):
        app.add_error_handler(error, problems.render)
    serve(app, contract)
    health.serve(app)
    return app


def _middlewares(config: Config, contract: Contract, merchants: Merchants, *, validate_responses: bool) -> list[Any]:
    """In the order in which a request meets them."""
    headers = SecurityHeaders(f"{contract.base_path}/ui/", https=config.tls_cert is not None)
    chosen: list[tuple[Any, bool]] = [
        (ServerErrorMiddleware, True),
        (partial(Observe, contract=contract, security_headers=headers), True),
        (partial(cors.Cors, **cors.options(config.cors_origins)), bool(config.cors_origins)),
        (ExceptionMiddleware, True),
        (partial(Gate, contract=contract), True),
        (partial(Keys, merchants=merchants), True),
        (partial(RateLimit, items=config.rate_limit, store_url=config.rate_limit_store), bool(config.rate_limit)),
        (ResponseValidationMiddleware, validate_responses),
        (partial(Operations, contract=contract), True),
        (SwaggerUIMiddleware, True),
        (LifespanMiddleware, True),
    ]
    return [middleware for middleware, wanted in chosen if wanted]


def open_store(config: Config, *, create: bool = True) -> None:
    """Open the store, and make its tables if told so. Raises `store.StoreMismatch` and `store.StoreUnavailable`."""
    store.configure(config.store_url, fingerprint_key=config.fingerprint_key, create=create)


@contextlib.asynccontextmanager
async def _lifespan(config: Config, merchants: Merchants, _app: object) -> AsyncIterator[None]:
    health.configure(stopping=False)
    _drain_on_sigterm(config.drain_s)
    await merchants.refresh()
    # What is there now stays, and payments leave next to no cycles behind: to look for them after every 700
    # objects, as Python does, took 7 % of a payment's CPU, and more with more connections.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    tasks = [asyncio.create_task(resolver.run()), asyncio.create_task(merchants.run())]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.stop()
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
