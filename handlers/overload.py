"""More payments than there is room for are refused here, as cheaply as can be.

Under three times the load that a gateway can carry, two of three requests end here: what they cost is
taken from the payments that are accepted. So this stands outside of Connexion and writes its answer by
itself, before the body is read and whoever asks.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

import bank
import exchange
import metrics
from handlers.contract import OPERATION, Operation
from handlers.problems import HEADERS, MEDIA_TYPE, PROBLEMS, Code, document


class Overload:
    """ASGI middleware. payments.py makes certain what is only likely here: that there is room."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation: Operation | None = scope.get(OPERATION)
        if operation is None or not operation.max_body_bytes or bank.has_room():
            await self._app(scope, receive, send)
            return
        metrics.SHED.inc()
        serving = exchange.now()
        serving.outcome = Code.OVERLOADED
        body = document(Code.OVERLOADED, serving.id)
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **HEADERS[Code.OVERLOADED]}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": PROBLEMS[Code.OVERLOADED].status, "headers": raw})
        await send({"type": "http.response.body", "body": body})
