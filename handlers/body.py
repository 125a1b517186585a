"""The body of a request: bounded, complete, in time, declared as plain JSON, and parsed strictly."""

import asyncio
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import Receive
from werkzeug.http import parse_options_header

from bank import strict_json
from handlers.contract import Operation
from handlers.problems import Code, Problem

# A merchant's 300 bytes arrive in one packet; who takes longer than this is not sending a payment.
BODY_TIMEOUT_S: Final = 10.0


async def read(headers: Headers, receive: Receive, operation: Operation) -> bytes:
    """Return the whole body; of one that is declared too large, or as something else, nothing is read.

    Raises `Problem`.
    """
    _check_content_type(headers, operation)
    too_large = Problem(Code.REQUEST_TOO_LARGE, f"The request's body is larger than {operation.max_body_bytes} bytes.")
    if int(headers.get("content-length", 0)) > operation.max_body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Problem(Code.MALFORMED_REQUEST)
                body += message.get("body", b"")
                if len(body) > operation.max_body_bytes:
                    raise too_large
                if not message.get("more_body", False):
                    break
    except (TimeoutError, asyncio.CancelledError):  # cancelled: the gateway stops and waits no longer
        raise Problem(Code.REQUEST_TIMEOUT, headers={"Connection": "close"}) from None
    if not body:
        raise Problem(Code.MALFORMED_JSON)
    return bytes(body)


def parse(content: bytes) -> Any:
    """Read JSON strictly, or raise `Problem`."""
    try:
        return strict_json.loads(content)
    except ValueError:
        raise Problem(Code.MALFORMED_JSON) from None


def _check_content_type(headers: Headers, operation: Operation) -> None:
    types = headers.getlist("content-type")
    if types == [operation.media_types[0]] and "content-encoding" not in headers and "transfer-encoding" not in headers:
        return  # almost always
    media_type, options = parse_options_header(types[0] if len(types) == 1 else None)
    if (
        media_type.lower() not in operation.media_types
        or options.get("charset", "utf-8").lower() != "utf-8"
        or any(coding.lower() != "identity" for coding in headers.getlist("content-encoding"))
        or headers.get("transfer-encoding", "chunked").lower() != "chunked"
    ):
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE)
