"""Let this process die by SIGKILL while a batch is written: at a batch's commit, or while PostgreSQL works on it."""

import asyncio
import os
import random
import signal
from collections.abc import Callable, Sequence
from typing import Any

from storage.batching import Call
from storage.postgresql_batches import PostgresqlBatches
from storage.sqlite_batches import SqliteBatches

# The latest time in seconds, after a statement was begun on PostgreSQL, at which the process dies.
LATEST_S = 0.003


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_by_chance(chance: float) -> None:
    """Die in any batch of claims or changes, with this chance."""
    for function in ("claim", "change"):
        die_in(function, lambda _: random.random() < chance)


def die_in(function: str, chosen: Callable[[Sequence[Call]], bool]) -> None:
    """Die in the first batch of "claim" or "change" that is chosen."""
    in_sqlite, in_postgresql = getattr(SqliteBatches, function), getattr(PostgresqlBatches, function)

    def sqlite(batches: SqliteBatches, connection: Any, calls: Sequence[Call]) -> Any:
        outcomes = in_sqlite(batches, connection, calls)
        if chosen(calls):
            die()
        return outcomes

    async def postgresql(batches: PostgresqlBatches, calls: Sequence[Call]) -> Any:
        if chosen(calls):
            asyncio.get_running_loop().call_later(random.uniform(0, LATEST_S), die)
        outcomes = await in_postgresql(batches, calls)
        if chosen(calls):
            die()
        return outcomes

    setattr(SqliteBatches, function, sqlite)
    setattr(PostgresqlBatches, function, postgresql)
