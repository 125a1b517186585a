"""Who calls: a request for an operation that needs a key is a merchant's, or is refused."""

from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract import OPERATION, Operation
from handlers.problems import Code, Problem
from merchants import DEFAULT_MERCHANT, Merchants
from telemetry import request_context


class Keys:
    """ASGI middleware; for the contract's security scheme."""

    def __init__(self, app: ASGIApp, merchants: Merchants) -> None:
        self._app, self._merchants = app, merchants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation: Operation | None = scope.get(OPERATION)
        if operation is not None and operation.needs_key:
            request_context.now().merchant = _merchant_of(scope, self._merchants)
        await self._app(scope, receive, send)


def _merchant_of(scope: Scope, merchants: Merchants) -> str:
    if merchants.is_open():
        return DEFAULT_MERCHANT
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    # A header that stands twice says two things.
    scheme, _, key = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
    merchant = merchants.authenticate(key.strip(" ")) if scheme.lower() == "bearer" else None
    if merchant is None:
        raise Problem(Code.UNAUTHORIZED)
    return merchant
