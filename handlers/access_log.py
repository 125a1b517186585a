"""One line for each answer: method, operation, status and time. Never a path or a query, which
may hold anything, a card number too."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract import Contract

log = logging.getLogger("gateway.access")


class AccessLog:
    """ASGI middleware, outermost, so that it sees errors as they are answered."""

    def __init__(self, app: ASGIApp, contract: Contract) -> None:
        self._app = app
        self._contract = contract

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                operation = self._contract.operations_at(scope["path"]).get(scope["method"])
                log.info(
                    "%s %s %d %.1f ms",
                    scope["method"],
                    operation.id if operation else "-",
                    message["status"],
                    (time.perf_counter() - started) * 1000,
                )
            await send(message)

        await self._app(scope, receive, logged)
