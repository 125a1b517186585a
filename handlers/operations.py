"""The operations of the contract: a routed request is read, validated, and answered by its operation's function.

This replaces Connexion's own routing, security, validation and application at request time, which rebuild their
validators, parsers and decorators for each request (docs/decisions/operations.md). At the start Connexion still reads
the contract and finds the function for each operationId. `supported.py` refuses a contract with an element that neither
this module nor the middleware in front of it enforces.
"""

import inspect
from typing import Any

from connexion.operations import AbstractOperation
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers import body
from handlers.body import RequestBody
from handlers.contract import Contract
from handlers.parameters import BODY, ROUTE, USER, Parameters
from handlers.scope import ENDPOINT, MERCHANT, OPERATION, RESPONSE
from handlers.validation import Rules


class Operation:
    """One operation of the contract, prepared once for all of its requests.

    id: its operationId
    route: its path template, from the server's root
    needs_key: whether a request needs a merchant's API key
    has_body: whether requests have a body
    """

    def __init__(self, operation: AbstractOperation, route: str, contract: Contract) -> None:
        self.id = operation.operation_id.rpartition(".")[2]
        self.route = route
        self.needs_key = bool(operation.security)
        self.has_body = operation.is_request_body_defined
        self._function = operation.function
        self._takes = inspect.signature(self._function).parameters.keys()
        self._parameters = Parameters(operation.parameters)
        schema = operation.body_schema() if self.has_body else None
        self._body = _request_body(operation.request_body, schema) if schema is not None else None
        self._rules = Rules(contract, self._parameters.schema, self._parameters.names, schema)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read and validate the request, call the function and send its response. Raises `Problem`."""
        headers = Headers(scope=scope)
        content = await body.read(headers, receive, self._body) if self._body else body.NOT_SENT
        parameters = self._parameters.read(scope, headers)
        self._rules.check(parameters, content)
        values = {**self._parameters.defaults, **parameters}
        values |= {BODY: None if content is body.NOT_SENT else content, USER: scope[MERCHANT], ROUTE: self.route}
        response = await self._function(**{name: values.get(name) for name in self._takes})
        scope[RESPONSE] = response
        await response(scope, receive, send)


class Operations:
    """ASGI middleware that answers operations and endpoints; it passes the rest, which is the UI, on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if OPERATION in scope:
            await scope[OPERATION].answer(scope, receive, send)
        elif ENDPOINT in scope:
            response = await scope[ENDPOINT]()
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _request_body(definition: dict[str, Any], schema: dict[str, Any]) -> RequestBody:
    return RequestBody(
        required=definition.get("required", False),
        max_bytes=int(definition.get("x-max-bytes", body.MAX_BYTES)),
        default=schema.get("default", body.NOT_SENT),
    )
