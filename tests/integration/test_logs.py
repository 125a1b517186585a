"""What the gateway logs: one JSON line for each request, its id on every line, and nothing that was sent."""

import contextlib
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests

from config import VERSION
from tests import support
from tests.support import ROOT, Gateway, reply, scripted_bank, valid_payment, wait_until

KEY = "pgw_test_" + "l" * 43
API_KEYS = f"acme:{hashlib.sha256(KEY.encode()).hexdigest()}"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FIELDS = "request_id client merchant key method operation route status ms bank_ms payment_id outcome"


def access_lines(gateway: Gateway, number: int) -> list[dict[str, Any]]:
    """Wait until the log has the lines of this many requests, and return them."""
    wait_until(lambda: gateway.log.count('"gateway.access"') >= number)
    return [line for line in map(json.loads, gateway.log.splitlines()) if line["logger"] == "gateway.access"]


def test_each_request_is_logged_as_one_json_line_without_what_was_sent() -> None:
    """The line has the merchant, the route and the outcome, and nothing of the path, query, body or key."""
    with Gateway(LOG_FORMAT="auto", key=KEY, API_KEYS=API_KEYS) as gateway:
        (ready,) = (json.loads(line) for line in gateway.banner.splitlines())
        assert (ready["message"], ready["api"]) == ("ready", f"{gateway.api}/payments")
        paid = gateway.pay(cvv="4931")
        payment_id = paid.json()["id"]
        gateway.find(payment_id)
        gateway.find(f"{support.AUTHORIZED_CARD}?card_number={support.AUTHORIZED_CARD}&name=Lovelace")
        gateway.session.get(f"{gateway.root}/Lovelace/{support.AUTHORIZED_CARD}", timeout=10)
        gateway.pay(cvv="49310", Lovelace=1)
        lines = access_lines(gateway, 5)
        assert {" ".join(line) for line in lines} == {f"time level logger {FIELDS}"}
        create = ("POST", "create_payment", "/api/v1/payments")
        get = ("GET", "get_payment", "/api/v1/payments/{payment_id}")
        key_id = hashlib.sha256(KEY.encode()).hexdigest()[:12]
        shown = ("method", "operation", "route", "status", "merchant", "key", "payment_id", "outcome")
        assert [tuple(line[name] for name in shown) for line in lines] == [
            (*create, 201, "acme", key_id, payment_id, "AUTHORIZED"),
            (*get, 200, "acme", key_id, payment_id, "AUTHORIZED"),
            (*get, 400, "acme", key_id, None, "validation_failed"),
            ("GET", None, None, 404, None, None, None, "not_found"),
            (*create, 400, "acme", key_id, None, "validation_failed"),
        ]
        assert {line["client"] for line in lines} == {"127.0.0.1"}
        assert lines[0]["request_id"] == paid.headers["X-Request-ID"]
        assert 0 < lines[0]["bank_ms"] < lines[0]["ms"] < 20_000
        assert {line["bank_ms"] for line in lines[1:]} == {None}
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
        sent = (support.AUTHORIZED_CARD, "*" * 13, "Lovelace", "4931", KEY, "Bearer")
        assert not any(text in gateway.log for text in sent), "nothing is logged that the filter has to mask"


def test_every_line_that_a_request_causes_has_its_id() -> None:
    """The lines of the bank client and of its libraries have the request's id, too. The first line has the version."""
    with support.free_port() as free:
        pass
    with Gateway(LOG_FORMAT="json", BANK_URL=f"http://127.0.0.1:{free}", BANK_RETRIES="1") as gateway:
        gateway.session.headers["X-Request-ID"] = "order-66"
        assert gateway.pay().status_code == 503
        loggers = ("gateway.access", "gateway.payments", "urllib3.connectionpool")
        wait_until(lambda: all(f'"{logger}"' in gateway.log for logger in loggers))
        start, *lines = map(json.loads, gateway.log.splitlines())
        assert (start["logger"], start["message"]) == ("gateway.start", f"payment gateway {VERSION} starts")
        assert {line["logger"]: line.get("request_id") for line in lines} == dict.fromkeys(loggers, "order-66")


@pytest.fixture(scope="module")
def strict() -> Iterator[Gateway]:
    """A gateway that requires a key and can't reach its bank."""
    with support.free_port() as free:
        pass
    with Gateway(LOG_FORMAT="json", key=KEY, API_KEYS=API_KEYS, BANK_URL=f"http://127.0.0.1:{free}") as gateway:
        yield gateway


@pytest.mark.parametrize("request_id", ["order-66", "a", "x" * 128, "A.b_c~9", "00000000-0000-4000-8000-000000000000"])
def test_a_valid_request_id_is_kept(strict: Gateway, request_id: str) -> None:
    """The merchant's own id is in the response, in the problem document and in the log."""
    answer = requests.get(f"{strict.api}/payments/1", headers={"X-Request-ID": request_id}, timeout=10)
    assert (answer.headers["X-Request-ID"], answer.json()["instance"]) == (request_id, request_id)
    wait_until(lambda: f'"{request_id}"' in strict.log)


@pytest.mark.parametrize(
    "sent",
    [
        *("", "two words", "x" * 129, "caf\u00e9", 'a"b', "a/b", "a,b", "<b>", "%20"),
        *("4242424242424242", "4242-4242-4242-4242", "order4242424242424242", "9-4242424242424242-9"),
    ],
)
def test_an_invalid_request_id_is_replaced(strict: Gateway, sent: str) -> None:
    """An id that is unsafe in a log or header, or that may hold a card number, is replaced by a UUID."""
    headers = {"X-Request-ID": sent.encode()}
    answer = requests.get(f"{strict.api}/payments/1", headers=headers, timeout=10)
    request_id = answer.headers["X-Request-ID"]
    assert str(UUID(request_id)) == request_id == answer.json()["instance"]
    wait_until(lambda: request_id in strict.log)
    assert not sent or f'"{sent}"' not in strict.log


def test_every_response_has_a_request_id_and_every_problem_names_it(gateway: Gateway, strict: Gateway) -> None:
    """Responses of every layer have an id, no two have the same, and each is in the log."""
    key, pay = {"Authorization": f"Bearer {KEY}"}, f"{strict.api}/payments"
    ask = partial(requests.request, timeout=30)
    answers = [
        gateway.pay(),
        ask("POST", pay, json=valid_payment()),
        ask("POST", pay, json={}, headers=key),
        ask("GET", f"{pay}/{uuid4()}", headers=key),
        ask("GET", f"{strict.root}/nowhere"),
        ask("DELETE", pay, headers=key),
        ask("POST", pay, json=valid_payment(cvv="1" * 70_000), headers=key),
        ask("POST", pay, data="{}", headers={**key, "Content-Type": "text/plain"}),
        ask("POST", pay, json=valid_payment(), headers=key),
        ask("GET", f"{strict.root}/health/ready"),
    ]
    assert [answer.status_code for answer in answers] == [201, 401, 400, 404, 404, 405, 413, 415, 503, 200]
    problems = [answer.json() for answer in answers if answer.status_code >= 400]
    ids = [answer.headers["X-Request-ID"] for answer in answers]
    assert [problem["instance"] for problem in problems] == ids[1:-1]
    with strict.connect() as connection:
        connection.sendall(b"GARBAGE\r\nX-Request-ID: order-66\r\n\r\n")
        head, _, body = b"".join(iter(partial(connection.recv, 65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    instance = json.loads(body)["instance"]
    assert f"x-request-id: {instance}\r\n".encode() in head + b"\r\n"
    assert len({*ids, instance}) == len(ids) + 1
    wait_until(lambda: all(f'"{request_id}"' in strict.log for request_id in [*ids[1:-1], instance]))
    (malformed,) = (line for line in strict.log.splitlines() if instance in line)
    assert json.loads(malformed)["client"] == "127.0.0.1"


def test_the_bank_gets_the_request_id_and_the_traceparent() -> None:
    """X-Request-ID is always sent to the bank, traceparent if the merchant's is well-formed (W3C Trace Context)."""
    zeros = ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01")
    malformed = ["", "00", TRACEPARENT.upper(), TRACEPARENT + "-x y", "ff" + TRACEPARENT[2:], *zeros]
    authorized = reply(200, b'{"authorized": true, "authorization_code": "1"}')
    with scripted_bank(authorized) as bank, Gateway(BANK_URL=bank.url) as gateway:
        for number, traceparent in enumerate([TRACEPARENT, *malformed]):
            gateway.session.headers.update({"X-Request-ID": f"order-{number}", "traceparent": traceparent})
            assert gateway.pay().status_code == 201
        found = [
            dict(re.findall(r"(?im)^(x-request-id|traceparent): *(.*?)\r$", raw.decode())) for raw in bank.requests
        ]
        sent = [{name.lower(): value for name, value in headers.items()} for headers in found]
        assert [headers.pop("x-request-id") for headers in sent] == [f"order-{n}" for n in range(len(sent))]
        assert sent[0] == {"traceparent": TRACEPARENT}
        assert dict(zip(malformed, sent[1:], strict=True)) == {traceparent: {} for traceparent in malformed}


def start(stdout: int, **settings: str) -> "subprocess.Popen[str]":
    """Start a gateway whose standard output nothing reads."""
    environment = {"PATH": os.environ["PATH"], "PORT": "0", **settings}
    command = [sys.executable, "run.py"]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_a_full_output_pipe_delays_no_request() -> None:
    """Requests are answered and SIGTERM stops the gateway although nothing reads standard output and error."""
    process = start(subprocess.PIPE, LOG_LEVEL="DEBUG")
    assert process.stdout is not None
    try:
        api = json.loads(process.stdout.readline())["api"]
        with requests.Session() as session:
            for _ in range(500):
                assert session.post(api, json=valid_payment(), timeout=5).status_code == 201
            started = time.monotonic()
            for _ in range(1500):
                assert session.get(f"{api}/{uuid4()}", timeout=5).status_code == 404
            assert time.monotonic() - started < 30
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_on_a_terminal_the_log_is_text() -> None:
    """With LOG_FORMAT=auto a terminal shows the banner with its curl command, and one line of text per request."""
    reader, terminal = pty.openpty()
    process = start(terminal)
    os.close(terminal)
    output = b""
    try:
        while b"curl" not in output:
            output += os.read(reader, 65536)
        banner = output.decode().splitlines()
        assert banner[0] == "Payment gateway"
        found = re.search(r"API +(\S+)/payments", output.decode())
        assert found is not None
        assert requests.get(f"{found[1]}/payments/{uuid4()}", timeout=10).status_code == 404
        while b"status=404" not in output:
            output += os.read(reader, 65536)
        line = output.decode().splitlines()[-1]
        assert re.match(
            r"\d{4}-\S+Z INFO gateway\.access request_id=\S+ client=127\.0\.0\.1 merchant=default key=- method=GET ",
            line,
        )
    finally:
        process.terminate()
        process.communicate(timeout=30)
        with contextlib.suppress(OSError):
            os.close(reader)
