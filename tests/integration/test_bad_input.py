"""Invalid requests: each gets a problem document, none a 5xx, and nothing that was sent is repeated."""

import json
import re
import socket
import time
from typing import Any

import pytest
import requests

from handlers import body
from handlers.problems import Code
from tests.support import AUTHORIZED_CARD, SLOW, Gateway, valid_payment, wait_until

JSON = "Content-Type: application/json"
PAYMENT = json.dumps(valid_payment()).encode()
PROBLEM_FIELDS = {"type", "title", "status", "detail", "code", "instance"}


def send(gateway: Gateway, data: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes unchanged, and return the status, headers and body of the first response."""
    with gateway.connect() as connection:
        connection.sendall(data)
        return receive(connection)


def receive(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Read one response from a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        assert chunk, f"no answer, only {data!r}"
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(lines[0].split()[1]), headers, json.loads(body) if body else None


def post(body: bytes, *headers: str, path: str = "/api/v1/payments", length: bool = True) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        *headers,
        *([f"Content-Length: {len(body)}"] if length else []),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + body


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(post(PAYMENT, "Content-Type: Application/JSON"), id="capitals in the content type"),
        pytest.param(post(PAYMENT, "Content-Type: application/json; charset=UTF-8"), id="charset"),
        pytest.param(post(PAYMENT, 'Content-Type: application/json;charset="utf-8"'), id="quoted charset"),
        pytest.param(post(PAYMENT, "Content-Type: application/json; profile=x"), id="other parameter"),
        pytest.param(post(PAYMENT, JSON, "Content-Encoding: identity"), id="identity"),
        pytest.param(post(chunked(PAYMENT), JSON, "Transfer-Encoding: chunked", length=False), id="chunked"),
        pytest.param(
            post(chunked(*(bytes([byte]) for byte in PAYMENT)), JSON, "Transfer-Encoding: chunked", length=False),
            id="chunks of one byte",
        ),
        pytest.param(post(PAYMENT, JSON, "Accept: text/html"), id="Accept without JSON"),
        pytest.param(
            post(PAYMENT, JSON, "Idempotency-Key:   with space around \t "), id="spaces around the idempotency key"
        ),
        pytest.param(
            post(PAYMENT, JSON, "X-Request-ID: a", f"X-Request-ID: {'x' * 1024}", f"traceparent: {'x' * 1024}"),
            id="two request ids and a malformed trace",
        ),
        pytest.param(post(b"\n " + PAYMENT + b"\t\r\n", JSON), id="white space around the body"),
        pytest.param(post(PAYMENT.replace(b"GBP", b"\\u0047BP"), JSON), id="escapes"),
        pytest.param(
            post(PAYMENT, JSON, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), id="offer to upgrade to h2c"
        ),
    ],
)
def test_unusual_but_valid_requests_are_accepted(gateway: Gateway, request_bytes: bytes) -> None:
    """Each of them makes the payment."""
    status, _, payment = send(gateway, request_bytes)
    assert (status, payment["status"]) == (201, "AUTHORIZED")


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        pytest.param(post(PAYMENT), 415, "unsupported_media_type", id="no content type"),
        pytest.param(post(PAYMENT, "Content-Type:"), 415, "unsupported_media_type", id="empty content type"),
        pytest.param(post(PAYMENT, JSON, JSON), 415, "unsupported_media_type", id="two content types"),
        *[
            pytest.param(post(PAYMENT, f"Content-Type: {value}"), 415, "unsupported_media_type", id=value)
            for value in (
                "text/plain",
                "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=x",
                "application/jsonx",
                "application/merge-patch+json",
                "*/*",
                "json",
                ";",
                "application/json; charset=foo",
                "application/json; charset=utf-16",
                "\xff/\xfe",
            )
        ],
        *[
            pytest.param(post(PAYMENT, JSON, f"Content-Encoding: {value}"), 415, "unsupported_media_type", id=value)
            for value in ("gzip", "br", "identity, gzip")
        ],
        pytest.param(
            post(PAYMENT, JSON, "Idempotency-Key: a", "Idempotency-Key: b"),
            400,
            "validation_failed",
            id="two idempotency keys",
        ),
        *[
            pytest.param(
                post(PAYMENT, JSON, f"{name}: {'x' * 1025}"), 400, "validation_failed", id=f"{name} of 1025 characters"
            )
            for name in ("X-Request-ID", "traceparent")
        ],
        pytest.param(post(b"", JSON), 400, "malformed_json", id="empty body"),
        pytest.param(post(b"", JSON, length=False), 400, "malformed_json", id="no body"),
        pytest.param(
            post(chunked(), JSON, "Transfer-Encoding: chunked", length=False), 400, "malformed_json", id="no chunks"
        ),
        pytest.param(post(b"\xff\xfe{}", JSON), 400, "malformed_json", id="invalid UTF-8"),
        pytest.param(post(PAYMENT.decode().encode("utf-16"), JSON), 400, "malformed_json", id="UTF-16"),
        *[
            pytest.param(post(opened * depth + b"1" + closed * depth, JSON), 400, code, id=f"{name}{depth} deep")
            for name, opened, closed in (("arrays ", b"[", b"]"), ("objects ", b'{"a":', b"}"))
            for depth, code in (
                (200, "validation_failed"),
                (300, "malformed_json"),
                (500, "malformed_json"),
                (900, "malformed_json"),
                (2500, "malformed_json"),
            )
        ],
        pytest.param(post(b"[" * 16_000, JSON), 400, "malformed_json", id="deep nesting"),
        pytest.param(post(b'{"amount": ' + b"1" * 5_000 + b"}", JSON), 400, "malformed_json", id="5,000 digits"),
        *[
            pytest.param(post(b'{"amount": %s}' % value, JSON), 400, "malformed_json", id=value.decode())
            for value in (b"NaN", b"Infinity", b"-Infinity", b"1e400")
        ],
        pytest.param(post(b'{"cvv": "123", "cvv": "123"}', JSON), 400, "malformed_json", id="repeated name"),
        pytest.param(post(b"null", JSON), 400, "validation_failed", id="null"),
        pytest.param(post(b"[]", JSON), 400, "validation_failed", id="a list"),
        pytest.param(post(b'"\\ud800"', JSON), 400, "malformed_json", id="unpaired surrogate"),
        pytest.param(post(b'{"\\ud800": "\\udfff"}', JSON), 400, "malformed_json", id="unpaired surrogate as a name"),
        pytest.param(
            post(PAYMENT.replace(b'8877"', b'8877\\n"'), JSON),
            400,
            "validation_failed",
            id="newline after the card number",
        ),
        pytest.param(post(b" " * 65_536 + PAYMENT, JSON), 413, "request_too_large", id="too large"),
        pytest.param(
            post(b"", JSON, "Content-Length: 99999999999", length=False),
            413,
            "request_too_large",
            id="declared too large",
        ),
        pytest.param(
            post(chunked(*[b" " * 1000] * 70), JSON, "Transfer-Encoding: chunked", length=False),
            413,
            "request_too_large",
            id="chunks too large",
        ),
        *[
            pytest.param(post(PAYMENT, JSON, path=path), 404, "not_found", id=path)
            for path in (
                "/api/v1/payments/",
                "/api/v1/payments%0A",
                "/api/v1/payments%00",
                "/api/v1//payments",
                "/api/v1/payment",
                "/api/v1",
                "/api/v1/",
                "/payments",
                "/api/v2/payments",
                "/api/v1/payments/%2e%2e/payments",
                "/api/v1/openapi.json/",
                "/%ff%fe",
                "/" + "x" * 5000,
                "//example.com/%2f..",
            )
        ],
        *[
            pytest.param(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 404, "not_found", id=f"GET {path}")
            for path in (
                "/api/v1/payments/3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c%0A",
                "/api/v1/payments/%00",
                "/api/v1/payments/3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c/",
                "/api/v1/ui/../../../run.py",
                "/api/v1/ui/..%2f..%2f..%2frun.py",
                "/api/v1/ui/%00",
                "/api/v1/ui/" + "x" * 4000,
                "/api/v1/ui/index.html/x/",
                "/api/v1/ui/../",
                "/api/v1/ui//",
                "/api/v1/ui/%2e%2e/middleware/ui.py",
                "/api/v1/ui/..%2fmiddleware%2fui.py",
                "/api/v1/ui/__init__.py",
                "/favicon.ico",
            )
        ],
        *[
            pytest.param(
                f"{method} /api/v1/payments HTTP/1.0\r\n\r\n".encode(), 405, "method_not_allowed", id=method
            )
            for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
        ],
        pytest.param(post(PAYMENT, JSON, path="/"), 405, "method_not_allowed", id="POST /"),
        pytest.param(post(PAYMENT, JSON, path="/api/v1/openapi.json"), 405, "method_not_allowed", id="POST spec"),
        pytest.param(post(PAYMENT, JSON, path="/api/v1/ui/"), 405, "method_not_allowed", id="POST UI"),
        pytest.param(b"NONSENSE\r\n\r\n", 400, "malformed_request", id="not HTTP"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400, "malformed_request", id="bad header"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_request", id="TLS"),
        pytest.param(
            post(PAYMENT, JSON, "Transfer-Encoding: chunked"), 400, "malformed_request", id="length and chunked"
        ),
        pytest.param(
            post(chunked(PAYMENT), JSON, "Transfer-Encoding: gzip, chunked", length=False),
            415,
            "unsupported_media_type",
            id="transfer coding",
        ),
        pytest.param(
            post(PAYMENT, JSON, "Content-Encoding: identity", "Content-Encoding: gzip"),
            415,
            "unsupported_media_type",
            id="two content encodings",
        ),
        pytest.param(post(PAYMENT, JSON, "Content-Length: 1"), 400, "malformed_request", id="two lengths"),
        pytest.param(post(PAYMENT, JSON, "Content-Length: -1", length=False), 400, "malformed_request", id="length -1"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_request", id="no Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400, "malformed_request", id="two Hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000, 431, "headers_too_large", id="endless header"),
        pytest.param(
            post(chunked(PAYMENT)[:-2] + b"X: " + b"x" * 200_000, JSON, "Transfer-Encoding: chunked", length=False),
            431,
            "headers_too_large",
            id="endless trailer",
        ),
    ],
)  # fmt: skip
def test_each_invalid_request_gets_its_problem(gateway: Gateway, request_bytes: bytes, status: int, code: str) -> None:
    """All problem documents have the same shape, whichever layer makes them."""
    answered, headers, problem = send(gateway, request_bytes)
    assert (answered, problem["code"]) == (status, code)
    assert headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert set(problem) - {"errors"} == PROBLEM_FIELDS
    assert Code(problem["code"])
    assert problem["instance"] == headers["x-request-id"]
    assert headers["x-content-type-options"] == "nosniff"
    if status == 405:
        assert headers["allow"]


def test_allow_lists_every_method_of_the_path(gateway: Gateway) -> None:
    """Fixed paths, templates and paths outside the contract all have a complete Allow header."""
    for path, allow in (
        ("/api/v1/payments", "GET, HEAD, POST"),
        ("/api/v1/payments/x", "GET, HEAD"),
        ("/", "GET, HEAD"),
    ):
        _, headers, _ = send(gateway, f"DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert ", ".join(sorted(headers["allow"].split(", "))) == allow


def test_a_redirect_is_never_made_from_the_host_header(gateway: Gateway) -> None:
    """The only redirects, from `/` and to the UI, have a path as their Location."""
    for path in ("/", "/api/v1/ui"):
        answered, headers, _ = send(gateway, f"GET {path} HTTP/1.1\r\nHost: evil.localhost\r\n\r\n".encode())
        assert (answered, headers["location"]) == (307, "/api/v1/ui/")


@pytest.mark.parametrize("path", ["/", "/health/live", "/api/v1/openapi.json", "/api/v1/ui/", "/api/v1/payments", "/x"])
def test_a_gateway_without_keys_answers_to_no_other_host(gateway: Gateway, path: str) -> None:
    """A page whose name resolves to this machine can neither pay nor read anything (DNS rebinding)."""
    data = post(PAYMENT, JSON, path=path).replace(b"Host: localhost", b"Host: rebound.example:8000")
    for request_bytes in (data, data.replace(b"POST ", b"GET ")):
        status, headers, problem = send(gateway, request_bytes)
        assert (status, problem["code"]) == (421, "misdirected_request")
        assert problem["instance"] == headers["x-request-id"]


def test_head_is_answered_like_get_without_the_body(gateway: Gateway) -> None:
    """HEAD has the status of GET and no body (RFC 9110, 9.3.2)."""
    payment = gateway.pay().json()["id"]
    answer = gateway.session.head(f"{gateway.api}/payments/{payment}", timeout=10)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_body_that_does_not_arrive_is_a_408(gateway: Gateway) -> None:
    """The gateway answers after BODY_TIMEOUT_S and closes the connection."""
    started = time.monotonic()
    answered, headers, problem = send(gateway, post(PAYMENT, JSON)[:-10])
    assert (answered, problem["code"], headers["connection"]) == (408, "request_timeout", "close")
    assert body.BODY_TIMEOUT_S - 1 < time.monotonic() - started < body.BODY_TIMEOUT_S + 5


def test_a_kept_connection_serves_many_requests(gateway: Gateway) -> None:
    """The limit on a request's head applies to each request, not to a connection."""
    head = f"GET /api/v1/payments/x HTTP/1.1\r\nHost: localhost\r\nX: {'x' * 2000}\r\n\r\n".encode()
    with gateway.connect() as connection:
        for _ in range(50):
            connection.sendall(head)
            assert receive(connection)[0] == 400
            connection.sendall(post(PAYMENT, JSON))
            assert receive(connection)[0] == 201


def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    """No request is lost when several are sent before the first response is read."""
    with gateway.connect() as connection:
        connection.sendall(post(PAYMENT, JSON) * 3 + post(b"{}", JSON))
        data = b""
        while data.count(b"HTTP/1.1 ") < 4 or not data.endswith(b"}"):
            data += connection.recv(65536)
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", data)] == [201, 201, 201, 400]


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(json.dumps(valid_payment(amount="4929123412341234", **{"4929123412341234": 1})).encode(), JSON),
        post(json.dumps(valid_payment(card_number="4929123412341234x")).encode(), JSON),
        post(b'{"card_number": "4929123412341234"', JSON),
        post(b'{"card_number": "4929123412341234"}', "Content-Type: 4929123412341234"),
        b"GET /api/v1/payments/4929123412341234?card=4929123412341234 HTTP/1.1\r\nHost: 4929123412341234\r\n\r\n",
        b"GET /4929123412341234 HTTP/1.1\r\nHost: localhost\r\nX-Card: 4929123412341234\r\n\r\n",
        b"4929123412341234 / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_card_number_anywhere_in_a_request_is_not_answered(gateway: Gateway, request_bytes: bytes) -> None:
    """A card number in the body, a header, the path or the request line; the last test below reads the log."""
    assert b"4929123412341234" in request_bytes
    _, headers, problem = send(gateway, request_bytes)
    assert "4929123412341234" not in json.dumps([headers, problem])


def test_a_payment_is_answered_although_invalid_bytes_follow_it(gateway: Gateway) -> None:
    """When Content-Length is one byte too small, the payment is made and the merchant gets its 201."""
    slow = json.dumps(valid_payment(card_number=SLOW)).encode()
    status, headers, payment = send(gateway, post(slow, JSON) + b"}")
    assert (status, payment["status"], headers["connection"]) == (201, "AUTHORIZED", "close")


def test_a_client_that_leaves_pipelined_payments_is_no_error(gateway: Gateway) -> None:
    """The payment in progress is recorded, the one behind it is not made; the last test below reads the log."""
    authorized = gateway.log.count("outcome=AUTHORIZED")
    with gateway.connect() as connection:
        connection.sendall(post(json.dumps(valid_payment(card_number=SLOW)).encode(), JSON) * 2)
        time.sleep(0.5)  # the bank takes 2 s
    wait_until(lambda: gateway.log.count("outcome=AUTHORIZED") > authorized)


def test_a_large_head_is_refused(gateway: Gateway) -> None:
    """A long header and a long path are refused, in one packet and in several."""
    for path, value in (("/x", "x" * 40_000), ("/" + "x" * 40_000, "x")):
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX: {value}\r\n\r\n".encode()
        assert send(gateway, head)[0] == 431
        with gateway.connect() as connection:
            for start in range(0, len(head), 10_000):
                connection.sendall(head[start : start + 10_000])
            assert receive(connection)[0] == 431


def test_many_requests_in_one_packet_are_not_a_large_head(gateway: Gateway) -> None:
    """The limit applies to each request by itself."""
    one = f"GET /api/v1/payments/x HTTP/1.1\r\nHost: localhost\r\nX: {'x' * 300}\r\n\r\n".encode()
    with gateway.connect() as connection:
        connection.sendall(one * 150 + one[:20])
        data = b""
        while data.count(b"HTTP/1.1 400") < 150:
            data += connection.recv(65536)


def test_a_head_that_does_not_arrive_is_a_408(gateway: Gateway) -> None:
    """A client that began a head gets a 408; the connection of one that sent nothing is closed."""
    with gateway.connect() as silent, gateway.connect() as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHo")
        status, _, problem = receive(slow)
        assert (status, problem["code"]) == (408, "request_timeout")
        assert silent.recv(100) == b""


def test_the_ui_ignores_range_headers(gateway: Gateway) -> None:
    """An invalid Range gets the whole file; Starlette would answer it with another shape of error."""
    for value in ("bytes=abc", "bytes=99999999-"):
        answer = requests.get(f"{gateway.api}/ui/swagger-ui.css", headers={"Range": value}, timeout=10)
        assert answer.status_code == 200


def test_the_log_holds_no_card_number_and_no_traceback_at_the_end(gateway: Gateway) -> None:
    """None of the requests above, which all went to this gateway, left a card number or a traceback in its log."""
    payment_id = gateway.pay().json()["id"]
    wait_until(lambda: payment_id in gateway.log)
    assert AUTHORIZED_CARD not in gateway.log
    assert "4929123412341234" not in gateway.log
    assert "Traceback" not in gateway.log
    assert "unhandled" not in gateway.log
