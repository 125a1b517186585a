"""The end of a chaos run: what the banks, the database and the merchants know is compared, and card data searched."""

import re
from collections import Counter
from typing import Any

from store import Status
from tests.chaos.merchant import CVV
from tests.chaos.tally import Tally


def compare(ledgers: list[dict[str, dict[str, Any]]], table: dict[str, Any], tally: Tally) -> dict[str, int]:
    """Compare the banks' ledgers, the payments in the database and the answers; return the numbers of differences."""
    entries = [(payment_id, entry) for ledger in ledgers for payment_id, entry in ledger.items() if entry["authorized"]]
    authorized = {payment_id for payment_id, _ in entries}
    recorded = {payment_id for payment_id, payment in table.items() if payment.status is Status.AUTHORIZED}
    amounts = Counter(entry["amount"] for _, entry in entries)  # each key has an amount of its own
    answered = {
        answer["id"]: answer["status"] for answer in tally.answers.values() if answer["status"] != Status.PENDING
    }
    return {
        "authorized by the bank and not in the table (losses)": len(authorized - recorded),
        "AUTHORIZED in the table and not by the bank": len(recorded - authorized),
        "authorized twice for one key (doubles)": sum(count - 1 for count in amounts.values()),
        "still PENDING": sum(payment.status is Status.PENDING for payment in table.values()),
        "answers that are not what the table says": sum(
            payment_id not in table or table[payment_id].status != status for payment_id, status in answered.items()
        ),
        "answers that are not what the bank's ledger says": sum(
            (status == Status.AUTHORIZED) != (payment_id in authorized) for payment_id, status in answered.items()
        ),
        "other faults": len(tally.faults),
    }


def leaks(texts: dict[str, str], cards: set[str]) -> list[str]:
    """Return every card number, and every CVV that is a whole word, with the text around it.

    Durations are skipped, because they may hold any digits: `ms=7391.0`.
    """
    numbers = "|".join(map(re.escape, cards)) or "$^"
    pattern = re.compile(rf"(?:{numbers})|(?<![\w.-])(?<!ms=){CVV}(?![\w-])")
    return [
        f"{name}: {text[max(0, found.start() - 60) : found.end() + 60]!r}"
        for name, text in texts.items()
        for found in pattern.finditer(text)
    ]
