"""The statements that every payment needs, each for any number of payments: claim, change and find.

They do the plain case: a new payment, or one that has the status from which the change begins. They leave out what is
taken already or locked, and return what they did.

The rows of a statement are one parameter, in JSON, so each statement is compiled once. It is executed without
SQLAlchemy, which would take longer than the database.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from storage import claims
from storage.clock import now
from storage.records import Change, Payment
from storage.tables import actions, changes, is_released, payment_columns, payment_of, payments

# Milliseconds that a claim waits for another transaction with the same key; then the statement fails.
LOCK_TIMEOUT_MS: Final = 1000

_DIALECTS: Final[dict[str, sa.Dialect]] = {
    "postgresql": postgresql.psycopg.dialect(),  # type: ignore[no-untyped-call]
    "sqlite": sqlite.dialect(paramstyle="named"),
}
_INSERTS: Final[dict[str, Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}

_of_change = [changes.c[name] for name in Change.__dataclass_fields__]
_of_claim = [*claims.given, sa.column("request_s", sa.Float)]
_of_settling = [
    *_of_change,
    sa.column("response_code", sa.Text),
    sa.column("attempt", sa.Uuid),
    sa.column("if_unresolved", sa.Boolean),
]

# The rows that a statement is given, as a table with these columns.
_Rows = Callable[[Sequence[sa.ColumnClause[Any]]], sa.FromClause]


class Statement:
    """A statement of one database.

    text: its SQL, with the driver's names of parameters
    """

    def __init__(self, database: str, statement: sa.ClauseElement, given: Sequence[sa.ColumnClause[Any]]) -> None:
        dialect = _DIALECTS[database]
        compiled = statement.compile(dialect=dialect)
        self.text: Final = str(compiled)
        self._fixed: Final = dict(compiled.params)
        self._names: Final = [each.name for each in given] if database == "sqlite" else None
        to_json = ((each.name, each.type.dialect_impl(dialect).bind_processor(dialect)) for each in given)
        self._to_json: Final = [(name, convert) for name, convert in to_json if convert]
        from_row = (each.type.dialect_impl(dialect).result_processor(dialect, None) for each in payment_columns)
        self._from_row: Final = [(index, convert) for index, convert in enumerate(from_row) if convert]

    def parameters(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the parameters for these rows, by column; the rows are changed."""
        for name, convert in self._to_json:
            for row in rows:
                row[name] = convert(row[name])
        values = rows if self._names is None else [[row[name] for name in self._names] for row in rows]
        return self._fixed | {"rows": json.dumps(values, default=str)}

    def payment(self, row: Sequence[Any]) -> Payment:
        """Return the payment in a row that the statement returned."""
        values = list(row)
        for index, convert in self._from_row:
            values[index] = convert(values[index])
        return payment_of(values)


class Statements:
    """The statements of one database, "postgresql" or "sqlite".

    claim: inserts payments; on PostgreSQL it returns their ids
    change: changes payments; on PostgreSQL it also writes the audit trail, and returns the ids of the payments
    audit: writes the audit trail of these changes
    find: returns the payments with these ids; on SQLite as one row, a list of lists in JSON
    """

    def __init__(self, database: str) -> None:
        rows = _rows_of_postgresql if database == "postgresql" else _rows_of_sqlite
        self.claim = Statement(database, _claim(database, rows), _of_claim)
        self.change = Statement(database, _change(database, rows), _of_settling)
        self.audit = Statement(database, _audit(rows(_of_settling)), _of_settling)
        self.find = Statement(database, _find(database, rows), [payments.c.id])


def _rows_of_postgresql(columns: Sequence[sa.ColumnClause[Any]]) -> sa.FromClause:
    given = sa.func.json_to_recordset(sa.bindparam("rows", type_=sa.JSON))
    plain = [sa.column(each.name, each.type) for each in columns]
    return given.table_valued(*plain).render_derived(name="new", with_types=True)


def _rows_of_sqlite(columns: Sequence[sa.ColumnClause[Any]]) -> sa.FromClause:
    given = sa.func.json_each(sa.bindparam("rows", type_=sa.Text)).table_valued("value")

    def extracted(index: int, column: sa.ColumnClause[Any]) -> sa.Label[Any]:
        value = sa.func.json_extract(given.c.value, sa.literal_column(f"'$[{index}]'"))
        return sa.type_coerce(value, column.type).label(column.name)

    return sa.select(*(extracted(index, column) for index, column in enumerate(columns))).subquery("new")


def _claim(database: str, rows: _Rows) -> Any:
    new = rows(_of_claim)
    times = {"claimed_at": now()} | dict.fromkeys(("working_until", "look_up_at"), now(new.c.request_s))
    values = {**{each.name: new.c[each.name] for each in claims.given}, **times, "look_ups": sa.literal_column("0")}
    with_key = sa.and_(actions.c.merchant == new.c.merchant, actions.c.idempotency_key == new.c.idempotency_key)
    # A subquery with a limit uses the index for each row. For NOT EXISTS, PostgreSQL may read all actions.
    action = sa.select(actions.c.id).where(with_key).limit(sa.literal_column("1")).scalar_subquery()
    query = sa.select(*values.values()).where(action.is_(None))
    if database == "postgresql":
        limited = sa.func.set_config("lock_timeout", str(LOCK_TIMEOUT_MS), sa.true())
        # In the same order in every gateway, so that no two can wait for each other.
        query = query.where(limited.is_not(None)).order_by(new.c.merchant, new.c.idempotency_key, new.c.id)
    insert = _INSERTS[database](payments).from_select(list(values), query).on_conflict_do_nothing()
    return insert.returning(payments.c.id) if database == "postgresql" else insert


def _change(database: str, rows: _Rows) -> sa.ClauseElement:
    new: Any = rows(_of_settling)
    if database == "postgresql":
        new = sa.select(new).cte("new")
    wanted = sa.and_(
        payments.c.id == new.c.payment_id,
        payments.c.status == new.c.from_status,
        sa.or_(new.c.attempt.is_(None), payments.c.attempt == new.c.attempt),
        sa.or_(~new.c.if_unresolved, payments.c.working_until <= now()),
    )
    values = {
        "status": new.c.to_status,
        "authorization_code": new.c.authorization_code,
        "response_code": new.c.response_code,
        "updated_at": new.c.changed_at,
    }
    update = sa.update(payments).values(values)
    if database == "sqlite":
        return update.where(wanted)
    # In one order of ids, and without waiting for a row, so that no two gateways can wait for each other.
    free = sa.select(payments.c.id).join(new, wanted).where(_is_one_of(sa.select(new.c.payment_id)))
    locked = free.order_by(payments.c.id).with_for_update(of=payments, skip_locked=True).cte("locked")
    update = update.where(payments.c.id == new.c.payment_id, _is_one_of(sa.select(locked.c.id)))
    changed = update.returning(payments.c.id).cte("changed")
    return sa.select(changed).add_cte(_audit(new, changed).cte("audited"))


def _audit(new: sa.FromClause, changed: sa.FromClause | None = None) -> sa.Insert:
    lines = sa.select(*(new.c[each.name] for each in _of_change))
    if changed is not None:
        lines = lines.join(changed, changed.c.id == new.c.payment_id)
    return sa.insert(changes).from_select([each.name for each in _of_change], lines)


def _find(database: str, rows: _Rows) -> sa.ClauseElement:
    ids = sa.select(rows([payments.c.id]).c.id)
    if database == "postgresql":
        return sa.select(*payment_columns).where(_is_one_of(ids), ~is_released)
    found = sa.func.json_group_array(sa.func.json_array(*payment_columns))
    return sa.select(found).where(payments.c.id.in_(ids), ~is_released)


def _is_one_of(ids: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Let PostgreSQL look each id up. Joined with ids whose number it does not know, it may read a whole table."""
    return payments.c.id == sa.func.any(sa.func.array(ids.scalar_subquery()))
