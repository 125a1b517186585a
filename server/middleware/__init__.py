"""The middleware that every request passes, in order."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from connexion.middleware.exceptions import ExceptionMiddleware
from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.server_error import ServerErrorMiddleware

from config import Config
from handlers import problems
from handlers.contract import Contract, Endpoint
from handlers.operations import Operations
from merchants import Merchants
from server.admission import Admission, Admit
from server.middleware import cors
from server.middleware.authenticate import Authenticate
from server.middleware.forwarded import Forwarded
from server.middleware.hosts import Hosts
from server.middleware.observe import Observe
from server.middleware.pacing import Pacing
from server.middleware.rate_limit import RateLimit, RateLimiter
from server.middleware.routing import Routing
from server.middleware.security_headers import SecurityHeaders
from server.middleware.ui import Ui


def ordered(
    config: Config,
    contract: Contract,
    endpoints: Mapping[str, Endpoint],
    merchants: Merchants,
    admission: Admission,
    *,
    limiter: RateLimiter,
) -> list[Any]:
    """Return the middleware from the outermost to the innermost."""
    ui = f"{contract.base_path}/ui/"
    headers = SecurityHeaders(ui, https=config.tls_cert is not None)
    with_cors = partial(cors.Cors, **cors.options(config.cors_origins))
    routing = partial(Routing, contract=contract, endpoints=endpoints)
    hosts = {*config.allowed_hosts, config.host.lower(), f"[{config.host.lower()}]"}
    chosen: list[tuple[Any, bool]] = [
        # finds the client's address for the log
        (partial(Forwarded, proxies=config.trusted_proxies), bool(config.trusted_proxies)),
        (partial(Observe, security_headers=headers), True),  # logs, counts and marks every response
        (partial(Hosts, merchants=merchants, allowed=hosts), merchants.is_open()),  # no page may read any answer
        (partial(ServerErrorMiddleware, handler=problems.render), True),  # answers what fails in the two below
        (with_cors, bool(config.cors_origins)),  # pages can read refusals too, and preflights need no key
        (Pacing, True),  # delays refusals, so that those who are refused don't take the CPU from others
        (ExceptionMiddleware, True),  # turns what is raised below it into problem documents
        (routing, True),  # decides what is called, which everything below depends on
        (partial(Authenticate, merchants=merchants), True),  # refuses strangers before they cost more
        (partial(RateLimit, limiter=limiter), bool(config.rate_limit)),  # counts merchants, so after authentication
        (partial(Admit, admission=admission), True),  # before the body: a refusal must be cheap
        (Operations, True),  # answers everything but the UI
        (partial(Ui, path=ui), True),  # answers the UI
        (LifespanMiddleware, True),  # start and stop; Connexion expects it here
    ]
    return [middleware for middleware, wanted in chosen if wanted]
