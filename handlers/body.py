"""The body of a request before it is parsed: bounded, complete, and declared as plain JSON.

Connexion reads a body of any size, skips validation for `Application/JSON`, and takes a chunked body
for a missing one. This stands behind the check of API keys and the rate limit, and before validation.
"""

import asyncio
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from werkzeug.http import parse_options_header

from handlers.contract import OPERATION, Operation
from handlers.problems import Code, Problem

# A merchant's 300 bytes arrive in one packet; who takes longer than this is not sending a payment.
BODY_TIMEOUT_S: Final = 10.0


class Body:
    """ASGI middleware; everything it refuses, it raises as `Problem`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation: Operation | None = scope.get(OPERATION)
        if operation is not None and operation.max_body_bytes:
            _check_content_type(Headers(scope=scope), operation)
            body = await _read(Headers(scope=scope), receive, operation.max_body_bytes)
            scope, receive = _as_plain_json(scope, operation, body), _replay(body, receive)
        await self._app(scope, receive, send)


def _check_content_type(headers: Headers, operation: Operation) -> None:
    types = headers.getlist("content-type")
    media_type, options = parse_options_header(types[0] if len(types) == 1 else None)
    if (
        media_type.lower() not in operation.media_types
        or options.get("charset", "utf-8").lower() != "utf-8"
        or any(coding.lower() != "identity" for coding in headers.getlist("content-encoding"))
        or headers.get("transfer-encoding", "chunked").lower() != "chunked"
    ):
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE)


async def _read(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
    """Read the whole body; nothing of one that is declared too large."""
    too_large = Problem(Code.REQUEST_TOO_LARGE, f"The request's body is larger than {max_bytes} bytes.")
    if int(headers.get("content-length", 0)) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Problem(Code.MALFORMED_REQUEST)
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise too_large
                if not message.get("more_body", False):
                    break
    except (TimeoutError, asyncio.CancelledError):  # cancelled: the gateway stops and waits no longer
        raise Problem(Code.REQUEST_TIMEOUT, headers={"Connection": "close"}) from None
    if not body:
        raise Problem(Code.MALFORMED_JSON)
    return bytes(body)


def _as_plain_json(scope: Scope, operation: Operation, body: bytes) -> Scope:
    scope = {**scope, "headers": list(scope["headers"])}
    headers = MutableHeaders(scope=scope)
    headers["content-type"] = operation.media_types[0]
    headers["content-length"] = str(len(body))
    del headers["transfer-encoding"]
    return scope


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
