"""The check of answers finds each breach of the contract, and no run of the tests passes with one."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from app import today_utc
from handlers.contract import Contract
from tests.contract import record
from tests.contract.record import Record
from tests.contract.writing import Checker, Watch
from tests.support import AUTHORIZED_CARD, shown_payment

WITHOUT_KEYS = Contract((), today_utc, lambda: True, simulator=True)
WITH_KEYS = Contract((), today_utc, lambda: False, simulator=True)

Call = tuple[str, str]
Answer = tuple[int, dict[str, str], Any]


def without(mapping: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the mapping without an entry."""
    return {key: value for key, value in mapping.items() if key != name}


ID = "3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c"
PAYMENT = shown_payment(ID)
PAID = {"content-type": "application/json", "x-request-id": "r-1", "location": f"/api/v1/payments/{ID}"}
PROBLEM = {
    "type": "about:blank",
    "title": "Service Unavailable",
    "status": 503,
    "detail": "It is not there.",
    "code": "bank_unavailable",
    "instance": "r-1",
}
FAILED = {"content-type": "application/problem+json", "x-request-id": "r-1", "retry-after": "5"}
REFUSED = without(FAILED, "retry-after")
FOUND = without(PAID, "location")
HTML = {"content-type": "text/html"}
ERROR = {"field": "cvv", "code": "required", "message": "is required", "new": 1}
NOWHERE = PROBLEM | {"title": "Not Found", "status": 404, "code": "not_found"}

PAY = ("POST", "/api/v1/payments")
FIND = ("GET", f"/api/v1/payments/{ID}")
READY = ("GET", "/health/ready")
OTHER = ("GET", "/nothing")


def written(status: int, headers: dict[str, str], body: Any) -> bytes:
    """Return an answer as it is written."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def found(folder: Path, call: Call | None, *parts: bytes, with_keys: bool = False, head: bytes = b"") -> list[Any]:
    """Return what is recorded of an answer that is written in parts; without a call, `head` is what was read."""
    contract = WITH_KEYS if with_keys else WITHOUT_KEYS
    with contextlib.closing(Record(folder / "answers")) as written_to:
        watch = Watch(Checker(contract, written_to))
        watch.reads(head, begins=True)
        if call is not None:
            watch.requested(*call)
        for part in parts:
            watch.writes(part)
        watch.closes()
    return [entry for line in record.entries(folder / "answers") for entry in line.values()]


RIGHT = {
    "payment": (PAY, (201, PAID, PAYMENT), ("create_payment", 201)),
    "found": (FIND, (200, FOUND, PAYMENT), ("get_payment", 200)),
    "problem": (PAY, (503, FAILED, PROBLEM), ("create_payment", 503)),
    "no operation": (OTHER, (404, REFUSED, NOWHERE), None),
    "redirect": (("GET", "/"), (307, {"x-request-id": "r-1", "location": "/ui"}, b""), None),
    "not ready": (READY, (503, {"x-request-id": "r-1", "content-type": "application/json"}, {}), None),
}


@pytest.mark.parametrize(("call", "answer", "seen"), RIGHT.values(), ids=RIGHT)
def test_a_promised_answer_is_right(call: Call, answer: Answer, seen: tuple[str, int] | None, tmp_path: Path) -> None:
    """Nothing is found, and the answer of an operation counts; it may be written in several parts."""
    expected = [["without keys", *seen]] if seen else []
    assert found(tmp_path, call, written(*answer)) == expected
    parts = [bytes([byte]) for byte in b"HTTP/1.1 100 Continue\r\n\r\n" + written(*answer)]
    assert found(tmp_path, call, *parts) == expected * 2


WRONG_HEADS = {
    "status": (PAY, (200, PAID, PAYMENT), "the status is not documented"),
    "status of another operation": (FIND, (408, REFUSED, PROBLEM), "the status is not documented"),
    "status of another deployment": (PAY, (421, REFUSED, PROBLEM), "the status is not documented"),
    "status elsewhere": (OTHER, (418, REFUSED, PROBLEM), "no path has this status"),
    "status of another deployment elsewhere": (OTHER, (421, REFUSED, PROBLEM), "no path has this status"),
    "no header": (PAY, (201, FOUND, PAYMENT), "location is missing"),
    "no id": (PAY, (201, without(PAID, "x-request-id"), PAYMENT), "x-request-id is missing"),
    "no id elsewhere": (OTHER, (200, {}, b""), "x-request-id is missing"),
    "pattern": (PAY, (201, PAID | {"x-request-id": "a b"}, PAYMENT), "x-request-id breaks its schema"),
    "no number": (PAY, (503, FAILED | {"retry-after": "soon"}, PROBLEM), "retry-after breaks its schema"),
    "minimum": (PAY, (503, FAILED | {"retry-after": "0"}, PROBLEM), "retry-after breaks its schema"),
    "header of another answer": (PAY, (201, PAID | {"retry-after": "5"}, PAYMENT), "retry-after is not documented"),
    "unknown header": (PAY, (201, PAID | {"x-new": "5"}, PAYMENT), "x-new is not documented"),
    "header twice": (PAY, (201, PAID | {"location": "/a\r\nlocation: /b"}, PAYMENT), "location is repeated"),
    "media type": (PAY, (201, PAID | HTML, b""), "the media type is not documented"),
    "media type elsewhere": (OTHER, (404, REFUSED | HTML, b""), "the media type is not documented"),
}
WRONG_PAYMENTS = {
    "no JSON": (b"{", "the body is not JSON"),
    "missing field": (without(PAYMENT, "id"), "the body breaks Payment/required"),
    "new field": (PAYMENT | {"fee": 1}, "the body breaks Payment/additionalProperties: fee"),
    "type": (PAYMENT | {"amount": "1"}, "the body breaks Payment/properties/amount/type"),
    "uuid": (PAYMENT | {"id": "1" * 36}, "the body breaks Payment/properties/id/format"),
    "time": (PAYMENT | {"created_at": "now"}, "the body breaks Payment/properties/created_at/format"),
}
WRONG_PROBLEMS = {
    "new field within": (PROBLEM | {"errors": [ERROR]}, "the body breaks FieldError/additionalProperties: new"),
    "problem's status": (PROBLEM | {"status": 500}, "the problem's status is not that of the answer"),
    "problem's title": (PROBLEM | {"title": "Gone"}, "the problem's title is not the name of the status"),
    "problem's instance": (PROBLEM | {"instance": "r-2"}, "the problem's instance is not X-Request-ID"),
}
WRONG = {
    **WRONG_HEADS,
    **{name: (PAY, (201, PAID, body), finding) for name, (body, finding) in WRONG_PAYMENTS.items()},
    **{name: (PAY, (503, FAILED, body), finding) for name, (body, finding) in WRONG_PROBLEMS.items()},
    "code elsewhere": (
        OTHER,
        (404, REFUSED, NOWHERE | {"code": "payment_not_found"}),
        "the problem's code is another's",
    ),
    "HEAD": (("HEAD", FIND[1]), (200, FOUND, PAYMENT), "a HEAD request is answered with a body"),
}


@pytest.mark.parametrize(("call", "answer", "finding"), WRONG.values(), ids=WRONG)
def test_each_breach_is_found(call: Call, answer: Answer, finding: str, tmp_path: Path) -> None:
    """What is recorded names the part of the contract."""
    recorded = found(tmp_path, call, written(*answer), with_keys=True)
    assert any(text.endswith(f": {finding}") for text in recorded if isinstance(text, str)), recorded


def test_an_answer_to_head_is_right_without_a_body(tmp_path: Path) -> None:
    """It has the length of the body that GET would get. The next answer on the connection is read as well."""
    head = written(200, FOUND, PAYMENT).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert found(tmp_path, ("HEAD", FIND[1]), head, b"") == []
    following = written(404, REFUSED | HTML, b"")
    assert found(tmp_path, ("HEAD", FIND[1]), head, following) == [
        "404 to an unread request (no operation): the media type is not documented"
    ]


def test_what_is_recorded_has_no_value(tmp_path: Path) -> None:
    """Nor a name that is no plain word: a card number may be anywhere in a wrong answer."""
    card = AUTHORIZED_CARD
    body = PAYMENT | {card: card, "amount": card, "currency": card}
    recorded = found(tmp_path, ("POST", f"/{card}"), written(404, {f"x-{card}": card}, body))
    recorded += found(tmp_path, PAY, written(201, PAID | {f"x-{card}": card, "location": card}, body))
    assert any("Payment/additionalProperties: (unnamed)" in text for text in recorded)
    assert not re.search("[0-9]{5}", (tmp_path / "answers").read_text())


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b"Service Unavailable"], id="no HTTP"),
        pytest.param([written(404, FAILED, b"") + b"more"], id="longer than its length"),
    ],
)
def test_what_is_no_http_is_found(parts: list[bytes], tmp_path: Path) -> None:
    """No client could read it."""
    assert "what is written is no HTTP answer" in found(tmp_path, OTHER, *parts)


@pytest.mark.parametrize(
    ("head", "operation"),
    [
        (b"GET /api/v1/payments/%d?x=1 HTTP/1.1\r\nX: " % 7, "get_payment"),
        (b"POST http://localhost/api/v1/payments HTTP/1.1\r\n", "create_payment"),
        (b"POST /api/v1/paym", None),
        (b"GET / HTTP/1.1\r\n", None),
        (b"", None),
    ],
)
def test_a_refusal_counts_as_the_answer_to_what_was_requested(
    head: bytes, operation: str | None, tmp_path: Path
) -> None:
    """As far as it was read."""
    large = PROBLEM | {"title": "Request Header Fields Too Large", "status": 431, "code": "headers_too_large"}
    recorded = found(tmp_path, None, written(431, REFUSED, large), head=head)
    assert recorded == ([["without keys", operation, 431]] if operation else [])


def test_an_answer_that_is_cut_off_is_found(tmp_path: Path) -> None:
    """By the gateway, which closes the connection before it has written all."""
    assert found(tmp_path, PAY, written(201, PAID, PAYMENT)[:-1]) == ["an answer is not complete"]


def test_a_failure_of_the_check_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not pass for a right answer."""
    monkeypatch.setattr("tests.contract.checking.head", lambda *_: 1 / 0)
    assert found(tmp_path, PAY, written(201, PAID, PAYMENT)) == ["an answer could not be checked: ZeroDivisionError"]
