"""The order in which a payment is refused: its key, its rate, the limit of payments in progress, and then its body."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support import Gateway, reply, scripted_bank, wait_until

KEY, OTHER_KEY = ("pgw_test_" + letter * 43 for letter in "ao")
API_KEYS = ",".join(
    f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in (("acme", KEY), ("other", OTHER_KEY))
)
PAGE = "Origin: https://shop.example"


@contextmanager
def full_gateway(**settings: Any) -> Iterator[Gateway]:
    """A gateway that takes one payment at a time, and has one in progress."""
    answer = threading.Event()

    def authorize_later(connection: Any) -> None:
        answer.wait(60)
        reply(200, b'{"authorized": true}')(connection)

    with (
        scripted_bank(authorize_later) as bank,
        Gateway(BANK_URL=bank.url, BANK_CONCURRENCY="1", BANK_QUEUE="0", **settings) as gateway,
        ThreadPoolExecutor(1) as pool,
    ):
        if "API_KEYS" in settings:
            gateway.session.headers["Authorization"] = f"Bearer {KEY}"
        in_progress = pool.submit(gateway.pay)
        try:
            wait_until(lambda: bank.requests)
            yield gateway
            assert len(bank.requests) == 1
        finally:
            answer.set()
        assert in_progress.result().status_code == 201


def send_head(gateway: Gateway, *headers: str, query: str = "") -> tuple[int, str]:
    """Send the head of a payment and nothing of its body; return the status and code of the answer."""
    head = [
        f"POST /api/v1/payments{query} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        "Content-Length: 150",
        *headers,
    ]
    with gateway.connect() as connection:
        connection.settimeout(5)  # half of the time for a body, which would end in 408
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        data = b""
        while (length := re.search(rb"(?i)content-length: (\d+)\r\n(?:.+\r\n)*\r\n", data)) is None or len(
            data
        ) < length.end() + int(length[1]):
            received = connection.recv(65536)
            assert received, f"no answer, only {data!r}"
            data += received
    assert length is not None
    return int(data.split()[1]), json.loads(data[length.end() :])["code"]


@pytest.mark.parametrize("origins", ["", "https://shop.example"], ids=["without CORS", "with CORS"])
def test_a_payment_too_many_is_refused_before_its_body_is_sent(origins: str) -> None:
    """Also with a query, and from a page, whether or not pages are allowed."""
    settings = {"CORS_ORIGINS": origins} if origins else {}
    with full_gateway(**settings) as gateway:
        for query in ("", "?", "?x", "?x=1&y=2"):
            for headers in ([], [PAGE], ["Origin: https://other.example"], ["Idempotency-Key: k"]):
                assert send_head(gateway, *headers, query=query) == (503, "overloaded"), (query, headers)


def test_a_request_without_a_valid_key_is_unauthorized_when_the_gateway_is_full() -> None:
    """A stranger learns nothing of the load, and is not counted as a refused payment."""
    with full_gateway(API_KEYS=API_KEYS) as gateway:
        for headers in ([], ["Authorization: Bearer pgw_test_x"], ["Authorization: Basic x"], [PAGE]):
            assert send_head(gateway, *headers) == (401, "unauthorized")
        assert send_head(gateway, f"Authorization: Bearer {KEY}") == (503, "overloaded")


def test_a_merchant_over_its_rate_is_limited_when_the_gateway_is_full() -> None:
    """A refused payment counts as a request of the merchant, so it can't be sent again and again for nothing."""
    with full_gateway(API_KEYS=API_KEYS, RATE_LIMIT="3/hour") as gateway:
        acme, other = (f"Authorization: Bearer {key}" for key in (KEY, OTHER_KEY))
        answers = [send_head(gateway, acme) for _ in range(3)]  # the first of its three is the one in progress
        assert answers == [(503, "overloaded"), (503, "overloaded"), (429, "rate_limited")]
        assert send_head(gateway, other) == (503, "overloaded")


def test_strangers_that_send_their_bodies_slowly_take_no_slot_of_a_merchant() -> None:
    """Refused at once, however many they are; the one slot is free for the merchant."""
    with (
        scripted_bank(reply(200, b'{"authorized": true}')) as bank,
        Gateway(BANK_URL=bank.url, BANK_CONCURRENCY="1", BANK_QUEUE="0", API_KEYS=API_KEYS, key=KEY) as gateway,
    ):
        for _ in range(5):
            assert send_head(gateway) == (401, "unauthorized")
        assert gateway.pay().status_code == 201
