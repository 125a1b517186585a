"""The simulator's ledger: what the bank decided, and the money that it keeps for each payment.

It decides about captures, voids and refunds itself: what exceeds a payment's balances is declined, and a repeated id
gets the decision that it got before. It keeps no card number, only whether a card's captures or refunds are declined.
"""

import csv
import io
import threading
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

# The outcome of what was looked up before any request for it arrived. It never happens.
UNKNOWN: Final = "unknown"


@dataclass
class Entry:
    """A payment in the ledger. Amounts are in minor units; they and the currency are None if it never arrived.

    declines: the kinds of actions that are declined on this payment's card
    actions: by id, in the order in which they arrived
    """

    outcome: str
    authorization_code: str = ""
    amount: int | None = None
    currency: str | None = None
    declines: frozenset[str] = frozenset()
    captured: int = 0
    voided: int = 0
    refunded: int = 0
    actions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def left(self) -> int:
        """Return what is authorized, and neither captured nor released."""
        authorized = self.amount if self.outcome == "authorized" and isinstance(self.amount, int) else 0
        return authorized - self.captured - self.voided

    def shown(self) -> dict[str, Any]:
        """Return the entry for /ledger."""
        return {
            "authorized": self.outcome == "authorized",
            "authorization_code": self.authorization_code,
            "amount": self.amount,
            "currency": self.currency,
            "captured": self.captured,
            "voided": self.voided,
            "refunded": self.refunded,
            "actions": dict(self.actions),
        }


class Ledger:
    """The bank's decisions by payment id. A decision about a request without an id is not kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}

    def decide(
        self,
        payment_id: str | None,
        payment: dict[str, Any],
        *,
        authorized: bool,
        declines: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        """Return the decision about a payment; the first one counts, however often the request comes.

        It has the payment's id if the request had it.
        """
        code = str(uuid4()) if authorized else ""
        if payment_id is None:
            return {"authorized": authorized, "authorization_code": code}
        outcome = "authorized" if authorized else "declined"
        entry = Entry(outcome, code, payment["amount"], payment["currency"], declines)
        with self._lock:
            kept = self._entries.setdefault(payment_id, entry)
        return {
            "payment_id": payment_id,
            "authorized": kept.outcome == "authorized",
            "authorization_code": kept.authorization_code,
        }

    def find(self, payment_id: str) -> dict[str, Any]:
        """Return the outcome of a payment. An unknown payment is declined if it arrives later, so that is final."""
        with self._lock:
            kept = self._entries.setdefault(payment_id, Entry(UNKNOWN))
        if kept.outcome == UNKNOWN:
            return {"status": UNKNOWN, "final": True}
        return {"status": kept.outcome, "authorization_code": kept.authorization_code}

    def act(self, payment_id: str, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return the decision about an action; the first one counts, however often the request comes.

        An action of an unknown payment is declined, and the payment is never authorized, as after a look-up.

        kind: captures, voids or refunds
        request: action_id, amount, currency; for a capture also final
        """
        action_id, amount = request["action_id"], request["amount"]
        with self._lock:
            entry = self._entries.setdefault(payment_id, Entry(UNKNOWN))
            known = entry.actions.get(action_id)
            if known is None:
                approved = request["currency"] == entry.currency and _do(entry, kind, amount, request)
                known = {"type": kind, "amount": amount, "outcome": "approved" if approved else "declined"}
                entry.actions[action_id] = known
            return {"action_id": action_id, "approved": known["outcome"] == "approved"}

    def find_action(self, payment_id: str, action_id: str) -> dict[str, Any]:
        """Return the outcome of an action. An unknown action is declined if it arrives later, so that is final."""
        with self._lock:
            entry = self._entries.setdefault(payment_id, Entry(UNKNOWN))
            known = entry.actions.setdefault(action_id, {"type": None, "amount": None, "outcome": UNKNOWN})
        return {"status": known["outcome"], "final": known["outcome"] == UNKNOWN}

    def all(self) -> dict[str, dict[str, Any]]:
        """Return the entries by payment id."""
        with self._lock:
            return {payment_id: entry.shown() for payment_id, entry in self._entries.items()}

    def statement(self) -> str:
        """Return the ledger as a statement for `run.py reconcile`, without payments that never arrived."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("payment_id", "amount", "currency", "outcome", "captured", "refunded"))
        with self._lock:
            for payment_id, entry in self._entries.items():
                if entry.outcome != UNKNOWN:
                    amounts = entry.captured, entry.refunded
                    lines.writerow((payment_id, entry.amount, entry.currency, entry.outcome, *amounts))
        return text.getvalue()


def _do(entry: Entry, kind: str, amount: int, request: dict[str, Any]) -> bool:
    """Move the money of an action if the payment has it; return whether it has."""
    if kind in entry.declines:
        return False
    left = entry.left()
    match kind:
        case "captures" if amount <= left:
            entry.captured += amount
            if request.get("final"):
                entry.voided += left - amount
        case "voids" if amount == left:
            entry.voided += amount
        case "refunds" if amount <= entry.captured - entry.refunded:
            entry.refunded += amount
        case _:
            return False
    return True
