"""How batches are done in PostgreSQL: on the event loop, one statement for each batch.

Claims, changes and reads have a connection each, so that a batch of one kind does not wait for another kind. A call
that the statement did not do is done alone, in a thread. It waits there for what it needs, and says why it fails.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.async_connection import AsyncConnection, StatementFailed
from storage.batching import Call, Outcome
from storage.payment_batches import ChangeBatch, ClaimBatch, FindBatch
from storage.payment_statements import Statement, Statements
from storage.records import StoreUnavailable


class PostgresqlBatches:
    """Does batches of calls of `Sql.claim`, `change` and `find`.

    options: how to connect, the parameters of `psycopg.connect`

    When a connection is lost, `claim` and `change` raise `StoreUnavailable`; then the batch is recorded or nothing is.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._statements = Statements("postgresql")
        self._claims, self._changes, self._reads = (AsyncConnection(options) for _ in range(3))

    async def claim(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        """Return the outcomes of calls of `claim`."""
        batch = ClaimBatch(calls)
        returned = await _execute(self._claims, self._statements.claim, batch.rows)
        return batch.outcomes(payment_id for (payment_id,) in returned)

    async def change(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        """Return the outcomes of calls of `change`."""
        batch = ChangeBatch(calls)
        returned = await _execute(self._changes, self._statements.change, batch.rows)
        return batch.outcomes(payment_id for (payment_id,) in returned)

    async def find(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        """Return the outcomes of calls of `find`; none if the connection is lost, for a read may be repeated."""
        batch, statement = FindBatch(calls), self._statements.find
        try:
            returned = await self._reads.execute(statement.text, statement.parameters(batch.rows))
        except (StatementFailed, StoreUnavailable):
            return [None] * len(calls)
        return batch.outcomes(map(statement.payment, returned))

    def close(self) -> None:
        """Close the connections."""
        for connection in (self._claims, self._changes, self._reads):
            connection.close()


async def _execute(
    connection: AsyncConnection, statement: Statement, rows: list[dict[str, Any]]
) -> Sequence[tuple[Any, ...]]:
    """Return what a statement returns; nothing if it fails, for then it has done nothing."""
    try:
        return await connection.execute(statement.text, statement.parameters(rows))
    except StatementFailed:
        return ()
