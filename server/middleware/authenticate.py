"""Who calls: a request for an operation that needs a key is a merchant's, or is refused."""

from starlette.types import ASGIApp, Receive, Scope, Send

import merchants
from handlers.contract import OPERATION, Operation
from handlers.problems import Code, Problem
from telemetry import request_context


class Keys:
    """ASGI middleware; for the contract's security scheme."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation: Operation | None = scope.get(OPERATION)
        if operation is not None and operation.needs_key:
            request_context.now().merchant = _merchant_of(scope)
        await self._app(scope, receive, send)


def _merchant_of(scope: Scope) -> str:
    if merchants.is_open():
        return merchants.NOBODY_IN_PARTICULAR
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    # A header that stands twice says two things.
    scheme, _, key = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
    merchant = merchants.merchant_of(key.strip(" ")) if scheme.lower() == "bearer" else None
    if merchant is None:
        raise Problem(Code.UNAUTHORIZED)
    return merchant
