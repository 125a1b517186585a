"""Every error becomes one shape, application/problem+json (RFC 9457), here.

`PROBLEMS` is every sentence that a client can read when something went wrong, and the two tables
below it say which error becomes which problem. Whatever is raised anywhere in the stack comes
through `render`; nothing of an exception's own text reaches the client or the log, because it may
quote what was sent.
"""

import json
import logging
import traceback
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from starlette.exceptions import HTTPException

import bank
import payments
import store
from telemetry import request_context

log = logging.getLogger("gateway.problems")

MEDIA_TYPE: Final = "application/problem+json"

# Long enough for a hiccup to pass, short enough for a shopper who is waiting.
RETRY_AFTER: Final = {"Retry-After": "5"}

# A request at work mostly has its answer within a second.
RETRY_SOON: Final = {"Retry-After": "1"}


class Code(StrEnum):
    """The contract's `ProblemCode`."""

    VALIDATION_FAILED = "validation_failed"
    MALFORMED_JSON = "malformed_json"
    MALFORMED_REQUEST = "malformed_request"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    PAYMENT_NOT_FOUND = "payment_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    IDEMPOTENCY_KEY_IN_USE = "idempotency_key_in_use"
    REQUEST_TOO_LARGE = "request_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    CORS_REFUSED = "cors_refused"
    RATE_LIMITED = "rate_limited"
    INTERNAL_ERROR = "internal_error"
    OVERLOADED = "overloaded"
    BANK_UNAVAILABLE = "bank_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"


class _Told(NamedTuple):
    status: int
    title: str
    detail: str


PROBLEMS: Final = {
    Code.VALIDATION_FAILED: _Told(400, "Bad Request", "The request is invalid."),
    Code.MALFORMED_JSON: _Told(
        400,
        "Bad Request",
        "The request's body is not valid JSON (RFC 8259), names a field twice, or holds half a character (RFC 7493).",
    ),
    Code.MALFORMED_REQUEST: _Told(400, "Bad Request", "The request is not valid HTTP/1.1."),
    Code.UNAUTHORIZED: _Told(401, "Unauthorized", "Send a good API key as Authorization: Bearer KEY."),
    Code.NOT_FOUND: _Told(404, "Not Found", "There is nothing at this path."),
    Code.PAYMENT_NOT_FOUND: _Told(404, "Not Found", "There is no payment with this id."),
    Code.METHOD_NOT_ALLOWED: _Told(
        405, "Method Not Allowed", "This path does not have this method; Allow lists those it has."
    ),
    Code.REQUEST_TIMEOUT: _Told(408, "Request Timeout", "The request's body did not arrive in time."),
    Code.IDEMPOTENCY_KEY_IN_USE: _Told(
        409, "Conflict", "The first request with this Idempotency-Key is still at work; send this one again later."
    ),
    Code.REQUEST_TOO_LARGE: _Told(413, "Content Too Large", "The request's body is too large."),
    Code.UNSUPPORTED_MEDIA_TYPE: _Told(
        415,
        "Unsupported Media Type",
        "Send the body as Content-Type: application/json, in UTF-8 and without a Content-Encoding.",
    ),
    Code.IDEMPOTENCY_KEY_REUSED: _Told(
        422, "Unprocessable Content", "This Idempotency-Key came before, with another payment."
    ),
    Code.CORS_REFUSED: _Told(403, "Forbidden", "Pages of this origin may not make this request (CORS)."),
    Code.RATE_LIMITED: _Told(
        429, "Too Many Requests", "This is more than the rate agreed on; send the request again later, as it is."
    ),
    Code.INTERNAL_ERROR: _Told(
        500, "Internal Server Error", "The gateway could not process the request. Nothing was charged."
    ),
    Code.OVERLOADED: _Told(
        503,
        "Service Unavailable",
        "Too many payments are under way. Nothing was charged; send the request again later, as it is.",
    ),
    Code.BANK_UNAVAILABLE: _Told(
        503,
        "Service Unavailable",
        "The bank could not be reached. Nothing was charged; send the request again later.",
    ),
    Code.STORE_UNAVAILABLE: _Told(
        503,
        "Service Unavailable",
        "The gateway's store could not be reached. This request charged nothing; send it again later, as it is.",
    ),
}

_OF_EXCEPTION: Final[dict[type[Exception], Code]] = {
    bank.Overloaded: Code.OVERLOADED,
    bank.NotReached: Code.BANK_UNAVAILABLE,
    bank.Refused: Code.INTERNAL_ERROR,
    payments.KeyInUse: Code.IDEMPOTENCY_KEY_IN_USE,
    payments.KeyReused: Code.IDEMPOTENCY_KEY_REUSED,
    store.StoreUnavailable: Code.STORE_UNAVAILABLE,
}

_OF_STATUS: Final = {
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    413: Code.REQUEST_TOO_LARGE,
    415: Code.UNSUPPORTED_MEDIA_TYPE,
}

# Unless the error brings its own.
HEADERS: Final[dict[Code, dict[str, str]]] = {
    Code.METHOD_NOT_ALLOWED: {"Allow": "GET, HEAD"},
    Code.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    Code.IDEMPOTENCY_KEY_IN_USE: RETRY_SOON,
    Code.OVERLOADED: RETRY_SOON,
    Code.BANK_UNAVAILABLE: RETRY_AFTER,
    Code.STORE_UNAVAILABLE: RETRY_AFTER,
}


class Problem(Exception):
    """A problem to answer with. `detail` replaces the table's sentence; `errors` are FieldErrors."""

    def __init__(
        self,
        code: Code,
        detail: str | None = None,
        *,
        errors: list[dict[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}


def document(code: Code, instance: str, detail: str | None = None, errors: list[dict[str, str]] | None = None) -> bytes:
    """Return the problem as JSON. `type` is about:blank: the HTTP status says it, `code` says more.

    instance: the X-Request-ID
    """
    told = PROBLEMS[code]
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": told.title,
        "status": told.status,
        "detail": detail or told.detail,
        "code": code,
        "instance": instance,
    }
    if errors:
        problem["errors"] = errors
    return json.dumps(problem).encode()


async def render(_request: ConnexionRequest, error: Exception) -> ConnexionResponse:
    """Answer any error that was raised anywhere; async, or it would queue behind blocking work."""
    problem = _problem(error)
    serving = request_context.now()
    serving.outcome = problem.code
    return ConnexionResponse(
        status_code=PROBLEMS[problem.code].status,
        mimetype=MEDIA_TYPE,
        content_type=MEDIA_TYPE,
        body=document(problem.code, serving.id, problem.detail, problem.errors),
        headers={**HEADERS.get(problem.code, {}), **problem.headers},
    )


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    for kind, code in _OF_EXCEPTION.items():
        if isinstance(error, kind):
            return Problem(code)
    if isinstance(error, HTTPException) and error.status_code < 500:
        code = _OF_STATUS.get(error.status_code, Code.MALFORMED_REQUEST)
        return Problem(code, headers=error.headers)
    # The frames and the kind, not the exception's message, which may quote what was sent.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("unhandled %s\n%s", type(error).__name__, frames)
    return Problem(Code.INTERNAL_ERROR)
