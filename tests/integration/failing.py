"""run.py in which a request fails at the point that its X-Request-ID names: POINT or POINT.anything.

Each request fails once; when it does, standard error says `failed on purpose: ` and its X-Request-ID.
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from connexion.middleware.server_error import ServerErrorMiddleware

import store
from handlers import payments as operations
from handlers.operations import Operations
from payments import idempotency
from server import middleware
from server.middleware import observe
from telemetry import logs, metrics, request_context
from tests.contract import checked

_failed: set[str] = set()


def _fail_at(point: str, request_id: str | None = None) -> None:
    """Raise the first time that a request for this point comes here."""
    request_id = request_id or request_context.now().id
    if request_id.partition(".")[0] == point and request_id not in _failed:
        _failed.add(request_id)
        sys.stderr.write(f"failed on purpose: {request_id}\n")
        sys.stderr.flush()
        raise RuntimeError("on purpose")


def _failing_before(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **options: Any) -> Any:
        _fail_at(point)
        return function(*args, **options)

    return wrapped


def _failing_after(point: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def wrapped(*args: Any, **options: Any) -> Any:
        result = await function(*args, **options)
        _fail_at(point)
        return result

    return wrapped


class _FailingToSend:
    """ASGI middleware that fails when a response starts, before it is passed on."""

    def __init__(self, app: Any, point: str) -> None:
        self._app, self._point = app, point

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request_id = dict(scope.get("headers", ())).get(b"x-request-id", b"").decode()

        async def failing(message: Any) -> None:
            if message["type"] == "http.response.start":
                _fail_at(self._point, request_id)
            await send(message)

        await self._app(scope, receive, failing)


def _failing_to_send(ordered: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Add the failing middleware around the errors and around the operations."""

    def with_failing(*args: Any, **options: Any) -> list[Any]:
        chain = ordered(*args, **options)
        chain.insert(chain.index(Operations), lambda app: _FailingToSend(app, "send-inner"))
        errors = next(place for place, made in enumerate(chain) if getattr(made, "func", None) is ServerErrorMiddleware)
        chain.insert(errors + 1, lambda app: _FailingToSend(app, "send-outer"))
        return chain

    return with_failing


for module, name, point in (
    (idempotency, "identify", "identify"),
    (store, "claim", "claim"),
    (store, "settle", "settle"),
    (store, "find", "find"),
    (metrics.PAYMENTS, "labels", "payment-metrics"),
    (operations, "_answer", "response"),
    (observe, "_requests", "request-metrics"),
    (logs, "access", "access-log"),
):
    setattr(module, name, _failing_before(point, getattr(module, name)))
setattr(store, "settle", _failing_after("settled", store.settle))  # noqa: B010  # mypy has functions fixed
setattr(middleware, "ordered", _failing_to_send(middleware.ordered))  # noqa: B010
checked.main()
