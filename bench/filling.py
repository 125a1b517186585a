"""Fill a gateway's database with settled payments of one merchant, as many as a long time of work would leave.

They are copies of the first payment that the gateway made, a second apart and older than it, each with a line in the
audit trail. Each reference has `PAYMENTS_OF_A_REFERENCE` of them, far from each other.
"""

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from storage.tables import changes, payments

PAYMENTS_OF_A_REFERENCE: Final = 20

# The time of payment 0; payment n was made n seconds later.
START: Final = datetime(2020, 1, 1, tzinfo=UTC)

# The most payments that one statement copies.
_STATEMENT: Final = 1_000_000

# The payments with numbers from :first to :last.
_NUMBERS: Final = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)",
    "postgresql": "WITH numbers AS (SELECT n FROM generate_series(:first, :last) AS n)",
}
# A UUID of version 4, and the time of payment n.
_SQLITE_UUID: Final = "lower(hex(randomblob(6))) || '4' || substr(lower(hex(randomblob(2))), 2) || 'a' || substr(lower(hex(randomblob(8))), 2)"  # noqa: E501
_UUID: Final = {"sqlite": _SQLITE_UUID, "postgresql": "gen_random_uuid()"}
_TIME: Final = {
    "sqlite": f"strftime('%Y-%m-%d %H:%M:%S.000000', '{START:%Y-%m-%d}', n || ' seconds')",
    "postgresql": f"timestamp '{START:%Y-%m-%d}' + n * interval '1 second'",
}
# For the session that fills: no wait for the disk, memory for the indexes, no search for the payment of each change.
_SESSION: Final = {
    "sqlite": ("PRAGMA synchronous = OFF", "PRAGMA cache_size = -500000"),
    "postgresql": (
        "SET synchronous_commit = off",
        "SET maintenance_work_mem = '512MB'",
        "SET session_replication_role = replica",
    ),
}
_AFTER: Final = {
    "sqlite": ("ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"),
    "postgresql": ("VACUUM ANALYZE", "CHECKPOINT"),
}
# The indexes that are not unique, by name and definition. They are created again after a fill, which takes less time.
_INDEXES: Final = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE 'CREATE INDEX%'",
    "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename IN ('payments', 'changes') AND indexdef LIKE 'CREATE INDEX%'",  # noqa: E501
}


class Filled:
    """A gateway's database that is filled; payment n of `count` was made n seconds after `START`."""

    def __init__(self, store_url: str) -> None:
        self._engine = sa.create_engine(store_url, isolation_level="AUTOCOMMIT")
        self._kind = self._engine.dialect.name
        self._chosen = random.Random(1)  # noqa: S311  # no secret
        with self._engine.connect() as connection:  # the gateway has made one payment
            query = sa.select(changes.c.id, changes.c.payment_id)
            self._change_id, self._payment_id = connection.execute(query).one()
        self.count = 0

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def fill(self, count: int) -> None:
        """Fill it further until it has `count` payments. No gateway may be running."""
        with self._engine.connect() as connection:
            for statement in _SESSION[self._kind]:
                connection.exec_driver_sql(statement)
            definitions = self._drop_indexes(connection)
            for first in range(self.count, count, _STATEMENT):
                self._copy(connection, first, min(first + _STATEMENT, count) - 1)
            for statement in (*definitions, *_AFTER[self._kind]):
                connection.exec_driver_sql(statement)
            connection.detach()  # so that no other session has its settings
        self.count = count

    def add_pending(self, number: int) -> None:
        """Insert PENDING payments, older than all others, that are due for a look-up."""
        new = {"status": "'PENDING'", "authorization_code": "''", "response_code": "''", "updated_at": "NULL"}
        with self._engine.connect() as connection:
            self._insert(connection, -number, -1, new)

    def pending(self) -> int:
        """Return how many payments are PENDING."""
        with self._engine.connect() as connection:
            query = "SELECT count(*) FROM payments WHERE status = 'PENDING'"  # no parameter, so that the index is used
            number: int = connection.exec_driver_sql(query).scalar_one()
            return number

    def anywhere(self, number: int) -> list[tuple[datetime, UUID]]:
        """Return the times and ids of payments that are chosen at random, in any order."""
        seconds = self._chosen.sample(range(self.count), min(number, self.count))
        times = [START + timedelta(seconds=each) for each in seconds]
        with self._engine.connect() as connection:
            by_time = [sa.select(payments.c.id).where(payments.c.created_at == time) for time in times]
            return [(time, connection.execute(query).scalar_one()) for time, query in zip(times, by_time, strict=True)]

    def references(self, number: int) -> list[str]:
        """Return references that are chosen at random."""
        of_all = max(1, self.count // PAYMENTS_OF_A_REFERENCE)
        return [f"order {self._chosen.randrange(of_all)}" for _ in range(number)]

    def between(self, since: datetime, until: datetime) -> list[tuple[UUID, int, str]]:
        """Return the id, amount and currency of each payment made in this time, the end excluded."""
        columns = payments.c
        query = sa.select(columns.id, columns.amount, columns.currency)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(columns.created_at >= since, columns.created_at < until))
            return [(payment_id, amount, currency) for payment_id, amount, currency in rows]

    def size_mib(self) -> float:
        """Return the size of the database's files, in MiB."""
        if self._kind == "sqlite":
            file = Path(str(self._engine.url.database))
            return sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*")) / 2**20
        with self._engine.connect() as connection:
            size: int = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
            return size / 2**20

    def _drop_indexes(self, connection: sa.Connection) -> list[str]:
        """Drop the indexes that are not unique; return their definitions."""
        indexes = connection.execute(sa.text(_INDEXES[self._kind])).all()
        for name, _ in indexes:
            connection.exec_driver_sql(f"DROP INDEX {name}")
        return [definition for _, definition in indexes]

    def _copy(self, connection: sa.Connection, first: int, last: int) -> None:
        """Copy the payment with these numbers, and the line that it has in the audit trail."""
        references = max(1, (last - first + 1) // PAYMENTS_OF_A_REFERENCE)
        number = f"{first // PAYMENTS_OF_A_REFERENCE} + (n - {first}) % {references}"
        self._insert(connection, first, last, {"reference": f"'order ' || ({number})"})
        since, until = (START + timedelta(seconds=number) for number in (first, last))
        values = {**changes.c, "payment_id": payments.c.id, "changed_at": payments.c.created_at}
        del values["id"]
        both = payments.join(changes, changes.c.id == self._change_id)
        copies = sa.select(*values.values()).select_from(both).where(payments.c.created_at.between(since, until))
        connection.execute(sa.insert(changes).from_select(list(values), copies))

    def _insert(self, connection: sa.Connection, first: int, last: int, new: Mapping[str, str]) -> None:
        """Copy the payment with these numbers; new: the SQL of columns that differ."""
        times = ("created_at", "claimed_at", "working_until", "look_up_at", "updated_at")
        new = {**dict.fromkeys(times, _TIME[self._kind]), **dict.fromkeys(("id", "attempt"), _UUID[self._kind]), **new}
        names = [column.name for column in payments.c]
        select = ", ".join(new.get(name, f"p.{name}") for name in names)
        statement = f"INSERT INTO payments ({', '.join(names)}) {_NUMBERS[self._kind]} SELECT {select} FROM numbers, payments p WHERE p.id = :copied"  # noqa: S608, E501
        copied = sa.bindparam("copied", self._payment_id, sa.Uuid)
        connection.execute(sa.text(statement).bindparams(copied, first=first, last=last))
