"""Authentication: the merchant that the request's API key belongs to, or a 401."""

from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.operations import Operation
from handlers.problems import Code, Problem
from handlers.scope import KEY, MERCHANT, OPERATION
from merchants import DEFAULT_MERCHANT, Merchants
from store import ApiKey


class Authenticate:
    """ASGI middleware for the contract's security scheme; it puts the merchant and the id of the key into the scope."""

    def __init__(self, app: ASGIApp, merchants: Merchants) -> None:
        self._app = app
        self._merchants = merchants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation: Operation | None = scope.get(OPERATION)
        if operation is not None:
            needs_key = operation.needs_key and not self._merchants.is_open()
            if needs_key:
                key = self._key(scope)
                scope[MERCHANT], scope[KEY] = key.merchant, key.id
            else:
                scope[MERCHANT] = DEFAULT_MERCHANT
        await self._app(scope, receive, send)

    def _key(self, scope: Scope) -> ApiKey:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        # A repeated header is ambiguous; reject it.
        scheme, _, key = sent[0].decode("latin-1").partition(" ") if len(sent) == 1 else ("", "", "")
        known = self._merchants.authenticate(key.strip(" ")) if scheme.lower() == "bearer" else None
        if known is None:
            raise Problem(Code.UNAUTHORIZED)
        return known
