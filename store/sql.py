"""Payments in a database: all the SQL there is, over the tables of store/tables.py.

The database is SQLite, or anything that speaks PostgreSQL's protocol.

The guarantees are the database's, not Python's. That a key is used once is the unique constraint
on (merchant, idempotency_key); that a payment is settled once is an UPDATE that must hit one PENDING
row; that a row is looked up by one process at a time is an UPDATE that moves its look_up_at. Each
function is one short transaction, and no connection is held between them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from store.records import (
    MERCHANT,
    Change,
    Claimed,
    Key,
    NotPending,
    Payment,
    Status,
    StoreMismatch,
    StoreUnavailable,
)
from store.tables import SCHEMA_VERSION, changes, is_pending, meta, metadata, payments

# How long a SQLite writer waits for another, and how long a connection to PostgreSQL may take to make.
BUSY_TIMEOUT_S: Final = 4
CONNECT_TIMEOUT_S: Final = 3


_POSTGRESQL: Final = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    # A server that vanished frees its threads within seconds; the timeouts are in seconds and milliseconds.
    "keepalives_idle": 3,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 8_000,
    "prepare_threshold": None,  # a pooler like PgBouncer may hand each transaction to another session
}

_columns = [payments.c[name] for name in Payment.__dataclass_fields__]


@contextmanager
def _available() -> Iterator[None]:
    """Turn every failure of the database into `StoreUnavailable`, without its words."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreUnavailable(type(error).__name__) from None


class Sql:
    """The store's functions (store/__init__.py) over a database.

    url: as SQLAlchemy writes it
    connections: how many may be open at once
    key_check: tells gateways with different FINGERPRINT_KEYs apart; the first one's is kept
    create: make the tables where there are none
    """

    def __init__(self, url: str, *, connections: int, key_check: str, create: bool = True) -> None:
        sqlite = url.startswith("sqlite")
        self._engine = sa.create_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=not sqlite,  # a server that was restarted costs no payment
            pool_timeout=CONNECT_TIMEOUT_S,
            hide_parameters=True,
            connect_args={"timeout": BUSY_TIMEOUT_S} if sqlite else _POSTGRESQL,
        )
        if sqlite:
            sa.event.listen(self._engine, "connect", _durable)
        try:
            self._prepare(key_check, create=create)
        except Exception:
            self.close()
            raise

    @_available()
    def claim(self, payment: Payment, key: Key | None, work_s: float) -> Claimed | None:
        until = payment.created_at + timedelta(seconds=work_s)
        row = {name: getattr(payment, name) for name in Payment.__dataclass_fields__}
        row |= {"merchant": MERCHANT, "working_until": until, "look_up_at": until}
        if key is not None:
            row |= {"merchant": key.merchant, "idempotency_key": key.key, "fingerprint": key.fingerprint}
        for _ in range(3):  # the key's payment may be dropped between the two transactions
            try:
                with self._engine.begin() as connection:
                    connection.execute(sa.insert(payments).values(row))
            except IntegrityError:
                if key is None:
                    raise
            else:
                return None
            claimed = self._claimed(key)
            if claimed is not None:
                return claimed
        raise StoreUnavailable("the key's payment comes and goes")

    @_available()
    def settle(self, payment_id: UUID, status: Status, changed_by: str, note: str, *, idle: bool = False) -> Payment:
        one = sa.and_(payments.c.id == payment_id, is_pending)
        if idle:
            one = sa.and_(one, payments.c.working_until <= datetime.now(UTC))
        with self._engine.begin() as connection:
            settled = sa.update(payments).where(one).values(status=status)
            row = connection.execute(settled.returning(*_columns)).one_or_none()
            if row is None:
                raise NotPending
            change = {
                "payment_id": payment_id,
                "changed_at": datetime.now(UTC),
                "changed_by": changed_by,
                "from_status": Status.PENDING,
                "to_status": status,
                "note": note,
            }
            connection.execute(sa.insert(changes).values(change))
        return _payment(row)

    @_available()
    def doubt(self, payment_id: UUID, look_up_s: float) -> None:
        now = datetime.now(UTC)
        values = {"working_until": now, "look_up_at": now + timedelta(seconds=look_up_s)}
        with self._engine.begin() as connection:
            connection.execute(sa.update(payments).where(payments.c.id == payment_id, is_pending).values(values))

    @_available()
    def drop(self, payment_id: UUID) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(payments).where(payments.c.id == payment_id, is_pending))

    @_available()
    def find(self, payment_id: UUID) -> Payment | None:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(*_columns).where(payments.c.id == payment_id)).one_or_none()
        return _payment(row) if row else None

    @_available()
    def take_due(self, limit: int, again_s: Callable[[int], float]) -> list[Payment]:
        now = datetime.now(UTC)
        due = sa.select(payments.c.id, payments.c.look_ups).where(is_pending, payments.c.look_up_at <= now)
        with self._engine.connect() as connection:
            candidates = connection.execute(due.order_by(payments.c.look_up_at).limit(limit)).all()
        taken = []
        for payment_id, look_ups in candidates:
            again = {"look_up_at": now + timedelta(seconds=again_s(look_ups)), "look_ups": look_ups + 1}
            mine = sa.and_(payments.c.id == payment_id, is_pending, payments.c.look_ups == look_ups)
            with self._engine.begin() as connection:
                take = sa.update(payments).where(mine).values(again).returning(*_columns)
                row = connection.execute(take).one_or_none()
            if row is not None:  # otherwise another process has it
                taken.append(_payment(row))
        return taken

    @_available()
    def in_doubt(self) -> list[Payment]:
        idle = sa.and_(is_pending, payments.c.working_until <= datetime.now(UTC))
        with self._engine.connect() as connection:
            query = sa.select(*_columns).where(idle).order_by(payments.c.created_at)
            return [_payment(row) for row in connection.execute(query)]

    @_available()
    def search(self, status: Status | None, since: datetime | None, limit: int) -> list[Payment]:
        query = sa.select(*_columns).order_by(payments.c.created_at.desc()).limit(limit)
        if status is not None:
            query = query.where(payments.c.status == status)
        if since is not None:
            query = query.where(payments.c.created_at >= since)
        with self._engine.connect() as connection:
            return [_payment(row) for row in connection.execute(query)]

    @_available()
    def history(self, payment_id: UUID) -> list[Change]:
        columns = [changes.c[name] for name in Change.__dataclass_fields__]
        query = sa.select(*columns).where(changes.c.payment_id == payment_id).order_by(changes.c.id)
        with self._engine.connect() as connection:
            return [_change(row) for row in connection.execute(query)]

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    def _claimed(self, key: Key) -> Claimed | None:
        query = sa.select(*_columns, payments.c.fingerprint, payments.c.working_until).where(
            payments.c.merchant == key.merchant, payments.c.idempotency_key == key.key
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        *_, fingerprint, working_until = row
        payment = _payment(row)
        working = payment.status is Status.PENDING and working_until > datetime.now(UTC)
        return Claimed(payment=payment, fingerprint=fingerprint, working=working)

    @_available()
    def _prepare(self, key_check: str, *, create: bool) -> None:
        """Make the tables where there are none, and refuse a store that this gateway must not touch."""
        file = self._engine.url.database if self._engine.dialect.name == "sqlite" else None
        if not create and file is not None and not Path(file).exists():
            raise StoreMismatch("does not exist")
        with self._alone() as connection:
            if not create and not sa.inspect(connection).has_table(meta.name):
                raise StoreMismatch("has no payments: no gateway has used it yet")
            metadata.create_all(connection)
            kept = dict(connection.execute(sa.select(meta.c.name, meta.c.value)).all())
            if not kept:
                kept = {"schema_version": str(SCHEMA_VERSION), "key_check": key_check}
                connection.execute(sa.insert(meta), [{"name": name, "value": value} for name, value in kept.items()])
            if int(kept["schema_version"]) > SCHEMA_VERSION:
                raise StoreMismatch(
                    f"has schema version {kept['schema_version']}, and this gateway knows {SCHEMA_VERSION}: "
                    "run the newer gateway"
                )
            if kept["key_check"] != key_check:
                raise StoreMismatch("was made with another FINGERPRINT_KEY")

    @contextmanager
    def _alone(self) -> Iterator[sa.Connection]:
        """A transaction that no other gateway has at the same time: two may start on an empty store."""
        with self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7300915)")  # any number of our own
            yield connection
            connection.commit()


def _durable(connection: Any, _record: Any) -> None:
    """What was answered 201 is on disk: WAL, and an fsync with every commit."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _payment(row: Sequence[Any]) -> Payment:
    values = dict(zip(Payment.__dataclass_fields__, row, strict=False))
    return Payment(**{**values, "status": Status(values["status"])})


def _change(row: Sequence[Any]) -> Change:
    values = dict(zip(Change.__dataclass_fields__, row, strict=True))
    return Change(**{**values, "from_status": Status(values["from_status"]), "to_status": Status(values["to_status"])})
