"""The operations of the contract: a request is read, validated, handed to its function, and answered.

This stands where Connexion's routing, validation, context and application would, which build their
validators, parsers and decorators anew for each request: 1.2 of the 2.6 ms of CPU that a payment took
(bench/README.md). What an operation is, and which function its operationId names, Connexion says, once.
"""

import inspect
import json
from typing import Any

from connexion.http_facts import METHODS
from connexion.middleware import SpecMiddleware
from connexion.operations import AbstractOperation
from connexion.resolver import Resolver
from connexion.spec import Specification
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers import body
from handlers.contract import OPERATION, Contract, Operation
from handlers.validation import Rules
from telemetry import request_context


class Operations(SpecMiddleware):
    """ASGI middleware, which lets through what is none of them."""

    def __init__(self, app: ASGIApp, contract: Contract) -> None:
        self._app = app
        self._contract = contract
        self._calls: dict[str, _Call] = {}

    def add_api(self, specification: Specification, *, resolver: Resolver, **_: Any) -> None:
        """Prepare the operations; Connexion calls this before the first request."""
        for path, methods in specification["paths"].items():
            for method in METHODS & methods.keys():
                operation = specification.operation_cls.from_spec(
                    specification, path=path, method=method, resolver=resolver
                )
                self._calls[methods[method]["operationId"]] = _Call(operation, self._contract)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation: Operation | None = scope.get(OPERATION)
        if operation is None:
            await self._app(scope, receive, send)
        else:
            await self._calls[operation.id].answer(operation, scope, receive, send)


class _Call:
    """What is known of an operation before it is called."""

    def __init__(self, operation: AbstractOperation, contract: Contract) -> None:
        self._function = operation.function
        self._takes = inspect.signature(self._function).parameters.keys()
        self._headers = [p["name"] for p in operation.parameters if p["in"] == "header"]
        self._rules = Rules(contract, operation.parameters, operation.body_schema() or None)

    async def answer(self, operation: Operation, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        sent = body.parse(await body.read(headers, receive, operation)) if operation.max_body_bytes else None
        parameters = scope["path_params"] | self._sent(headers)
        self._rules.check(parameters, sent)
        arguments = {name.lower().replace("-", "_"): value for name, value in parameters.items()}
        arguments |= {"body": sent, "user": request_context.now().merchant}
        answer, status, more = await self._function(**{name: arguments.get(name) for name in self._takes})
        content = json.dumps(answer).encode()
        told = {"Content-Type": "application/json", "Content-Length": str(len(content)), **more}
        raw = [(name.lower().encode(), value.encode()) for name, value in told.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": content})

    def _sent(self, headers: Headers) -> dict[str, str]:
        # A header that stands twice says two things; joined by a NUL it fits no pattern.
        return {name: "\0".join(headers.getlist(name)).strip(" \t") for name in self._headers if name in headers}
