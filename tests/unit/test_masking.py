"""No card number is readable in what is logged, however it got there; and nothing else is made unreadable."""

import json
import random
import re
import subprocess
import sys
from uuid import UUID, uuid4

import pytest

from telemetry.masking import holds_card_number, mask
from tests.support import ROOT

# Test card numbers that schemes and acquirers publish; those of 17 to 19 digits of Maestro are made up, and no
# shorter part of them would pass for a card number.
CARDS = {
    "Visa 13": "4222222222222",
    "Visa 16": "4111111111111111",
    "Visa 19": "4000000000000000006",
    "American Express 15": "378282246310005",
    "Diners Club 14": "30569309025904",
    "Discover 16": "6011000990139424",
    "JCB 16": "3530111333300000",
    "Mastercard 16": "5555555555554444",
    "Mastercard 2-series": "2223003122003222",
    "Maestro 16": "6759649826438453",
    "Maestro 17": "50186987567551840",
    "Maestro 18": "501822917091029684",
    "Maestro 19": "5018444223047813893",
    "UnionPay 19": "6205500000000000004",
}
# Runs of 13 digits that their last one does not fit; of longer ones some part may fit by chance.
NO_CARDS = ("4222222222223", "0000000000001", "1234567890123", "4222-222-222-223")


def grouped(card: str, separator: str) -> str:
    """As people and card terminals write it."""
    return separator.join(card[start : start + 4] for start in range(0, len(card), 4))


def digits(text: str) -> str:
    return re.sub("[^0-9]", "", text)


def words(text: str) -> str:
    return re.sub("[0-9* ._~/-]", "", text)


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "card {}.",
        '{{"card_number": "{}", "amount": "x"}}',
        "card_number={}&cvv=x",
        "b'{}'",
        "x{}y",
        "_{}_",
        "/payments/{}?",
        "77{}",
        "{}77",
        "7 {} 7",
        "\u0664{}\u0664",
        "(\n{}\n)",
    ],
)
def test_a_card_number_is_masked_wherever_it_stands(card: str, around: str) -> None:
    """Alone, in JSON, in a query, glued to letters or to more digits, in groups or in one."""
    for separator in ("", " ", "-", ".", "_", "~", "/", "--", "- "):
        masked = mask(around.format(grouped(card, separator)))
        assert masked.count("*") >= len(card)
        assert digits(masked) in {"", "7", "77"}, "what it was glued to may look like a part of it"
        assert words(masked) == words(around.format(""))


def test_a_card_number_with_any_one_separator_between_any_two_digits_is_masked() -> None:
    """Whoever types it."""
    chance = random.Random(1)
    for _ in range(2000):
        card = chance.choice(list(CARDS.values()))
        text = "".join(digit + chance.choice(["", "", " ", "-", "."]) for digit in card)
        assert digits(mask(text)) == ""
        assert holds_card_number(text)


def test_every_number_of_13_to_19_digits_that_a_check_digit_fits_is_masked() -> None:
    """Whichever scheme it is of; and of ten numbers of 13 digits nine, which no check digit fits, are left."""
    chance = random.Random(2)
    for length in range(13, 20):
        for _ in range(200):
            stem = "".join(chance.choices("0123456789", k=length - 1))
            masked = [mask(f"<{stem}{check}>") for check in range(10)]
            assert f"<{'*' * length}>" in masked
            if length == 13:
                assert masked.count(f"<{'*' * length}>") == 1
                assert sum(stem in left for left in masked) == 9


def test_a_uuid_is_left_alone() -> None:
    """Payments are found by it. Also one made of digits only, and also next to other numbers."""
    chance = random.Random(3)
    uuids = [uuid4() for _ in range(5000)]
    uuids += [UUID(int=int("".join(chance.choices("0123456789", k=32)), 16)) for _ in range(5000)]
    for uuid in map(str, uuids):
        for text in (uuid, uuid.upper(), f'"{uuid}"', f"/payments/{uuid}", f"{uuid} {uuid}", f"201 {uuid} 1050"):
            assert mask(text) == text
            assert not holds_card_number(text)


@pytest.mark.parametrize(
    "text",
    [
        *NO_CARDS,
        "2026-11-22T19:36:47.206186Z",
        "2026-11-22 19:36:47,206",
        '{"amount": 999999999999, "currency": "GBP", "expiry_month": 12, "expiry_year": 2099}',
        "http://127.0.0.1:8000/api/v1/payments",
        "192.168.100.200:65535",
        "status=201 ms=13.4 bank_ms=5.0",
        "card_last4 8877",
        "",
        "no digits",
    ],
)
def test_what_is_no_card_number_is_left_alone(text: str) -> None:
    """Times, amounts, addresses, the last four digits, and digits that no check digit fits."""
    assert mask(text) == text
    assert not holds_card_number(text)


LOGGED = """
import logging, sys
from telemetry import logs, request_context
from connexion.lifecycle import ConnexionRequest
from handlers import problems
import asyncio
CARD = "4111111111111111"
logs.configure("DEBUG", sys.argv[1])
def fail(card_number):
    raise ValueError("no such card: " + card_number)
request_context.current.set(request_context.RequestContext(id="order-66"))
for name in ("urllib3", "asyncio", "some.library", "gateway.payments", "gateway.access"):
    log = logging.getLogger(name)
    log.error("in the message " + CARD)
    log.error("in the arguments %s %r", "4111-1111-1111-1111", {"card": CARD})
    try:
        fail(CARD)
    except ValueError as error:
        log.exception("in the exception")
        log.error("in the exception's words: %s", error, stack_info=True)
        asyncio.run(problems.render(ConnexionRequest({"type": "http"}), error))
logs.close()
"""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_is_logged_holds_no_card_number(log_format: str) -> None:
    """A library's messages are withheld, the gateway's own are masked, and a traceback shows no values."""
    command = [sys.executable, "-W", "ignore", "-c", LOGGED, log_format]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    written = run.stdout + run.stderr
    assert "1111" not in written
    assert "no such card: ****************" in written, "the gateway's own words, where it says them"
    assert written.count("in the message") == written.count("in the arguments") == 2, "the gateway's own loggers"
    assert "****-****-****-**** {'card': '****************'}" in written
    assert written.count("message withheld") == 3 * 4
    assert written.count("unhandled ValueError") == 5
    assert ", in fail" in written, "where it happened"
    assert "Logging error" not in written
    if log_format == "json":
        lines = [json.loads(line) for line in written.splitlines()]
        assert {line["request_id"] for line in lines} == {"order-66"}
        assert {line["logger"] for line in lines} >= {"urllib3", "some.library", "gateway.payments"}
