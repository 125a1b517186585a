"""Batches of the calls that every payment needs: the rows that their statement gets, and what each call returns.

A call that the statement did not do has no outcome: it is not the plain case (storage/payment_statements.py).
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from storage import claims
from storage.batching import Call, Outcome
from storage.records import Change, Payment, fields_of


class ClaimBatch:
    """Calls of `Sql.claim`. One with digests of older gateways looks for those first, so it gets no row."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        arguments = (call.args for call in calls)
        self.rows = [claims.row(*each) for each in arguments if each[1] is None or not each[1].older_digests]

    def ids(self) -> list[UUID]:
        """Return the ids of the payments that have a row."""
        return [row["id"] for row in self.rows]

    def outcomes(self, inserted: Iterable[UUID]) -> list[Outcome]:
        """Return the outcome of each call, from the ids of the rows that were inserted."""
        inserted = set(inserted)
        payments: Iterable[Payment] = (call.args[0] for call in self._calls)
        return [(payment, None) if payment.id in inserted else None for payment in payments]


class ChangeBatch:
    """Calls of `Sql.change`. Those without the payment get no row, and of two for one payment the second."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._with_row: dict[UUID, Call] = {}
        for call in calls:
            if call.keywords["payment"] is not None:
                self._with_row.setdefault(call.args[0].payment_id, call)
        self.rows = [
            fields_of(call.args[0]) | {"response_code": call.args[1], **call.keywords, "payment": None}
            for call in self._with_row.values()
        ]

    def ids(self) -> list[UUID]:
        """Return the ids of the payments that have a row."""
        return list(self._with_row)

    def outcomes(self, changed: Iterable[UUID]) -> list[Outcome]:
        """Return the outcome of each call, from the ids of the payments that were changed."""
        done = {id(self._with_row[payment_id]) for payment_id in changed}
        return [(_changed(call), None) if id(call) in done else None for call in self._calls]


class FindBatch:
    """Calls of `Sql.find`."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._ids: list[UUID] = [call.args[0] for call in calls]
        self.rows: list[dict[str, Any]] = [{"id": payment_id} for payment_id in self._ids]

    def outcomes(self, found: Iterable[Payment]) -> list[Outcome]:
        """Return the outcome of each call, from the payments that were found."""
        payments = {payment.id: payment for payment in found}
        return [(payments.get(payment_id), None) for payment_id in self._ids]


def _changed(call: Call) -> Payment:
    change: Change = call.args[0]
    return change.applied_to(call.keywords["payment"], call.args[1])
