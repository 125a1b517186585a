"""What is seen of each request from inside: its id on the answer, its log line, its metrics.

A log line names the route, never a path or a query, which may hold anything, a card number too.
"""

import logging
import time
from functools import lru_cache
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers import health
from handlers.contract import OPERATION, Contract
from server import overload
from server.middleware.security_headers import SecurityHeaders
from telemetry import logs, metrics, request_context
from telemetry.request_context import RequestContext

# What requests are counted as that are none of the contract's.
OTHER: Final = "other"

LEVELS: Final = {500: logging.ERROR, 503: logging.WARNING}


class Observe:
    """ASGI middleware, outermost, so that it sees errors as they are answered."""

    def __init__(self, app: ASGIApp, contract: Contract, security_headers: SecurityHeaders) -> None:
        self._app = app
        self._contract = contract
        self._security_headers = security_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        overload.leave(scope)
        started = time.perf_counter()
        serving = request_context.begin(scope["headers"])
        operations, parameters = self._contract.operations_at(scope["path"])
        operation = operations.get(scope["method"])
        if operation is not None:
            scope[OPERATION], scope["path_params"] = operation, parameters
            serving.operation, serving.route = operation.id, operation.route
        elif scope["path"] in health.PATHS:
            serving.operation = serving.route = scope["path"]

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                identity = (b"x-request-id", serving.id.encode())
                message["headers"] = [*message["headers"], identity, *self._security_headers.at(scope["path"])]
                note(serving, scope["method"], message["status"], time.perf_counter() - started)
            await send(message)

        serving_now = request_context.current.set(serving)
        try:
            await self._app(scope, receive, observed)
        finally:
            request_context.current.reset(serving_now)


def note(serving: RequestContext, method: str | None, status: int, took_s: float) -> None:
    """Log and count an answer."""
    operation = serving.operation or OTHER
    _requests(operation, status).inc()
    _seconds(operation).observe(took_s)
    level = logging.DEBUG if serving.route in health.PATHS else LEVELS.get(status, logging.INFO)
    logs.answered(level, _facts(serving, method, status, took_s))


_requests = lru_cache(metrics.REQUESTS.labels)
_seconds = lru_cache(metrics.REQUEST_SECONDS.labels)


def _facts(serving: RequestContext, method: str | None, status: int, took_s: float) -> dict[str, Any]:
    return {
        "request_id": serving.id,
        "merchant": serving.merchant,
        "method": method,
        "operation": serving.operation,
        "route": serving.route,
        "status": status,
        "ms": round(took_s * 1000, 1),
        "bank_ms": None if serving.bank_s is None else round(serving.bank_s * 1000, 1),
        "payment_id": None if serving.payment_id is None else str(serving.payment_id),
        "outcome": serving.outcome,
    }
