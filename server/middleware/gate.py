"""What must happen before routing: unknown paths and methods are refused.

Starlette is lenient where a payment API must not be: it redirects a trailing slash to a URL made from
the Host header, and matches a path that ends in a newline. So it is the contract that routes. Behind this
gate a request has a path and a method of the contract, or of what is served beside it.
"""

from connexion.middleware.abstract import ROUTING_CONTEXT
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers import health
from handlers.contract import HANDLERS, OPERATION, Contract, Operation
from handlers.problems import Code, Problem


class Gate:
    """ASGI middleware; everything it refuses, it raises as `Problem`."""

    def __init__(self, app: ASGIApp, contract: Contract) -> None:
        self._app = app
        self._contract = contract
        base = contract.base_path
        self._beside = {"/", f"{base}/openapi.json", f"{base}/openapi.yaml", f"{base}/ui", *health.PATHS}
        self._ui = f"{base}/ui/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            operation: Operation | None = scope.get(OPERATION)
            if operation is None:
                self._admit(scope["path"], scope["method"])
                scope = _without_range(scope)
            scope["extensions"] = {ROUTING_CONTEXT: self._routing(operation)}
        await self._app(scope, receive, send)

    def _routing(self, operation: Operation | None) -> dict[str, str | None]:
        """What Connexion's router would find, for those of its middlewares that stand behind this."""
        if operation is None:
            return {"api_base_path": None, "operation_id": None}
        return {"api_base_path": self._contract.base_path, "operation_id": f"{HANDLERS}.{operation.id}"}

    def _admit(self, path: str, method: str) -> None:
        operations, _ = self._contract.operations_at(path)
        if operations:
            raise Problem(Code.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(sorted(operations))})
        if not (path.isprintable() and (path in self._beside or path.startswith(self._ui))):
            raise Problem(Code.NOT_FOUND)
        if method not in {"GET", "HEAD"}:
            raise Problem(Code.METHOD_NOT_ALLOWED)


def _without_range(scope: Scope) -> Scope:
    """The UI's files are small, and Starlette answers a wrong range in a shape of its own."""
    return {**scope, "headers": [header for header in scope["headers"] if header[0] not in {b"range", b"if-range"}]}
