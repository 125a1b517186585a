"""ASGI middleware for tests: a response that breaks the contract becomes a 500.

Connexion's own response validation runs only behind Connexion's own routing, and does not see the responses of error
handlers. This one sees every response of the contract's operations, errors too.
"""

import json
import re
from typing import Any

import connexion.spec
from jsonschema import Draft4Validator, FormatChecker
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract import Contract

# Answers that any path may get before its operation is reached; the contract's operations do not list them.
UNLISTED = {403, 405}


class Checking:
    def __init__(self, app: ASGIApp, contract: Contract) -> None:
        self._app = app
        resolved = connexion.spec.Specification.from_dict(json.loads(contract.served_json()))
        self._operations = {
            (method.upper(), re.compile(contract.base_path + re.sub(r"\{[^}]+\}", "[^/]+", path))): item[method]
            for path, item in resolved["paths"].items()
            for method in item
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self._operation(scope) if scope["type"] == "http" else None
        if operation is None:
            await self._app(scope, receive, send)
            return
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, collect)
        broken = _broken(operation, messages)
        if broken:
            print(f"the contract is broken: {broken}", flush=True)
            messages[0]["status"] = 500
        for message in messages:
            await send(message)

    def _operation(self, scope: Scope) -> Any:
        for (method, path), operation in self._operations.items():
            if method == scope["method"] and path.fullmatch(scope["path"]):
                return operation
        return None


def _broken(operation: dict[str, Any], messages: list[Message]) -> str | None:
    start, *body = messages
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    listed = operation["responses"].get(str(start["status"]))
    if listed is None:
        return None if start["status"] in UNLISTED else f"status {start['status']} is not listed"
    missing = [name for name, header in listed["headers"].items() if header["required"] and name.lower() not in headers]
    if missing:
        return f"headers are missing: {missing}"
    content = listed["content"].get(headers["content-type"])
    if content is None:
        return f"media type {headers['content-type']} is not listed"
    sent = json.loads(b"".join(part.get("body", b"") for part in body))
    errors = list(Draft4Validator(content["schema"], format_checker=FormatChecker()).iter_errors(sent))
    return f"the body breaks {[list(error.schema_path) for error in errors]}" if errors else None
