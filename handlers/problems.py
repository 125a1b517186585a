"""Errors: every one becomes application/problem+json (RFC 9457) here.

`PROBLEMS` has the status, title and detail of every problem, and the tables below it say which exception becomes which
problem. `render` answers every exception that is raised while a request is served. An exception's own text never
reaches the client or the log, because it may quote what was sent.
"""

import json
import logging
import traceback
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

import bank
import payments
import store
from handlers.scope import RESPONSE
from payments import states
from telemetry import request_context

log = logging.getLogger("gateway.problems")

MEDIA_TYPE: Final = "application/problem+json"

# Seconds. Long enough for a short outage to end, short enough for a waiting customer.
RETRY_AFTER: Final = {"Retry-After": "5"}

# Seconds. Most running requests are answered within this time.
RETRY_SOON: Final = {"Retry-After": "1"}


class Code(StrEnum):
    """The contract's `ProblemCode`."""

    VALIDATION_FAILED = "validation_failed"
    MALFORMED_JSON = "malformed_json"
    MALFORMED_REQUEST = "malformed_request"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    PAYMENT_NOT_FOUND = "payment_not_found"
    ACTION_NOT_FOUND = "action_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    IDEMPOTENCY_KEY_IN_USE = "idempotency_key_in_use"
    ACTION_NOT_ALLOWED = "action_not_allowed"
    AMOUNT_EXCEEDS_AVAILABLE = "amount_exceeds_available"
    ACTION_IN_PROGRESS = "action_in_progress"
    NOT_SUPPORTED_BY_BANK = "not_supported_by_bank"
    REQUEST_TOO_LARGE = "request_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    MISDIRECTED_REQUEST = "misdirected_request"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    CORS_REFUSED = "cors_refused"
    RATE_LIMITED = "rate_limited"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL_ERROR = "internal_error"
    OVERLOADED = "overloaded"
    BANK_UNAVAILABLE = "bank_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"


class _Answer(NamedTuple):
    status: int
    title: str
    detail: str


PROBLEMS: Final = {
    Code.VALIDATION_FAILED: _Answer(400, "Bad Request", "The request is invalid."),
    Code.MALFORMED_JSON: _Answer(
        400,
        "Bad Request",
        "The request's body is not valid JSON (RFC 8259), repeats a field name, or contains an unpaired surrogate "
        "(RFC 7493).",
    ),
    Code.MALFORMED_REQUEST: _Answer(400, "Bad Request", "The request is not valid HTTP/1.1."),
    Code.UNAUTHORIZED: _Answer(401, "Unauthorized", "Send a valid API key as Authorization: Bearer KEY."),
    Code.CORS_REFUSED: _Answer(403, "Forbidden", "Pages of this origin may not make this request (CORS)."),
    Code.NOT_FOUND: _Answer(404, "Not Found", "There is nothing at this path."),
    Code.PAYMENT_NOT_FOUND: _Answer(404, "Not Found", "There is no payment with this id."),
    Code.ACTION_NOT_FOUND: _Answer(404, "Not Found", "There is no action with this id."),
    Code.METHOD_NOT_ALLOWED: _Answer(
        405, "Method Not Allowed", "This path does not support this method; Allow lists the methods that it supports."
    ),
    Code.REQUEST_TIMEOUT: _Answer(408, "Request Timeout", "The request did not arrive in time."),
    Code.IDEMPOTENCY_KEY_IN_USE: _Answer(
        409,
        "Conflict",
        "The first request with this Idempotency-Key has not been answered yet; send this request again later.",
    ),
    Code.ACTION_NOT_ALLOWED: _Answer(
        409, "Conflict", "The payment's state does not allow this action. It moved no money."
    ),
    Code.AMOUNT_EXCEEDS_AVAILABLE: _Answer(
        409, "Conflict", "The amount is more than is available. This request moved no money."
    ),
    Code.ACTION_IN_PROGRESS: _Answer(
        409,
        "Conflict",
        "Another action on this payment has not ended and holds the amount; send the same request again later.",
    ),
    Code.NOT_SUPPORTED_BY_BANK: _Answer(
        409, "Conflict", "The payment's bank has no such operation. This request moved no money."
    ),
    Code.REQUEST_TOO_LARGE: _Answer(413, "Content Too Large", "The request's body is too large."),
    Code.UNSUPPORTED_MEDIA_TYPE: _Answer(
        415,
        "Unsupported Media Type",
        "Send the body as Content-Type: application/json, in UTF-8 and without a Content-Encoding.",
    ),
    Code.MISDIRECTED_REQUEST: _Answer(
        421,
        "Misdirected Request",
        "The gateway has no API keys and answers only to localhost, and to the hosts that its operator allows.",
    ),
    Code.IDEMPOTENCY_KEY_REUSED: _Answer(
        422,
        "Unprocessable Content",
        "This Idempotency-Key was used before, for another payment or action, or for a payment that has been erased.",
    ),
    Code.RATE_LIMITED: _Answer(
        429, "Too Many Requests", "The merchant's rate limit is used up; send the same request again later."
    ),
    Code.HEADERS_TOO_LARGE: _Answer(
        431,
        "Request Header Fields Too Large",
        "The request's headers, or the chunk extensions and trailers of its body, are larger than 32 KiB.",
    ),
    Code.INTERNAL_ERROR: _Answer(500, "Internal Server Error", "The gateway could not process the request."),
    Code.OVERLOADED: _Answer(
        503,
        "Service Unavailable",
        "Too many payments are in progress. This request charged nothing; send the same request again later.",
    ),
    Code.BANK_UNAVAILABLE: _Answer(
        503,
        "Service Unavailable",
        "The bank could not be reached. No payment or action is kept; send the same request again later, "
        "with the same Idempotency-Key.",
    ),
    Code.STORE_UNAVAILABLE: _Answer(
        503,
        "Service Unavailable",
        "The gateway's store could not be reached. This request charged nothing; send the same request again later.",
    ),
}

# The detail of an internal error that certainly charged nothing. The detail of any other says nothing about money.
NOT_CHARGED: Final = "The gateway could not process the request. Nothing was charged."

# The code, and the detail where it differs from the code's own.
_OF_EXCEPTION: Final[dict[type[Exception], tuple[Code, str | None]]] = {
    bank.Overloaded: (Code.OVERLOADED, None),
    bank.NotReached: (Code.BANK_UNAVAILABLE, None),
    bank.Refused: (Code.INTERNAL_ERROR, NOT_CHARGED),
    bank.NotSupported: (Code.NOT_SUPPORTED_BY_BANK, None),
    states.NotAllowed: (Code.ACTION_NOT_ALLOWED, None),
    states.ExceedsAvailable: (Code.AMOUNT_EXCEEDS_AVAILABLE, None),
    states.InProgress: (Code.ACTION_IN_PROGRESS, None),
    payments.KeyInUse: (Code.IDEMPOTENCY_KEY_IN_USE, None),
    payments.KeyReused: (Code.IDEMPOTENCY_KEY_REUSED, None),
    store.StoreUnavailable: (Code.STORE_UNAVAILABLE, None),
}

_OF_STATUS: Final = {
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    413: Code.REQUEST_TOO_LARGE,
    415: Code.UNSUPPORTED_MEDIA_TYPE,
}

# The headers of a problem, which the headers of the raised `Problem` override.
HEADERS: Final[dict[Code, dict[str, str]]] = {
    Code.METHOD_NOT_ALLOWED: {"Allow": "GET, HEAD"},
    Code.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    Code.IDEMPOTENCY_KEY_IN_USE: RETRY_SOON,
    Code.ACTION_IN_PROGRESS: RETRY_SOON,
    Code.OVERLOADED: RETRY_SOON,
    Code.BANK_UNAVAILABLE: RETRY_AFTER,
    Code.STORE_UNAVAILABLE: RETRY_AFTER,
}


class Problem(Exception):
    """A problem to answer with.

    detail: replaces the detail of the table
    errors: the contract's FieldErrors
    """

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
    """Return the problem as JSON. `type` is about:blank: the HTTP status says what it is, and `code` says more.

    instance: the X-Request-ID
    """
    answer = PROBLEMS[code]
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": answer.title,
        "status": answer.status,
        "detail": detail or answer.detail,
        "code": code,
        "instance": instance,
    }
    if errors:
        problem["errors"] = errors
    return json.dumps(problem).encode()


def response(problem: Problem) -> Response:
    """Return the HTTP response for a problem of the request that is being served."""
    context = request_context.now()
    context.outcome = problem.code
    return Response(
        document(problem.code, context.id, problem.detail, problem.errors),
        PROBLEMS[problem.code].status,
        {**HEADERS.get(problem.code, {}), **problem.headers},
        MEDIA_TYPE,
    )


async def render(request: ConnexionRequest, error: Exception) -> ConnexionResponse:
    """Answer an error that was raised while a request was served.

    Once an operation has made its response, that response is the answer, whatever fails afterwards: a payment that
    is recorded is not reported as an error. The function is async because Connexion runs others in a thread pool,
    where they would wait behind blocking work.
    """
    made: Response | None = request.scope.get(RESPONSE)
    if made is not None:
        log_unexpected(error)
    answer = made or response(_problem(error))
    return ConnexionResponse(answer.status_code, answer.media_type, None, answer.body, dict(answer.headers))


def log_unexpected(error: Exception) -> None:
    """Log where an error was raised and its type, without its message, which may quote what was sent."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("unhandled %s\n%s", type(error).__name__, frames)


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    for kind, (code, detail) in _OF_EXCEPTION.items():
        if isinstance(error, kind):
            return Problem(code, detail)
    if isinstance(error, HTTPException) and error.status_code < 500:
        return Problem(_OF_STATUS.get(error.status_code, Code.MALFORMED_REQUEST), headers=error.headers)
    log_unexpected(error)
    return Problem(Code.INTERNAL_ERROR)
