"""Errors become problem documents: one shape, and nothing of what was sent or of what went wrong inside."""

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
    """type, title, status, detail, code; the HTTP status is the document's."""
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
        (bank.Overloaded("too many payments are under way"), 503, "overloaded"),
        (bank.Refused("the bank answered 403"), 500, "internal_error"),
        (HTTPException(404), 404, "not_found"),
        (HTTPException(405), 405, "method_not_allowed"),
        (HTTPException(400, detail=CARD_NUMBER), 400, "malformed_request"),
        (HTTPException(418, detail=CARD_NUMBER), 400, "malformed_request"),
        (HTTPException(500, detail=CARD_NUMBER), 500, "internal_error"),
        (ValueError(CARD_NUMBER), 500, "internal_error"),
    ],
)
def test_an_error_becomes_its_problem_and_shows_nothing_else(
    caplog: pytest.LogCaptureFixture, error: Exception, status: int, code: str
) -> None:
    """Neither the bank's status nor an exception's own words, in the answer or in the log."""
    with caplog.at_level(logging.DEBUG):
        answered, document, _ = rendered(error)
    assert (answered, document["code"]) == (status, code)
    del document["instance"]  # a random one, with any digits
    for words in (CARD_NUMBER, "403", "answered"):
        assert words not in json.dumps(document)
    assert CARD_NUMBER not in caplog.text


def test_retry_after_comes_with_bank_unavailable() -> None:
    """In seconds, as the contract says."""
    assert rendered(bank.NotReached("x"))[2]["Retry-After"] == "5"


def test_405_always_has_allow() -> None:
    """RFC 9110, 15.5.6: also where the framework forgets it."""
    assert rendered(HTTPException(405))[2]["Allow"] == "GET, HEAD"
    assert rendered(HTTPException(405, headers={"Allow": "POST"}))[2]["Allow"] == "POST"


def test_an_unhandled_error_is_logged_with_its_place_and_not_its_message(caplog: pytest.LogCaptureFixture) -> None:
    """An operator finds the line; the message may quote the card."""
    try:
        int(CARD_NUMBER + "x")
    except ValueError as error:
        rendered(error)
    assert "unhandled ValueError" in caplog.text
    assert "test_problems.py" in caplog.text
    assert CARD_NUMBER not in caplog.text
