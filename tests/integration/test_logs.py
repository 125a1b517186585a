"""What the gateway logs: one JSON line for each request, its id everywhere, and nothing that was sent."""

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

from tests import support
from tests.support import ROOT, Gateway, reply, scripted_bank, valid_payment, wait_until

KEY = "pgw_test_" + "l" * 43
API_KEYS = f"acme:{hashlib.sha256(KEY.encode()).hexdigest()}"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FACTS = "request_id merchant method operation route status ms bank_ms payment_id outcome"


def answers_logged(gateway: Gateway, number: int) -> list[dict[str, Any]]:
    """The lines of so many answers, as soon as they are there."""
    wait_until(lambda: gateway.log.count('"gateway.access"') >= number)
    return [line for line in map(json.loads, gateway.log.splitlines()) if line["logger"] == "gateway.access"]


def test_each_request_is_one_line_of_json_without_what_was_sent() -> None:
    """Who asked for what and what came of it, by the route; a path or a query may hold anything."""
    with Gateway(LOG_FORMAT="auto", key=KEY, API_KEYS=API_KEYS) as gateway:
        (ready,) = (json.loads(line) for line in gateway.banner.splitlines())
        assert (ready["message"], ready["api"]) == ("ready", f"{gateway.api}/payments")
        paid = gateway.pay(cvv="4931")
        payment_id = paid.json()["id"]
        gateway.find(payment_id)
        gateway.find(f"{support.AUTHORIZED_CARD}?card_number={support.AUTHORIZED_CARD}&who=Lovelace")
        gateway.session.get(f"{gateway.root}/Lovelace/{support.AUTHORIZED_CARD}", timeout=10)
        gateway.pay(cvv="49310", Lovelace=1)
        lines = answers_logged(gateway, 5)
        assert {" ".join(line) for line in lines} == {f"time level logger {FACTS}"}
        create = ("POST", "create_payment", "/api/v1/payments")
        get = ("GET", "get_payment", "/api/v1/payments/{payment_id}")
        shown = ("method", "operation", "route", "status", "merchant", "payment_id", "outcome")
        assert [tuple(line[name] for name in shown) for line in lines] == [
            (*create, 201, "acme", payment_id, "AUTHORIZED"),
            (*get, 200, "acme", payment_id, "AUTHORIZED"),
            (*get, 400, "acme", None, "validation_failed"),
            ("GET", None, None, 404, None, None, "not_found"),
            (*create, 400, "acme", None, "validation_failed"),
        ]
        assert lines[0]["request_id"] == paid.headers["X-Request-ID"]
        assert 0 < lines[0]["bank_ms"] < lines[0]["ms"] < 20_000
        assert {line["bank_ms"] for line in lines[1:]} == {None}
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
        sent = (support.AUTHORIZED_CARD, "*" * 13, "Lovelace", "4931", KEY, "Bearer")
        assert not any(words in gateway.log for words in sent), "nor is there anything that had to be masked"


def test_what_happens_during_a_request_is_logged_with_its_id() -> None:
    """Also what happens in the thread that talks to the bank."""
    with support.free_port() as free:
        pass
    with Gateway(LOG_FORMAT="json", BANK_URL=f"http://127.0.0.1:{free}", BANK_RETRIES="1") as gateway:
        gateway.session.headers["X-Request-ID"] = "order-66"
        assert gateway.pay().status_code == 503
        loggers = ("gateway.access", "gateway.payments", "urllib3.connectionpool")
        wait_until(lambda: all(f'"{logger}"' in gateway.log for logger in loggers))
        ids = {line["logger"]: line.get("request_id") for line in map(json.loads, gateway.log.splitlines())}
        assert ids == dict.fromkeys(loggers, "order-66")


@pytest.fixture(scope="module")
def strict() -> Iterator[Gateway]:
    """A gateway that wants a key, and whose bank can't be reached."""
    with support.free_port() as free:
        pass
    with Gateway(LOG_FORMAT="json", key=KEY, API_KEYS=API_KEYS, BANK_URL=f"http://127.0.0.1:{free}") as gateway:
        yield gateway


@pytest.mark.parametrize("sane", ["order-66", "a", "x" * 128, "A.b_c~9", "00000000-0000-4000-8000-000000000000"])
def test_a_sane_request_id_is_taken_over(strict: Gateway, sane: str) -> None:
    """So that a merchant finds its own id in the answer, in the problem document and in our log."""
    answer = requests.get(f"{strict.api}/payments/1", headers={"X-Request-ID": sane}, timeout=10)
    assert (answer.headers["X-Request-ID"], answer.json()["instance"]) == (sane, sane)
    wait_until(lambda: f'"{sane}"' in strict.log)


@pytest.mark.parametrize(
    "insane",
    [
        *("", "two words", "x" * 129, "caf\u00e9", 'a"b', "a/b", "a,b", "<b>", "%20"),
        *("4242424242424242", "4242-4242-4242-4242", "order4242424242424242", "9-4242424242424242-9"),
    ],
)
def test_an_insane_request_id_is_replaced(strict: Gateway, insane: str) -> None:
    """By a UUID: it would go into logs, headers and documents, and may be a card number."""
    headers = {"X-Request-ID": insane.encode()}
    answer = requests.get(f"{strict.api}/payments/1", headers=headers, timeout=10)
    request_id = answer.headers["X-Request-ID"]
    assert str(UUID(request_id)) == request_id == answer.json()["instance"]
    wait_until(lambda: request_id in strict.log)
    assert not insane or f'"{insane}"' not in strict.log


def test_every_answer_has_a_request_id_and_every_problem_names_it(gateway: Gateway, strict: Gateway) -> None:
    """Whichever layer it comes from; and no two have the same."""
    key, pay = {"Authorization": f"Bearer {KEY}"}, f"{strict.api}/payments"
    ask = partial(requests.request, timeout=30)
    answers = [
        gateway.pay(),
        ask("POST", pay, json=valid_payment()),
        ask("POST", pay, json={}, headers=key),
        ask("GET", f"{pay}/{uuid4()}", headers=key),
        ask("GET", f"{strict.root}/nowhere"),
        ask("DELETE", pay, headers=key),
        ask("POST", pay, json=valid_payment(cvv="1" * 20_000), headers=key),
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


def test_the_bank_is_told_which_request_it_is() -> None:
    """By X-Request-ID, and by traceparent when the merchant sent one that is well-formed (W3C Trace Context)."""
    zeros = ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01")
    malformed = ["", "00", TRACEPARENT.upper(), TRACEPARENT + "-x y", "ff" + TRACEPARENT[2:], *zeros]
    authorized = reply(200, b'{"authorized": true, "authorization_code": "1"}')
    with scripted_bank(authorized) as bank, Gateway(BANK_URL=bank.url) as gateway:
        for number, traceparent in enumerate([TRACEPARENT, *malformed]):
            gateway.session.headers.update({"X-Request-ID": f"order-{number}", "traceparent": traceparent})
            assert gateway.pay().status_code == 201
        got = [dict(re.findall(r"(?im)^(x-request-id|traceparent): *(.*?)\r$", raw.decode())) for raw in bank.requests]
        told = [{name.lower(): value for name, value in headers.items()} for headers in got]
        assert [headers.pop("x-request-id") for headers in told] == [f"order-{n}" for n in range(len(told))]
        assert told[0] == {"traceparent": TRACEPARENT}
        assert dict(zip(malformed, told[1:], strict=True)) == {wrong: {} for wrong in malformed}


def start(stdout: int, **settings: str) -> "subprocess.Popen[str]":
    """Start a gateway whose output nobody collects."""
    environment = {"PATH": os.environ["PATH"], "PORT": "0", **settings}
    command = [sys.executable, "run.py"]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_a_reader_that_stops_reading_holds_up_no_request() -> None:
    """Both pipes are full after a few hundred lines: payments go on, and so does SIGTERM."""
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


def test_on_a_terminal_it_is_text_for_people() -> None:
    """LOG_FORMAT=auto: the banner with a curl to try, and a line of text for each request."""
    ours, its = pty.openpty()
    process = start(its)
    os.close(its)
    said = b""
    try:
        while b"curl" not in said:
            said += os.read(ours, 65536)
        banner = said.decode().splitlines()
        assert banner[0] == "Payment gateway"
        found = re.search(r"API +(\S+)/payments", said.decode())
        assert found is not None
        assert requests.get(f"{found[1]}/payments/{uuid4()}", timeout=10).status_code == 404
        while b"status=404" not in said:
            said += os.read(ours, 65536)
        line = said.decode().splitlines()[-1]
        assert re.match(r"\d{4}-\S+Z INFO gateway\.access request_id=\S+ merchant=default method=GET ", line)
    finally:
        process.terminate()
        process.communicate(timeout=30)
        with contextlib.suppress(OSError):
            os.close(ours)
