"""The composition root: `create_app(config)` wires everything together. Tests call the same function."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from connexion import AsyncApp
from connexion.datastructures import MediaTypeDict
from connexion.exceptions import ProblemException
from connexion.middleware import MiddlewarePosition
from connexion.options import SwaggerUIOptions
from connexion.resolver import RelativeResolver
from starlette.exceptions import HTTPException

import access
import bank
import idempotency
import payments
import resolver
import store
from config import Config
from handlers import cors, health, overload, problems
from handlers.body import Body
from handlers.contract import Contract, serve
from handlers.gate import Gate
from handlers.headers import SecurityHeaders
from handlers.keys import BearerKey
from handlers.observe import Observe
from handlers.rate_limit import RateLimit
from handlers.validation import BodyValidator, ParameterValidator


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
