"""The end of a chaos run: what the banks, the database and the merchants know is compared, and card data searched."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from store import Action, ActionStatus, Payment, Status
from tests.chaos.merchant import CVV
from tests.chaos.tally import Tally

Ledger = Mapping[str, Mapping[str, Any]]


def compare(
    ledgers: Sequence[Ledger], table: Mapping[str, Payment], actions: Mapping[str, Action], tally: Tally
) -> dict[str, int]:
    """Compare the banks' ledgers, the records in the database and the answers; return the numbers of differences."""
    entries = [(payment_id, entry) for ledger in ledgers for payment_id, entry in ledger.items() if entry["authorized"]]
    authorized = dict(entries)
    recorded = {payment_id for payment_id, payment in table.items() if payment.status is Status.AUTHORIZED}
    amounts = Counter(entry["amount"] for _, entry in entries)  # each key has an amount of its own
    done = {action_id for _, entry in entries for action_id, action in entry["actions"].items() if _is_done(action)}
    approved = {action_id for action_id, action in actions.items() if action.status is ActionStatus.APPROVED}
    references = Counter(actions[action_id].reference for action_id in approved)  # the key; a sale's capture has none
    del references[None]
    answered = [answer for answer in tally.answers.values() if answer["status"] != "PENDING"]
    return {
        "authorized by the bank and not in the table (losses)": len(authorized.keys() - recorded),
        "AUTHORIZED in the table and not by the bank": len(recorded - authorized.keys()),
        "authorized twice for one key (doubles)": sum(count - 1 for count in amounts.values()),
        "done by the bank and not in the table (losses of actions)": len(done - approved),
        "APPROVED in the table and not done by the bank": len(approved - done),
        "done twice for one key (doubles of actions)": sum(count - 1 for count in references.values()),
        "payments whose amounts differ": sum(
            not _agree(payment, authorized.get(payment_id), actions.values()) for payment_id, payment in table.items()
        ),
        "still PENDING": sum(payment.status is Status.PENDING for payment in table.values())
        + sum(action.status is ActionStatus.PENDING for action in actions.values()),
        "answers that are not what the table says": sum(not _is_recorded(each, table, actions) for each in answered),
        "answers that are not what the bank's ledger says": sum(
            (answer["status"] != "DECLINED") != (answer["id"] in (done if "type" in answer else authorized))
            for answer in answered
        ),
        "other faults": len(tally.faults),
    }


def _is_done(action: Mapping[str, Any]) -> bool:
    return bool(action["outcome"] == "approved")


def _agree(payment: Payment, entry: Mapping[str, Any] | None, actions: Iterable[Action]) -> bool:
    """Return whether a payment's amounts are those of the bank, and those of its approved actions."""
    sums = Counter({"captured": 0, "voided": 0, "refunded": 0})
    for action in actions:
        if action.payment_id == payment.id and action.status is ActionStatus.APPROVED:
            sums.update(action.done())
    here = {name: getattr(payment, name) for name in sums}
    there = {name: entry[name] if entry else 0 for name in sums}
    return here == there == sums and not payment.held and not payment.refund_held


def _is_recorded(answer: Mapping[str, Any], table: Mapping[str, Payment], actions: Mapping[str, Action]) -> bool:
    if "type" in answer:
        action = actions.get(answer["id"])
        return action is not None and (action.status, action.amount) == (answer["status"], answer["amount"])
    payment = table.get(answer["id"])
    return payment is not None and (payment.status is Status.DECLINED) == (answer["status"] == "DECLINED")


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
