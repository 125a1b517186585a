"""What operators see of each request: its id on the response, its log line and its metrics.

A log line has the route, never the path or the query, which may contain a card number.
"""

import logging
import time
from functools import lru_cache
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers import health
from handlers.operations import Operation
from handlers.scope import ADDED_HEADERS, KEY, MERCHANT, OPERATION
from server.middleware.security_headers import SecurityHeaders
from telemetry import logs, metrics, request_context
from telemetry.request_context import RequestContext

log = logging.getLogger("gateway.observe")

# The metrics' label for requests that are not for an operation of the contract.
OTHER: Final = "other"

LEVELS: Final = {500: logging.ERROR, 503: logging.WARNING}


class Observe:
    """ASGI middleware around all others, so that it sees errors as they are answered."""

    def __init__(self, app: ASGIApp, security_headers: SecurityHeaders) -> None:
        self._app = app
        self._security_headers = security_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        context = request_context.begin(scope["headers"])

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = ((b"x-request-id", context.id.encode()), *scope.get(ADDED_HEADERS, ()))
                message["headers"] = [*message["headers"], *added, *self._security_headers.at(scope["path"])]
                note(context, scope, message["status"], time.perf_counter() - started)
            await send(message)

        token = request_context.current.set(context)
        try:
            await self._app(scope, receive, observed)
        finally:
            request_context.current.reset(token)


def note(context: RequestContext, scope: Scope, status: int, took_s: float) -> None:
    """Log and count a response. Never raises: a failure here must not change the answer to a payment."""
    try:
        operation, route = _names(scope)
        client = scope.get("client")  # address and port, None on a Unix socket
        _requests(operation or OTHER, status).inc()
        _seconds(operation or OTHER).observe(took_s)
        level = logging.DEBUG if route in health.PATHS else LEVELS.get(status, logging.INFO)
        logs.access(
            level,
            {
                "request_id": context.id,
                "client": client[0] if client else None,
                "merchant": scope.get(MERCHANT),
                "key": scope.get(KEY),
                "method": scope["method"],
                "operation": operation,
                "route": route,
                "status": status,
                "ms": round(took_s * 1000, 1),
                "bank_ms": None if context.bank_s is None else round(context.bank_s * 1000, 1),
                "payment_id": None if context.payment_id is None else str(context.payment_id),
                "outcome": context.outcome,
            },
        )
    except Exception as error:
        log.error("a response is not logged or counted: %s", type(error).__name__)


def _names(scope: Scope) -> tuple[str | None, str | None]:
    """Return the names of a request's operation and route; both are None outside the API and the health checks."""
    operation: Operation | None = scope.get(OPERATION)
    if operation is not None:
        return operation.id, operation.route
    path = scope["path"] if scope["path"] in health.PATHS else None
    return path, path


_requests = lru_cache(metrics.REQUESTS.labels)
_seconds = lru_cache(metrics.REQUEST_SECONDS.labels)
