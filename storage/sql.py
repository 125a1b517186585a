"""How the store works in a database, SQLite or PostgreSQL: all of the gateway's SQL.

The database gives the guarantees, not Python. A unique index on (merchant, idempotency_key) of the rows that are not
released gives a key to one payment. A unique constraint on these columns and key_use lets a request that did not see
a released row find it. An UPDATE that must match a PENDING row settles a payment once. An UPDATE that moves
look_up_at gives a due payment to one process. Each method is one short transaction, and no connection is
held between two calls.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from storage import claims, database, erasure, listing, look_ups
from storage.actions import SqlActions
from storage.banks import BankMove, names_of_bank
from storage.batching import Call, Outcome
from storage.clock import now
from storage.database import available
from storage.postgresql_batches import PostgresqlBatches
from storage.records import (
    ApiKey,
    Change,
    Claimed,
    GatewayTooOld,
    IdempotencyKey,
    KeyChange,
    NotInStatus,
    Page,
    Payment,
    State,
    Status,
    UnresolvedStats,
    Wanted,
    fields_of,
)
from storage.sqlite_batches import NotPlain, SqliteBatches
from storage.tables import (
    KEY_SALT,
    OLDER_DIGESTS,
    TRIED_AT,
    Utc,
    actions,
    api_key_changes,
    api_keys,
    bank_moves,
    changes,
    is_pending,
    is_released,
    meta,
    payment_columns,
    payment_of,
    payments,
)

# The most payments that `list_authorized` returns at once.
PAGE: Final = 1000

_api_key_columns = [api_keys.c[name] for name in ApiKey.__dataclass_fields__]

# The statements that every payment needs are built once: building one takes SQLAlchemy three times as long as
# executing it.
_change = (
    sa.update(payments)
    .where(payments.c.id == sa.bindparam("payment_id"), payments.c.status == sa.bindparam("from_status"))
    .values(
        status=sa.bindparam("to_status"),
        authorization_code=sa.bindparam("code"),
        response_code=sa.bindparam("new_response_code"),
        updated_at=sa.bindparam("changed_at"),
    )
    .returning(*payment_columns)
)
_change_attempt = _change.where(payments.c.attempt == sa.bindparam("ended"))
_change_unresolved = _change.where(payments.c.working_until <= now())
_find = sa.select(*payment_columns).where(payments.c.id == sa.bindparam("payment_id"), ~is_released)
_insert_change = sa.insert(changes).inline()  # nothing reads the id that the row gets


class Sql:
    """The functions of store.py over a database."""

    def __init__(
        self, url: str, *, connections: int, key_checks: Sequence[str], migrate: bool = True, durable: bool = True
    ) -> None:
        opened = database.connect(url, connections=connections, key_checks=key_checks, migrate=migrate, durable=durable)
        self._engine, self.found_version, self.known_version = opened
        self._shared = threading.local()
        self._sqlite = SqliteBatches()
        self.batches: PostgresqlBatches | None = None
        if self._engine.dialect.name == "postgresql":
            self.batches = PostgresqlBatches(database.driver_options(self._engine))
        self.actions = SqlActions(self._engine, self._transaction)
        with available(), self._engine.connect() as connection:
            facts = dict(connection.execute(sa.select(meta.c.name, meta.c.value)).all())
        self.salt = bytes.fromhex(facts[KEY_SALT])
        self.has_older_digests = OLDER_DIGESTS in facts

    @available()
    def write(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        """Run calls of functions that write in one transaction of SQLite; return their outcomes.

        The transaction records all of them or none. A call that raises `NotInStatus` or finds its key taken has written
        nothing, so the others are not affected.
        """
        try:
            return self._write(calls, (self.claim, self._sqlite.claim), (self.change, self._sqlite.change))
        except NotPlain:
            return self._write(calls)

    def _write(self, calls: Sequence[Call], *batched: tuple[Any, Any]) -> Sequence[Outcome]:
        with self._engine.begin() as self._shared.connection:
            try:
                outcomes: dict[int, Outcome] = {}
                for function, do in batched:
                    batch = [call for call in calls if call.func == function]
                    if batch:
                        outcomes |= zip(map(id, batch), do(self._shared.connection, batch), strict=True)
                return [outcomes.get(id(call)) or _outcome(call) for call in calls]
            finally:
                del self._shared.connection

    @available()
    def read(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        """Run calls of `find` in SQLite; return their outcomes."""
        with self._engine.connect() as connection:
            return self._sqlite.find(connection, calls)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Use the transaction that `write` began in this thread, or begin one."""
        shared: sa.Connection | None = getattr(self._shared, "connection", None)
        if shared is not None:
            yield shared
        else:
            with self._engine.begin() as connection:
                yield connection

    @available()
    def claim(self, payment: Payment, key: IdempotencyKey | None, request_s: float) -> Payment | Claimed:
        return claims.claim(self._transaction, payment, key, request_s)

    @available()
    def change(
        self,
        change: Change,
        response_code: str,
        *,
        payment: Payment | None = None,  # noqa: ARG002  # a batch returns it with the change; here it is read again
        attempt: UUID | None = None,
        if_unresolved: bool = False,
    ) -> Payment:
        values = fields_of(change)
        statement = _change_unresolved if if_unresolved else _change if attempt is None else _change_attempt
        with self._transaction() as connection:
            to_change = {**values, "code": change.authorization_code, "new_response_code": response_code}
            to_change["ended"] = attempt
            row = connection.execute(statement, to_change).one_or_none()
            if row is None:
                raise NotInStatus
            connection.execute(_insert_change, values)
        return payment_of(row)

    @available()
    def mark_unresolved(self, payment_id: UUID, look_up_in_s: float) -> None:
        values = {"working_until": now(), "look_up_at": now(look_up_in_s)}
        with self._transaction() as connection:
            connection.execute(sa.update(payments).where(payments.c.id == payment_id, is_pending).values(values))

    @available()
    def release(self, payment_id: UUID, attempt: UUID) -> None:
        with self._transaction() as connection:
            claims.release(connection, attempt, payments.c.id == payment_id)

    @available()
    def drop(self, payment_id: UUID, attempt: UUID) -> None:
        with self._transaction() as connection:
            if payment_id == attempt:
                claims.delete(connection, attempt)
            else:
                claims.release(connection, attempt, payments.c.id == payment_id)

    @available()
    def withdraw(self, payment: Payment, key: IdempotencyKey | None) -> None:
        with self._transaction() as connection:
            claims.delete(connection, payment.id)
            if key is not None:
                with_key = sa.and_(payments.c.merchant == payment.merchant, payments.c.idempotency_key == key.digest)
                claims.release(connection, payment.id, with_key)

    @available()
    def find(self, payment_id: UUID) -> Payment | None:
        with self._engine.connect() as connection:
            row = connection.execute(_find, {"payment_id": payment_id}).one_or_none()
        return payment_of(row) if row else None

    @available()
    def claimed_s_ago(self, payment_id: UUID) -> float:
        return look_ups.claimed_s_ago(self._engine, payments, payment_id)

    @available()
    def clock(self) -> datetime:
        with self._engine.connect() as connection:
            return connection.execute(sa.select(now())).scalar_one()

    @available()
    def take_due(self, limit: int, interval_s: Callable[[int], float], bank: str | None = None) -> list[Payment]:
        rows = look_ups.take_due(self._engine, payment_columns, limit, interval_s, bank)
        return [payment_of(row) for row in rows]

    @available()
    def list_unresolved(self, other_than: str | None, limit: int | None) -> list[Payment]:
        rows = look_ups.list_unresolved(self._engine, payment_columns, other_than, limit)
        return [payment_of(row) for row in rows]

    @available()
    def find_all(self, payment_ids: Sequence[UUID]) -> list[Payment]:
        query = sa.select(*payment_columns).where(payments.c.id.in_(payment_ids), ~is_released)
        with self._engine.connect() as connection:
            return [payment_of(row) for row in connection.execute(query)]

    @available()
    def list_authorized(
        self, since: datetime | None, until: datetime | None, bank: str | None, after: Payment | None
    ) -> list[Payment]:
        position = payments.c.created_at, payments.c.id
        query = sa.select(*payment_columns).where(payments.c.status == Status.AUTHORIZED).order_by(*position)
        if since is not None:
            query = query.where(payments.c.created_at >= since)
        if until is not None:
            query = query.where(payments.c.created_at < until)
        if after is not None:
            last = sa.literal(after.created_at, Utc()), sa.literal(after.id, sa.Uuid())
            query = query.where(sa.tuple_(*position) > sa.tuple_(*last))
        with self._engine.connect() as connection:
            if bank is not None:
                query = query.where(payments.c.bank.in_(names_of_bank(bank, claims.bank_moves_of(connection))))
            return [payment_of(row) for row in connection.execute(query.limit(PAGE))]

    @available()
    def page(self, wanted: Wanted) -> Page:
        with self._engine.connect() as connection:
            return listing.page(connection, wanted)

    @available()
    def search(self, status: State | None, since: datetime | None, limit: int, merchant: str | None) -> list[Payment]:
        query = sa.select(*payment_columns).where(~is_released).order_by(payments.c.created_at.desc()).limit(limit)
        if status is not None:
            query = query.where(listing.in_state(status))
        if since is not None:
            query = query.where(payments.c.created_at >= since)
        if merchant is not None:
            query = query.where(payments.c.merchant == merchant)
        with self._engine.connect() as connection:
            return [payment_of(row) for row in connection.execute(query)]

    @available()
    def erase(self, payment_id: UUID, erased_by: str) -> list[Change]:
        with self._transaction() as connection:
            lines = erasure.erase(connection, [payment_id], erased_by, "")
        if not lines:
            raise NotInStatus
        return lines

    @available()
    def erase_older(self, age: timedelta, limit: int, erased_by: str, note: str) -> list[Change]:
        with self._transaction() as connection:
            return erasure.erase(connection, erasure.older(connection, age, limit), erased_by, note)

    @available()
    def history(self, payment_id: UUID) -> list[Change]:
        columns = [changes.c[name] for name in Change.__dataclass_fields__]
        query = sa.select(*columns).where(changes.c.payment_id == payment_id).order_by(changes.c.id)
        with self._engine.connect() as connection:
            return [Change(**row._mapping) for row in connection.execute(query)]

    @available()
    def fingerprint_key_uses(self, since: datetime) -> dict[str, int]:
        needed = payments.c.fingerprint_key.is_not(None)
        query = sa.select(payments.c.fingerprint_key, sa.func.count()).where(payments.c.created_at >= since, needed)
        with self._engine.connect() as connection:
            return dict(connection.execute(query.group_by(payments.c.fingerprint_key)).all())

    @available()
    def unresolved_stats(self) -> UnresolvedStats:
        unresolved = sa.union_all(
            sa.select(payments.c.created_at).where(look_ups.is_unresolved(payments)),
            sa.select(actions.c.created_at).where(look_ups.is_unresolved(actions)),
        ).subquery()
        query = sa.select(sa.func.count(), sa.func.min(unresolved.c.created_at))
        with self._engine.connect() as connection:
            count, oldest = connection.execute(query).one()
        return UnresolvedStats(count=count, oldest_created_at=oldest)

    @available()
    def move_bank(self, move: BankMove) -> int:
        unresolved = sa.select(sa.func.count()).where(is_pending, payments.c.bank == move.old)
        with self._engine.begin() as connection:
            connection.execute(sa.insert(bank_moves).values(fields_of(move)))
            return connection.execute(unresolved).scalar_one()

    @available()
    def is_same_bank(self, recorded: str, now: str) -> bool:
        with self._engine.connect() as connection:
            return claims.is_same_bank(connection, recorded, now)

    @available()
    def add_api_key(self, key: ApiKey, change: KeyChange) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.insert(api_keys).values(fields_of(key)))
            connection.execute(sa.insert(api_key_changes).values(fields_of(change)))

    @available()
    def list_api_keys(self) -> list[ApiKey]:
        query = sa.select(*_api_key_columns).order_by(api_keys.c.created_at)
        with self._engine.connect() as connection:
            return [ApiKey(**row._mapping) for row in connection.execute(query)]

    @available()
    def revoke_api_key(self, key_id: str, changed_by: str) -> KeyChange | None:
        valid = sa.and_(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        revoke = sa.update(api_keys).where(valid).values(revoked_at=datetime.now(UTC)).returning(*_api_key_columns)
        with self._engine.begin() as connection:
            row = connection.execute(revoke).one_or_none()
            if row is None:
                return None
            change = KeyChange.of(ApiKey(**row._mapping), changed_by)
            connection.execute(sa.insert(api_key_changes).values(fields_of(change)))
        return change

    @available()
    def key_history(self) -> list[KeyChange]:
        columns = [api_key_changes.c[name] for name in KeyChange.__dataclass_fields__]
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(*columns).order_by(api_key_changes.c.id))
            return [KeyChange(**row._mapping) for row in rows]

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
            oldest = database.oldest_gateway(connection)
        if oldest > self.known_version:
            raise GatewayTooOld(f"the schema serves gateways with schema version {oldest} or newer")

    @available()
    def try_to_write(self) -> None:
        """Write a row of `meta`, and insert no row into the tables of a payment, which fails if one is missing."""
        insert = sqlite.insert if self.batches is None else postgresql.insert
        tried_at = insert(meta).values(name=TRIED_AT, value=datetime.now(UTC).isoformat())
        with self._transaction() as connection:
            for table in (payments, changes):
                connection.execute(sa.insert(table).from_select(table.c.keys(), sa.select(table).where(sa.false())))
            connection.execute(
                tried_at.on_conflict_do_update(index_elements=[meta.c.name], set_={"value": tried_at.excluded.value})
            )

    def close(self) -> None:
        """Close the connections."""
        if self.batches is not None:
            self.batches.close()
        self._engine.dispose()


def _outcome(call: Call) -> Outcome:
    try:
        return call(), None
    except NotInStatus as error:
        return None, error
