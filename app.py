"""The composition root: `create_app(config)` creates all parts of the gateway and connects them."""

import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

# Connexion imports Starlette's test client, which warns at every start about the httpx that it finds.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

from connexion import AsyncApp
from connexion.exceptions import ProblemException
from connexion.resolver import RelativeResolver, Resolver
from starlette.exceptions import HTTPException

import bank
import store
from config import Config
from handlers import catalog, problems
from handlers import contract as contracts
from handlers.contract import HANDLERS, Contract
from handlers.health import Health
from merchants import Merchants
from server import middleware
from server.admission import Admission
from server.lifespan import lifespan
from server.middleware.rate_limit import RateLimiter
from server.start import Gateway


def today_utc() -> date:
    """Return the current date in UTC, which decides whether a card has expired."""
    return datetime.now(UTC).date()


def create_app(
    config: Config,
    *,
    today: Callable[[], date] = today_utc,
    may_be_open: bool = True,
    document: Mapping[str, Any] | None = None,
    resolver: Resolver | None = None,
) -> Gateway:
    """Create a gateway. `config.bank_url` must be the URL of a bank, or the `bank_url` of a simulator.

    may_be_open: whether every caller is accepted while there are no API keys
    document, resolver: for tests, a contract in place of the file, and the functions for its operationIds
    Raises `ConfigError`, `UnsupportedContract`, `store.StoreMismatch` and `store.StoreUnavailable`.
    """
    assert config.bank_url is not None
    merchants = Merchants(config.api_keys, may_be_open=may_be_open)
    contract = Contract(
        config.supported_currencies, today, merchants.is_open, simulator=config.simulates_bank(), document=document
    )
    health = Health(simulator=config.simulates_bank())
    most_of = partial(merchants.most_of, share=config.merchant_share)
    admission = Admission(config.bank_concurrency, config.bank_queue, most_of)
    endpoints = {
        **contracts.endpoints(contract),
        **catalog.endpoints(contract.base_path),
        **health.endpoints(),
    }
    limiter = RateLimiter(config.rate_limit, config.rate_limit_store)
    chain = middleware.ordered(config, contract, endpoints, merchants, admission, limiter=limiter)
    configure_bank(config, most_of)
    store.configure(
        config.store_url,
        fingerprint_key=config.fingerprint_key,
        old_fingerprint_keys=config.fingerprint_old_keys,
        durable=config.store_durability == "full",
    )
    app = AsyncApp(
        "run",
        lifespan=partial(lifespan, merchants, limiter, health, config.drain_s, config.retention_days),
        middlewares=chain,
        resolver=resolver or RelativeResolver(HANDLERS),
    )
    app.add_api(contract.document)
    for error in (ProblemException, HTTPException, Exception):
        app.add_error_handler(error, problems.render)
    return Gateway(app, contract, merchants)


def configure_bank(config: Config, most_of: Callable[[int], int]) -> None:
    """Configure the bank at BANK_URL. Raises `ConfigError`.

    most_of: returns how many of a number of slots one merchant may hold
    """
    assert config.bank_url is not None
    bank.configure(
        config.bank_url,
        connect_timeout_s=config.bank_connect_timeout_s,
        timeout_s=config.bank_timeout_s,
        retries=config.bank_retries,
        concurrency=config.bank_concurrency,
        breaker_failures=config.breaker_failures,
        breaker_open_s=config.breaker_open_s,
        most_of=most_of,
        ca_file=config.bank_ca_file,
        client_cert=config.bank_client_cert,
    )
