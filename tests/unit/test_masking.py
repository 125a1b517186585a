"""The log filter masks every card number, wherever it is in a line, and changes nothing else."""

import json
import random
import re
import subprocess
import sys
from uuid import UUID, uuid4

import pytest

from telemetry.masking import holds_card_number, mask
from tests.support import ROOT

# Test card numbers that schemes and acquirers publish. Those of Maestro with 17 to 19 digits are made up; no shorter
# part of them passes Luhn's check.
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
# Runs of 13 digits that fail Luhn's check. A part of a longer run may pass it by chance.
NOT_CARDS = ("4222222222223", "0000000000001", "1234567890123", "4222-222-222-223")


def grouped(card: str, separator: str) -> str:
    """Return a card number in groups of four digits, as people write it."""
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
def test_a_card_number_is_masked_in_every_context(card: str, around: str) -> None:
    """It is masked alone, in JSON, in a query, next to letters or other digits, and with every separator."""
    for separator in ("", " ", "-", ".", "_", "~", "/", "--", "- "):
        masked = mask(around.format(grouped(card, separator)))
        assert masked.count("*") >= len(card)
        assert digits(masked) in {"", "7", "77"}, "digits next to it may be masked, too"
        assert words(masked) == words(around.format(""))


def test_a_card_number_with_separators_at_random_places_is_masked() -> None:
    """Each pair of digits may have a separator between them or none."""
    chance = random.Random(1)
    for _ in range(2000):
        card = chance.choice(list(CARDS.values()))
        text = "".join(digit + chance.choice(["", "", " ", "-", "."]) for digit in card)
        assert digits(mask(text)) == ""
        assert holds_card_number(text)


def test_every_number_of_13_to_19_digits_that_passes_luhns_check_is_masked() -> None:
    """Numbers of every prefix are masked; of ten numbers of 13 digits, the nine with a wrong check digit are not."""
    chance = random.Random(2)
    for length in range(13, 20):
        for _ in range(200):
            stem = "".join(chance.choices("0123456789", k=length - 1))
            masked = [mask(f"<{stem}{check}>") for check in range(10)]
            assert f"<{'*' * length}>" in masked
            if length == 13:
                assert masked.count(f"<{'*' * length}>") == 1
                assert sum(stem in left for left in masked) == 9


def test_a_uuid_is_never_masked() -> None:
    """Ids of payments stay readable, even those of decimal digits only and those next to other numbers."""
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
        *NOT_CARDS,
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
def test_text_without_a_card_number_is_not_changed(text: str) -> None:
    """Times, amounts, addresses, last four digits and numbers that fail Luhn's check stay as they are."""
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
        log.error("in the exception's message: %s", error, stack_info=True)
        asyncio.run(problems.render(ConnexionRequest({"type": "http"}), error))
logs.close()
"""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_log_line_holds_a_card_number(log_format: str) -> None:
    """Messages of libraries are withheld, those of the gateway are masked, and tracebacks show no values."""
    command = [sys.executable, "-W", "ignore", "-c", LOGGED, log_format]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    written = run.stdout + run.stderr
    assert "1111" not in written
    assert "no such card: ****************" in written, "the gateway's own message is masked"
    assert written.count("in the message") == written.count("in the arguments") == 2, (
        "only the gateway's own loggers show messages"
    )
    assert "****-****-****-**** {'card': '****************'}" in written
    assert written.count("message withheld") == 3 * 4
    assert written.count("unhandled ValueError") == 5
    assert ", in fail" in written, "the traceback names the function"
    assert "Logging error" not in written
    if log_format == "json":
        lines = [json.loads(line) for line in written.splitlines()]
        assert {line["request_id"] for line in lines} == {"order-66"}
        assert {line["logger"] for line in lines} >= {"urllib3", "some.library", "gateway.payments"}
