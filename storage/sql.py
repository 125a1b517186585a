"""How the store works in a database, SQLite or PostgreSQL: all of the gateway's SQL.

The database gives the guarantees, not Python. The unique constraint on (merchant, idempotency_key) gives
a key to one payment. An UPDATE that must match a PENDING row settles a payment once. An UPDATE that moves
look_up_at gives a due payment to one process. Each method is one short transaction, and no connection is
held between two calls.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from storage import database
from storage.database import available
from storage.group_commit import Outcome
from storage.records import (
    ApiKey,
    Change,
    Claimed,
    IdempotencyKey,
    NotPending,
    Payment,
    Status,
    StoreUnavailable,
    UnresolvedStats,
)
from storage.tables import KEY_SALT, OLDER_DIGESTS, api_keys, changes, is_pending, meta, payments

_columns = [payments.c[name] for name in Payment.__dataclass_fields__]
_api_key_columns = [api_keys.c[name] for name in ApiKey.__dataclass_fields__]

# The statements that every payment needs are built once: building one takes SQLAlchemy three times as long as
# executing it.
_this_pending = sa.and_(payments.c.id == sa.bindparam("payment_id"), is_pending)
_settle = sa.update(payments).where(_this_pending).values(status=sa.bindparam("to_status")).returning(*_columns)
_settle_unresolved = _settle.where(payments.c.working_until <= sa.bindparam("changed_at"))
_find = sa.select(*_columns).where(payments.c.id == sa.bindparam("payment_id"))
_find_claimed = (
    sa.select(*_columns, payments.c.payment_fingerprint, payments.c.fingerprint_key, payments.c.working_until)
    .where(payments.c.merchant == sa.bindparam("merchant"))
    .where(payments.c.idempotency_key.in_(sa.bindparam("digests", expanding=True)))
    .order_by(payments.c.created_at)
    .limit(1)
)
_insert, _insert_change = sa.insert(payments), sa.insert(changes)


class Sql:
    """The functions of store.py over a database."""

    def __init__(self, url: str, *, connections: int, key_check: str, create: bool = True) -> None:
        self._engine = database.connect(url, connections=connections, key_check=key_check, create=create)
        self._shared = threading.local()
        with available(), self._engine.connect() as connection:
            facts = dict(connection.execute(sa.select(meta.c.name, meta.c.value)).all())
        self.salt = bytes.fromhex(facts[KEY_SALT])
        self.has_older_digests = OLDER_DIGESTS in facts

    @property
    def has_single_writer(self) -> bool:
        """Whether the database allows one writing transaction at a time, as SQLite does."""
        return self._engine.dialect.name == "sqlite"

    @available()
    def transact(self, calls: Sequence[Callable[[], Any]]) -> list[Outcome]:
        """Run calls of `claim`, `settle`, `mark_unresolved` and `drop` in one transaction; return their outcomes.

        The transaction records all of them or none. A call that raises `NotPending` or finds its key taken
        has written nothing, so the others are not affected.
        """
        outcomes: list[Outcome] = []
        with self._engine.begin() as self._shared.connection:
            try:
                for call in calls:
                    try:
                        outcomes.append((call(), None))
                    except NotPending as error:
                        outcomes.append((None, error))
            finally:
                del self._shared.connection
        return outcomes

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Use the transaction that `transact` began in this thread, or begin one."""
        shared: sa.Connection | None = getattr(self._shared, "connection", None)
        if shared is not None:
            yield shared
        else:
            with self._engine.begin() as connection:
                yield connection

    @available()
    def claim(self, payment: Payment, key: IdempotencyKey | None, request_s: float) -> Claimed | None:
        until = payment.created_at + timedelta(seconds=request_s)
        row = {name: getattr(payment, name) for name in Payment.__dataclass_fields__}
        row |= {"working_until": until, "look_up_at": until}
        if key is not None:
            row |= {"idempotency_key": key.digest}
            row |= {"payment_fingerprint": key.fingerprint, "fingerprint_key": key.fingerprint_key}
            # No gateway writes older digests any more, so a row that has one can't appear after this search.
            claimed = self._claimed(payment, key) if key.older_digests else None
            if claimed is not None:
                return claimed
        for _ in range(3):  # another process may drop the key's payment between the two statements
            try:
                with self._transaction() as connection:
                    connection.execute(_insert, row)
            except IntegrityError:
                if key is None:
                    raise
            else:
                return None
            claimed = self._claimed(payment, key)
            if claimed is not None:
                return claimed
        raise StoreUnavailable("the key's payment was dropped each time")

    @available()
    def settle(
        self, payment_id: UUID, status: Status, changed_by: str, note: str, *, if_unresolved: bool = False
    ) -> Payment:
        change = {
            "payment_id": payment_id,
            "changed_at": datetime.now(UTC),
            "changed_by": changed_by,
            "from_status": Status.PENDING,
            "to_status": status,
            "note": note,
        }
        with self._transaction() as connection:
            row = connection.execute(_settle_unresolved if if_unresolved else _settle, change).one_or_none()
            if row is None:
                raise NotPending
            connection.execute(_insert_change, change)
        return _payment(row)

    @available()
    def mark_unresolved(self, payment_id: UUID, look_up_in_s: float) -> None:
        now = datetime.now(UTC)
        values = {"working_until": now, "look_up_at": now + timedelta(seconds=look_up_in_s)}
        with self._transaction() as connection:
            connection.execute(sa.update(payments).where(payments.c.id == payment_id, is_pending).values(values))

    @available()
    def drop(self, payment_id: UUID) -> None:
        with self._transaction() as connection:
            connection.execute(sa.delete(payments).where(payments.c.id == payment_id, is_pending))

    @available()
    def find(self, payment_id: UUID) -> Payment | None:
        with self._engine.connect() as connection:
            row = connection.execute(_find, {"payment_id": payment_id}).one_or_none()
        return _payment(row) if row else None

    @available()
    def take_due(self, limit: int, interval_s: Callable[[int], float]) -> list[Payment]:
        now = datetime.now(UTC)
        due = sa.select(payments.c.id, payments.c.look_ups).where(is_pending, payments.c.look_up_at <= now)
        with self._engine.connect() as connection:
            candidates = connection.execute(due.order_by(payments.c.look_up_at).limit(limit)).all()
        taken = []
        for payment_id, look_ups in candidates:
            values = {"look_up_at": now + timedelta(seconds=interval_s(look_ups)), "look_ups": look_ups + 1}
            unchanged = sa.and_(payments.c.id == payment_id, is_pending, payments.c.look_ups == look_ups)
            with self._engine.begin() as connection:
                take = sa.update(payments).where(unchanged).values(values).returning(*_columns)
                row = connection.execute(take).one_or_none()
            if row is not None:  # else another process took it
                taken.append(_payment(row))
        return taken

    @available()
    def list_unresolved(self) -> list[Payment]:
        with self._engine.connect() as connection:
            query = sa.select(*_columns).where(self._unresolved()).order_by(payments.c.created_at)
            return [_payment(row) for row in connection.execute(query)]

    @available()
    def search(self, status: Status | None, since: datetime | None, limit: int) -> list[Payment]:
        query = sa.select(*_columns).order_by(payments.c.created_at.desc()).limit(limit)
        if status is not None:
            query = query.where(payments.c.status == status)
        if since is not None:
            query = query.where(payments.c.created_at >= since)
        with self._engine.connect() as connection:
            return [_payment(row) for row in connection.execute(query)]

    @available()
    def history(self, payment_id: UUID) -> list[Change]:
        columns = [changes.c[name] for name in Change.__dataclass_fields__]
        query = sa.select(*columns).where(changes.c.payment_id == payment_id).order_by(changes.c.id)
        with self._engine.connect() as connection:
            return [_change(row) for row in connection.execute(query)]

    @available()
    def unresolved_stats(self) -> UnresolvedStats:
        query = sa.select(sa.func.count(), sa.func.min(payments.c.created_at)).where(self._unresolved())
        with self._engine.connect() as connection:
            count, oldest = connection.execute(query).one()
        return UnresolvedStats(count=count, oldest_created_at=oldest)

    @available()
    def add_api_key(self, key: ApiKey) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.insert(api_keys).values(asdict(key)))

    @available()
    def list_api_keys(self) -> list[ApiKey]:
        query = sa.select(*_api_key_columns).order_by(api_keys.c.created_at)
        with self._engine.connect() as connection:
            return [ApiKey(**row._mapping) for row in connection.execute(query)]

    @available()
    def revoke_api_key(self, key_id: str) -> ApiKey | None:
        valid = sa.and_(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        revoke = sa.update(api_keys).where(valid).values(revoked_at=datetime.now(UTC)).returning(*_api_key_columns)
        with self._engine.begin() as connection:
            row = connection.execute(revoke).one_or_none()
        return ApiKey(**row._mapping) if row else None

    @available()
    def record_api_key_uses(self, used: Mapping[str, datetime]) -> None:
        with self._engine.begin() as connection:
            for key_id, minute in sorted(used.items()):  # always in the same order: no deadlock between gateways
                last = api_keys.c.last_used_at
                earlier = sa.and_(api_keys.c.id == key_id, sa.or_(last.is_(None), last < minute))
                connection.execute(sa.update(api_keys).where(earlier).values(last_used_at=minute))

    @available()
    def ping(self) -> None:
        with self._engine.connect() as connection:
            connection.execute(sa.select(1))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @staticmethod
    def _unresolved() -> sa.ColumnElement[bool]:
        return sa.and_(is_pending, payments.c.working_until <= datetime.now(UTC))

    def _claimed(self, payment: Payment, key: IdempotencyKey) -> Claimed | None:
        values = {"merchant": payment.merchant, "digests": [key.digest, *key.older_digests]}
        with self._transaction() as connection:
            row = connection.execute(_find_claimed, values).one_or_none()
        if row is None:
            return None
        *_, fingerprint, fingerprint_key, working_until = row
        recorded = _payment(row)
        same_payment = key.belongs_to(payment, recorded, fingerprint, fingerprint_key)
        in_progress = recorded.status is Status.PENDING and working_until > datetime.now(UTC)
        return Claimed(payment=recorded, same_payment=same_payment, in_progress=in_progress)


def _payment(row: Sequence[Any]) -> Payment:
    values = dict(zip(Payment.__dataclass_fields__, row, strict=False))
    return Payment(**{**values, "status": Status(values["status"])})


def _change(row: Sequence[Any]) -> Change:
    values = dict(zip(Change.__dataclass_fields__, row, strict=True))
    return Change(**{**values, "from_status": Status(values["from_status"]), "to_status": Status(values["to_status"])})
