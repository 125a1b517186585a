"""How a merchant's payments are listed in a database, a page at a time.

A page begins after a place, not after a number of rows, so rows that are inserted meanwhile move nothing. An index on
(merchant, created_at, id), and one with the reference, has the rows in this order. The state is in no index: at most
`LOOKED_AT` rows are looked at for it, and a page may be short.

The merchant is a part of the bounds and of the order. With `merchant = ...`, PostgreSQL may walk through the payments
of all merchants in the order of their times, because it expects to find enough of this one soon.
"""

from typing import Final
from uuid import UUID

import sqlalchemy as sa

from storage.records import EARLIEST, LATEST, Page, Payment, Position, State, Status, Wanted
from storage.tables import is_shown, payment_columns, payment_of, payments

LOOKED_AT: Final = 1000

_FIRST_ID: Final = UUID(int=0)
_FIRST: Final = EARLIEST, _FIRST_ID
_LAST: Final = LATEST, UUID(int=2**128 - 1)


def page(connection: sa.Connection, wanted: Wanted) -> Page:
    """Return a page of a merchant's payments that are neither released nor erased, newest first."""
    prefix = {"merchant": wanted.merchant}
    if wanted.reference is not None:
        prefix["reference"] = wanted.reference
    order = [payments.c[name] for name in (*prefix, "created_at", "id")]
    newest_first = [column.desc() for column in order]

    def bound(position: Position) -> sa.Tuple:
        values = [*prefix.values(), *position]
        return sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(values, order, strict=True)))

    lowest = (wanted.created_from, _FIRST_ID) if wanted.created_from else _FIRST
    before = min(wanted.after or _LAST, (wanted.created_to, _FIRST_ID) if wanted.created_to else _LAST)
    before_place = sa.and_(sa.tuple_(*order) < bound(before), is_shown)
    if wanted.reference is not None:  # the index of references has no other rows
        before_place = sa.and_(before_place, payments.c.reference.is_not(None))
    rows = sa.and_(before_place, sa.tuple_(*order) >= bound(lowest))
    last_looked_at: Position | None = None
    if wanted.state is not None:
        # The place comes first: rows that are inserted between the two statements are looked at in addition.
        nth = sa.select(payments.c.created_at, payments.c.id).where(rows).order_by(*newest_first).offset(LOOKED_AT - 1)
        found = connection.execute(nth.limit(1)).one_or_none()
        if found is not None:
            last_looked_at = found.created_at, found.id
            # It replaces the lowest place: with two lower bounds, both databases scan on to the lower one.
            rows = sa.and_(before_place, sa.tuple_(*order) >= bound(last_looked_at))
        rows = sa.and_(rows, in_state(wanted.state))
    query = sa.select(*payment_columns).where(rows).order_by(*newest_first).limit(wanted.limit + 1)
    made = [payment_of(row) for row in connection.execute(query)]
    if len(made) > wanted.limit:
        return Page(made[: wanted.limit], place_of(made[wanted.limit - 1]))
    return Page(made, last_looked_at)


def place_of(payment: Payment) -> Position:
    """Return a payment's place in a list."""
    return payment.created_at, payment.id


def in_state(state: State) -> sa.ColumnElement[bool]:
    """Return the condition that `Payment.state` is this state."""
    columns = payments.c
    is_authorized = columns.status == Status.AUTHORIZED
    something_left = columns.captured + columns.voided < columns.amount
    conditions = {
        State.AUTHORIZED: [something_left, columns.captured == 0],
        State.PARTIALLY_CAPTURED: [something_left, columns.captured > 0],
        State.VOIDED: [~something_left, columns.captured == 0],
        State.CAPTURED: [~something_left, columns.captured > 0, columns.refunded == 0],
        State.PARTIALLY_REFUNDED: [~something_left, columns.refunded > 0, columns.refunded < columns.captured],
        State.REFUNDED: [~something_left, columns.captured > 0, columns.refunded == columns.captured],
    }
    if state in conditions:
        return sa.and_(is_authorized, *conditions[state])
    return columns.status == state
