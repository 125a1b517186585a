"""Which records of a database are due for a look-up, how each is taken by one process, and when it was claimed.

Payments and actions have the same columns for this: id, claimed_at, look_up_at and look_ups.
"""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from storage import claims
from storage.banks import names_of_bank
from storage.clock import now


def is_unresolved(table: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition that a record is PENDING without a running request."""
    return sa.and_(_is_pending(table), table.c.working_until <= now())


def claimed_s_ago(engine: sa.Engine, table: sa.Table, record_id: UUID) -> float:
    """Return how many seconds ago a record was claimed for the last time, by the database's clock."""
    with engine.connect() as connection:
        query = sa.select(now(), table.c.claimed_at).where(table.c.id == record_id)
        is_now, claimed_at = connection.execute(query).one()
    return float((is_now - claimed_at).total_seconds())


def take_due(
    engine: sa.Engine,
    columns: Sequence[sa.Column[Any]],
    limit: int,
    interval_s: Callable[[int], float],
    bank: str | None,
) -> list[sa.Row[Any]]:
    """Return the rows of PENDING records that are due, those that were never looked up first; as `store.take_due`.

    columns: of the table, in the order in which they are returned
    """
    table = columns[0].table
    assert isinstance(table, sa.Table)
    is_pending = _is_pending(table)
    due = sa.select(table.c.id, table.c.look_ups).where(is_pending, table.c.look_up_at <= now())
    due = due.order_by(table.c.look_up_at).limit(limit)
    taken = []
    with engine.begin() as connection:
        if bank is not None:
            due = due.where(table.c.bank.in_(names_of_bank(bank, claims.bank_moves_of(connection))))
        candidates = dict(connection.execute(due.where(table.c.look_ups == sa.literal_column("0"))).all())
        if len(candidates) < limit:
            candidates |= connection.execute(due).all()
        for record_id, look_ups in list(candidates.items())[:limit]:
            unchanged = sa.and_(table.c.id == record_id, is_pending, table.c.look_ups == look_ups)
            values = {"look_up_at": now(interval_s(look_ups)), "look_ups": look_ups + 1}
            take = sa.update(table).where(unchanged).values(values).returning(*columns)
            row = connection.execute(take).one_or_none()
            if row is not None:  # else another process took it
                taken.append(row)
    return taken


def list_unresolved(
    engine: sa.Engine, columns: Sequence[sa.Column[Any]], other_than: str | None, limit: int | None
) -> Sequence[sa.Row[Any]]:
    """Return the rows of unresolved records, oldest first; as `store.list_unresolved`."""
    table = columns[0].table
    assert isinstance(table, sa.Table)
    query = sa.select(*columns).where(is_unresolved(table)).order_by(table.c.created_at).limit(limit)
    with engine.connect() as connection:
        if other_than is not None:
            query = query.where(table.c.bank.not_in(names_of_bank(other_than, claims.bank_moves_of(connection))))
        return connection.execute(query).all()


def _is_pending(table: sa.Table) -> sa.ColumnElement[bool]:
    return table.c.status == sa.literal_column("'PENDING'")  # a literal, so that the indexes are used
