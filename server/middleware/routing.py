"""Routing: the one place where a request's path and method are looked up.

Starlette's router is too lenient for a payment API: it redirects a trailing slash to a URL made from the Host header,
and matches a path that ends in a newline. This middleware puts the operation of the contract, or the endpoint outside
the contract, into the request's scope.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

from connexion.http_facts import METHODS
from connexion.middleware import SpecMiddleware
from connexion.resolver import Resolver
from connexion.spec import Specification
from connexion.utils import sort_routes
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract import Contract, Endpoint
from handlers.operations import Operation
from handlers.problems import Code, Problem
from handlers.scope import ENDPOINT, OPERATION

log = logging.getLogger("gateway.contract")


class Routing(SpecMiddleware):
    """ASGI middleware; it raises `Problem` for an unknown path or method.

    endpoints: the endpoints outside the contract, by path
    """

    def __init__(self, app: ASGIApp, contract: Contract, endpoints: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._contract = contract
        self._endpoints = endpoints
        self._ui = f"{contract.base_path}/ui/"
        self._fixed: dict[str, dict[str, Operation]] = {}
        self._templates: list[tuple[re.Pattern[str], list[str], dict[str, Operation]]] = []

    def add_api(self, specification: Specification, *, resolver: Resolver, **_: Any) -> None:
        """Prepare the operations; Connexion calls this before the first request."""
        for path in sort_routes(list(specification["paths"])):
            route = self._contract.base_path + path
            operations = {
                method.upper(): self._operation(specification, path, method, resolver)
                for method in METHODS & specification["paths"][path].keys()
            }
            if "GET" in operations:
                operations.setdefault("HEAD", operations["GET"])
            if "{" in path:
                names = re.findall(r"\{([^}]+)\}", route)
                self._templates.append((_pattern(route), names, operations))
            else:
                self._fixed[route] = operations

    def _operation(self, specification: Specification, path: str, method: str, resolver: Resolver) -> Operation:
        try:
            operation = specification.operation_cls.from_spec(
                specification, path=path, method=method, resolver=resolver
            )
            return Operation(operation, self._contract.base_path + path, self._contract)
        except Exception as error:  # of the contract's text, so the message holds no card number
            log.error("the contract's operation %s %s can't be served: %s", method.upper(), path, error)
            raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path, method = scope["path"], scope["method"]
            operations, parameters = self._at(path)
            if operations:
                if method not in operations:
                    raise Problem(Code.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(sorted(operations))})
                scope[OPERATION], scope["path_params"] = operations[method], parameters
            else:
                self._route_outside(scope, path, method)
        await self._app(scope, receive, send)

    def _at(self, path: str) -> tuple[dict[str, Operation], dict[str, str]]:
        """Return a path's operations by method, and its parameters; both empty when the contract has no such path."""
        if path in self._fixed:
            return self._fixed[path], {}
        if path.isprintable():
            for pattern, names, operations in self._templates:
                if found := pattern.fullmatch(path):
                    return operations, dict(zip(names, found.groups(), strict=True))
        return {}, {}

    def _route_outside(self, scope: Scope, path: str, method: str) -> None:
        if path in self._endpoints:
            scope[ENDPOINT] = self._endpoints[path]
        elif not (path.isprintable() and path.startswith(self._ui)):
            raise Problem(Code.NOT_FOUND)
        if method not in {"GET", "HEAD"}:
            raise Problem(Code.METHOD_NOT_ALLOWED)
        # Ignore Range: the UI's files are small, and Starlette's answer to an invalid one is not a problem document.
        scope["headers"] = [header for header in scope["headers"] if header[0] not in {b"range", b"if-range"}]


def _pattern(route: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]+\}", route)
    return re.compile("([^/]+)".join(re.escape(part) for part in parts))
