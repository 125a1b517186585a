"""A connection to PostgreSQL that works on the event loop, without a thread.

A statement is a transaction of its own, and one round trip. It is not prepared: a pooler like PgBouncer may hand each
transaction to another session, and the plan of a prepared statement is older than the rows that were added since.
"""

import select
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from storage.batching import CLOSED
from storage.records import StoreUnavailable
from telemetry import causes


class StatementFailed(Exception):
    """The database refused a statement, and did nothing."""


class AsyncConnection:
    """A connection that is opened when it is needed, and again when it was lost. It does one statement at a time.

    options: the parameters of `psycopg.AsyncConnection.connect`
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._may_open = True

    async def execute(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """Execute a statement and return its rows.

        Raises `StatementFailed`, and `StoreUnavailable` without a connection; if it was lost meanwhile, the statement
        may have been done.
        """
        try:
            connection = await self._usable()
            cursor = await connection.cursor(binary=True).execute(statement, parameters)
            return await cursor.fetchall()
        except psycopg.Error as error:
            if self._connection is None or self._connection.closed:
                raise StoreUnavailable(causes.of(error)) from None
            raise StatementFailed(causes.of(error)) from None

    def close(self) -> None:
        """End the connection, whatever it is doing, and open no other."""
        self._may_open = False
        self._end()

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None

    async def _usable(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is not None and (self._connection.closed or _has_received(self._connection)):
            self._end()
        if self._connection is None:
            if not self._may_open:
                raise StoreUnavailable(CLOSED)
            self._connection = await psycopg.AsyncConnection.connect(**self._options, autocommit=True)
        return self._connection


def _has_received(idle: psycopg.AsyncConnection[Any]) -> bool:
    """Return whether the server has sent something that nothing asked for, as it does when it ends a connection."""
    poll = select.poll()
    poll.register(idle.fileno(), select.POLLIN)
    return bool(poll.poll(0))
