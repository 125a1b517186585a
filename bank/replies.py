"""The bank's replies: what their status means, how they are read within limits, and which payment they name."""

from collections.abc import Callable
from typing import Any, Final

import requests

from bank import strict_json
from bank.errors import NoAnswer, Refused, Unavailable

MAX_REPLY_BYTES: Final = 64 * 1024
MAX_CODE_LENGTH: Final = 64  # characters of an authorization code

# 4xx replies that say nothing about the content of the request, so money may have moved: the request took too long
# (408), the same request is in progress (409), it came too early (425) or too often (429), nginx's client was gone
# (499). RFC 9110, RFC 8470, RFC 6585.
IN_DOUBT: Final = frozenset({408, 409, 425, 429, 499})


def decision(response: requests.Response, check: Callable[[Any], None]) -> Any:
    """Return the reply to a request that may move money, None if it is not readable.

    check: raises `NoAnswer` for a reply that names another payment or action
    Raises `Unavailable`, `Refused` and `NoAnswer`.
    """
    status = response.status_code
    if status == 200:
        reply = _json(_read(response))
        check(reply)
        return reply
    if status == 503 or (400 <= status <= 499 and status not in IN_DOUBT):
        check(_json_if_readable(response))
        raise Unavailable("the bank answered 503") if status == 503 else Refused(f"the bank answered {status}")
    raise NoAnswer(f"the bank answered {status}")


def information(response: requests.Response) -> Any:
    """Return the reply to a request that moves nothing, None if the bank has no readable answer to such requests.

    Raises `Unavailable` and `NoAnswer` when it may have one later.
    """
    status = response.status_code
    if status == 503:
        raise Unavailable("the bank answered 503")
    if status >= 500 or status in IN_DOUBT:
        raise NoAnswer(f"the bank answered {status}")
    return _json(_read(response)) if status == 200 else None


def check_id(reply: Any, what: str, wanted: str) -> None:
    """Raise `NoAnswer` if the reply has the id of another one: HTTP/1.1 does not say to which request a reply belongs.

    The id is optional, because the acquirer's protocol does not have it.

    what: payment or action
    """
    if isinstance(reply, dict) and reply.get(f"{what}_id", wanted) != wanted:
        raise NoAnswer(f"the bank's reply names another {what}")


def code_of(reply: dict[str, Any]) -> str:
    """Return the authorization code in a reply, or "" if there is none that can be kept: it never is an error."""
    code = reply.get("authorization_code")
    if isinstance(code, str) and len(code) <= MAX_CODE_LENGTH and code.isascii() and code.isprintable():
        return code
    return ""


def _read(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(8 * 1024):
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise NoAnswer("the bank's reply is too large")
    return bytes(body)


def _json_if_readable(response: requests.Response) -> Any:
    try:
        return _json(_read(response))
    except Exception:  # the status has said enough
        return None


def _json(body: bytes) -> Any:
    try:
        return strict_json.loads(body)
    except ValueError:
        return None
