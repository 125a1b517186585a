"""Reading a request's body: limited in size and time, declared as plain JSON, and parsed strictly."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import Receive
from werkzeug.http import parse_options_header

from bank import strict_json
from handlers.problems import Code, Problem

MEDIA_TYPE: Final = "application/json"

# Seconds. A payment's 300 bytes arrive in one packet; a client that needs longer is not sending a payment.
BODY_TIMEOUT_S: Final = 10.0

# The largest body in bytes, where the contract has no `x-max-bytes`.
MAX_BYTES: Final = 16 * 1024


# In place of the value of a body that was not sent and need not be.
NOT_SENT: Final = object()


@dataclass(frozen=True, slots=True)
class RequestBody:
    """What the contract says about a body, apart from its schema.

    default: the value of a body that is not sent
    """

    required: bool
    max_bytes: int = MAX_BYTES
    default: Any = NOT_SENT


async def read(headers: Headers, receive: Receive, wanted: RequestBody) -> Any:
    """Return the parsed body, or the default, which may be `NOT_SENT`, where none was sent. Raises `Problem`.

    A body that is declared too large, or as another media type, is not read at all.
    """
    optional = wanted.default is not NOT_SENT or not wanted.required
    if optional and headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        if "content-type" in headers:
            _check_content_type(headers)
        return wanted.default
    _check_content_type(headers)
    return _parse(await _receive(headers, receive, wanted.max_bytes))


async def _receive(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
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
                    return bytes(body)
    except (TimeoutError, asyncio.CancelledError):  # cancelled: the gateway is stopping
        raise Problem(Code.REQUEST_TIMEOUT, headers={"Connection": "close"}) from None


def _parse(content: bytes) -> Any:
    try:
        return strict_json.loads(content)
    except ValueError:
        raise Problem(Code.MALFORMED_JSON) from None


def _check_content_type(headers: Headers) -> None:
    types = headers.getlist("content-type")
    if types == [MEDIA_TYPE] and "content-encoding" not in headers and "transfer-encoding" not in headers:
        return  # fast path: nearly every request
    media_type, options = parse_options_header(types[0] if len(types) == 1 else None)
    if (
        media_type.lower() != MEDIA_TYPE
        or options.get("charset", "utf-8").lower() != "utf-8"
        or any(coding.lower() != "identity" for coding in headers.getlist("content-encoding"))
        or headers.get("transfer-encoding", "chunked").lower() != "chunked"
    ):
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE)
