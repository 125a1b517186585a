"""The clock that decides about payments: PostgreSQL's own, and the host's for SQLite.

Gateways on several machines share one database, and their clocks may differ. Whether a request may still be running,
and whether a payment is due for a look-up, is therefore computed in SQL.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from storage.tables import Utc


class now(FunctionElement[datetime]):  # noqa: N801  # it is used like the functions of SQL
    """`now()` is the time of the statement's execution; `now(seconds)` is that many seconds later."""

    type = Utc()
    inherit_cache = True

    def __init__(self, seconds: Any = None) -> None:
        super().__init__(sa.literal_column("0") if seconds is None else sa.cast(seconds, sa.Float))


@compiles(now, "postgresql")
def _postgresql(element: now, compiler: Any, **options: Any) -> str:
    # now() of PostgreSQL is the time when the transaction began.
    seconds = compiler.process(element.clauses, **options)
    return f"(clock_timestamp() AT TIME ZONE 'UTC' + make_interval(secs => {seconds}))"


@compiles(now, "sqlite")
def _sqlite(element: now, compiler: Any, **options: Any) -> str:
    # In the format in which SQLAlchemy writes times, with three digits more than SQLite knows.
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', {seconds}))"
