"""How batches are done in SQLite: in a transaction that a thread has begun, and with few statements of one row each.

For each statement, and for each row that it returns, the thread releases the interpreter's lock, and under load it
waits until it gets the lock again. So payments are read as one row, in JSON.
"""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from storage.batching import Call, Outcome
from storage.payment_batches import ChangeBatch, ClaimBatch, FindBatch
from storage.payment_statements import Statement, Statements
from storage.records import Payment


class NotPlain(Exception):
    """A statement did not do all of a batch, and what it did must be rolled back."""


class SqliteBatches:
    """Does batches of calls of `Sql.claim`, `change` and `find`."""

    def __init__(self) -> None:
        self._statements = Statements("sqlite")

    def claim(self, connection: sa.Connection, calls: Sequence[Call]) -> Sequence[Outcome]:
        """Return the outcomes of calls of `claim`."""
        batch, statement = ClaimBatch(calls), self._statements.claim
        ids = batch.ids()
        if _count(connection, statement, statement.parameters(batch.rows)) == len(ids):
            return batch.outcomes(ids)
        found = self._payments(connection, [{"id": payment_id} for payment_id in ids])
        return batch.outcomes(payment.id for payment in found)

    def change(self, connection: sa.Connection, calls: Sequence[Call]) -> Sequence[Outcome]:
        """Return the outcomes of calls of `change`. Raises `NotPlain`."""
        batch = ChangeBatch(calls)
        ids = batch.ids()
        parameters = self._statements.change.parameters(batch.rows)
        if _count(connection, self._statements.change, parameters) != len(ids):
            raise NotPlain
        connection.exec_driver_sql(self._statements.audit.text, parameters)
        return batch.outcomes(ids)

    def find(self, connection: sa.Connection, calls: Sequence[Call]) -> Sequence[Outcome]:
        """Return the outcomes of calls of `find`."""
        batch = FindBatch(calls)
        return batch.outcomes(self._payments(connection, batch.rows))

    def _payments(self, connection: sa.Connection, rows: list[dict[str, Any]]) -> list[Payment]:
        statement = self._statements.find
        text = connection.exec_driver_sql(statement.text, statement.parameters(rows)).scalar_one()
        return list(map(statement.payment, json.loads(text)))


def _count(connection: sa.Connection, statement: Statement, parameters: dict[str, Any]) -> int:
    """Execute a statement; return how many rows it wrote."""
    kept = {"preserve_rowcount": True}  # else SQLAlchemy does not tell it of an INSERT
    return connection.exec_driver_sql(statement.text, parameters, execution_options=kept).rowcount
