"""Errors become problem documents of one shape, which repeat nothing that was sent and show nothing internal."""

import asyncio
import json
import logging
from typing import Any
from uuid import UUID

import pytest
from connexion.lifecycle import ConnexionRequest
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

import bank
from handlers import problems
from handlers.problems import PROBLEMS, Code, Problem

CARD_NUMBER = "2222405343248877"


def rendered(error: Exception) -> tuple[int, dict[str, Any], Headers]:
    response = asyncio.run(problems.render(ConnexionRequest({"type": "http"}), error))
    return response.status_code, json.loads(response.body), Headers(response.headers)


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_its_document(code: Code) -> None:
    """The document has the title and detail of the table, and its status is the HTTP status."""
    status, document, headers = rendered(Problem(code))
    assert headers["Content-Type"] == "application/problem+json"
    assert document == {
        "type": "about:blank",
        "title": PROBLEMS[code].title,
        "status": status,
        "detail": PROBLEMS[code].detail,
        "code": code,
        "instance": document["instance"],
    }
    assert UUID(document["instance"])


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (bank.NotReached("the bank answered 503"), 503, "bank_unavailable"),
        (bank.Overloaded("too many payments are in progress"), 503, "overloaded"),
        (bank.Refused("the bank answered 403"), 500, "internal_error"),
        (HTTPException(404), 404, "not_found"),
        (HTTPException(405), 405, "method_not_allowed"),
        (HTTPException(400, detail=CARD_NUMBER), 400, "malformed_request"),
        (HTTPException(418, detail=CARD_NUMBER), 400, "malformed_request"),
        (HTTPException(500, detail=CARD_NUMBER), 500, "internal_error"),
        (ValueError(CARD_NUMBER), 500, "internal_error"),
    ],
)
def test_an_error_becomes_its_problem(
    caplog: pytest.LogCaptureFixture, error: Exception, status: int, code: str
) -> None:
    """The document shows neither the bank's status nor the exception's message, and the log no card number."""
    with caplog.at_level(logging.DEBUG):
        answered, document, _ = rendered(error)
    assert (answered, document["code"]) == (status, code)
    del document["instance"]  # a random id, which may contain any digits
    for text in (CARD_NUMBER, "403", "answered"):
        assert text not in json.dumps(document)
    assert CARD_NUMBER not in caplog.text


def test_bank_unavailable_has_retry_after() -> None:
    """The header has a number of seconds, as the contract says."""
    assert rendered(bank.NotReached("x"))[2]["Retry-After"] == "5"


def test_405_always_has_allow() -> None:
    """A 405 without Allow gets one (RFC 9110, 15.5.6), and one with Allow keeps it."""
    assert rendered(HTTPException(405))[2]["Allow"] == "GET, HEAD"
    assert rendered(HTTPException(405, headers={"Allow": "POST"}))[2]["Allow"] == "POST"


def test_an_unhandled_error_is_logged_with_its_place_and_not_its_message(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the error's type and traceback, but not its message, which may quote a card number."""
    try:
        int(CARD_NUMBER + "x")
    except ValueError as error:
        rendered(error)
    assert "unhandled ValueError" in caplog.text
    assert "test_problems.py" in caplog.text
    assert CARD_NUMBER not in caplog.text
