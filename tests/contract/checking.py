"""Whether an answer is one that the contract promised: its status, headers, media type and body.

What is found names parts of the contract, never a value of the answer, which may be a card number.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from jsonschema_rs import Draft4Validator, ValidationErrorKind

from tests.contract.promises import Documented, Operation, Promises

# The code of a problem, by status, where a request reaches no operation. No operation has to document it.
ANY_PATH: Final = {
    400: "malformed_request",
    403: "cors_refused",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    421: "misdirected_request",
    431: "headers_too_large",
    500: "internal_error",
}

# An unready gateway says in its own format what is wrong.
_HEALTH: Final = re.compile(r"/health/(live|ready)")

# The headers of HTTP, of CORS and for browsers, which the contract leaves to their standards.
_STANDARD: Final = {
    "content-type",
    "content-length",
    "connection",
    "date",
    "allow",
    "vary",
    "cache-control",
    "content-security-policy",
    "cross-origin-resource-policy",
    "referrer-policy",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
}

_PLAIN_WORD: Final = re.compile(r"[A-Za-z_-]{1,40}")


@dataclass(frozen=True, slots=True)
class Request:
    """The request of an answer. It may have been refused before its head was complete, or read at all."""

    method: str = ""
    path: str = ""
    is_complete: bool = False


@dataclass(slots=True)
class Answer:
    """An answer as it is written."""

    request: Request
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known == name), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the contract says about one answer.

    operation: the one that is called; None if the request reaches none
    documented: None if the contract says nothing about the answer
    """

    operation: Operation | None
    documented: Documented | None
    errors: list[str]


def head(promises: Promises, answer: Answer) -> Verdict:
    """Check status and headers."""
    operation = promises.operation(answer.request.method, answer.request.path)
    errors = []
    documented = operation.responses.get(answer.status) if operation else None
    if documented is None and operation is not None and answer.request.is_complete:
        errors.append("the status is not documented")
    elif documented is None and answer.status >= 400 and not _HEALTH.fullmatch(answer.request.path):
        operation, documented = None, promises.any_path
        if answer.status not in ANY_PATH or (answer.status == 421 and 421 not in promises.statuses):
            errors.append("no path has this status")
    if documented is not None:
        errors += _headers(documented, answer, require=operation is not None)
        if answer.header("content-type") not in documented.content:
            errors.append("the media type is not documented")
    if (operation is None or documented is None) and answer.header("x-request-id") is None:  # else it is required above
        errors.append("x-request-id is missing")
    return Verdict(operation, documented, errors)


def body(verdict: Verdict, answer: Answer) -> list[str]:
    """Check the body of an answer whose head has this verdict."""
    if answer.request.method == "HEAD":
        return ["a HEAD request is answered with a body"] if answer.body else []
    schema = verdict.documented.content.get(answer.header("content-type") or "") if verdict.documented else None
    if schema is None:
        return []
    try:
        content = json.loads(answer.body)
    except ValueError:
        return ["the body is not JSON"]
    errors = [f"the body breaks {each}" for each in _broken(schema, content)]
    if answer.status >= 400 and not errors:
        errors += _problem(content, answer, verdict.operation)
    return errors


def _headers(documented: Documented, answer: Answer, *, require: bool) -> Iterator[str]:
    names = [name for name, _ in answer.headers]
    for name, header in documented.headers.items():
        if require and header.required and name not in names:
            yield f"{name} is missing"
        if names.count(name) > 1:
            yield f"{name} is repeated"
    for name, value in answer.headers:
        if name in documented.headers:
            if not documented.headers[name].allows(value):
                yield f"{name} breaks its schema"
        elif name not in _STANDARD and not name.startswith("access-control-"):
            yield f"{_named(name)} is not documented"


def _problem(problem: dict[str, Any], answer: Answer, operation: Operation | None) -> Iterator[str]:
    if problem["status"] != answer.status:
        yield "the problem's status is not that of the answer"
    if problem["title"] != HTTPStatus(answer.status).phrase and answer.status not in {413, 422}:  # renamed in RFC 9110
        yield "the problem's title is not the name of the status"
    if problem["instance"] != answer.header("x-request-id"):
        yield "the problem's instance is not X-Request-ID"
    if operation is None and problem["code"] != ANY_PATH.get(answer.status):
        yield "the problem's code is another's"


def _broken(schema: Draft4Validator, content: Any) -> Iterator[str]:
    for error in schema.iter_errors(content):
        where = "/".join(map(str, error.schema_path)).removeprefix("components/schemas/")
        if isinstance(error.kind, ValidationErrorKind.AdditionalProperties):
            yield f"{where}: {', '.join(map(_named, error.kind.unexpected))}"
        else:
            yield where


def _named(name: str) -> str:
    return name if _PLAIN_WORD.fullmatch(name) else "(unnamed)"
