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
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from storage import database
from storage.clock import now
from storage.database import available
from storage.group_commit import Outcome
from storage.records import (
    RELEASED,
    ApiKey,
    BankMove,
    Change,
    Claimed,
    GatewayTooOld,
    IdempotencyKey,
    KeyChange,
    NotDeclined,
    NotPending,
    Payment,
    Status,
    StoreUnavailable,
    UnresolvedStats,
    is_same_bank,
    names_of_bank,
)
from storage.tables import (
    KEY_SALT,
    OLDER_DIGESTS,
    api_key_changes,
    api_keys,
    bank_moves,
    changes,
    is_pending,
    is_released,
    meta,
    payments,
)

_columns = [payments.c[name] for name in Payment.__dataclass_fields__]
_key_columns = [payments.c[name] for name in ("payment_fingerprint", "fingerprint_key", "key_use")]
_may_be_running = (payments.c.working_until > now()).label("may_be_running")
_times = {"claimed_at": now()} | dict.fromkeys(("working_until", "look_up_at"), now(sa.bindparam("request_s")))
_api_key_columns = [api_keys.c[name] for name in ApiKey.__dataclass_fields__]

# How often a claim whose key was used before is tried while other requests change the key's payments.
CLAIM_TRIES: Final = 5

# The statements that every payment needs are built once: building one takes SQLAlchemy three times as long as
# executing it.
_this_pending = sa.and_(payments.c.id == sa.bindparam("payment_id"), is_pending)
_settle = (
    sa.update(payments)
    .where(_this_pending)
    .values(status=sa.bindparam("to_status"), authorization_code=sa.bindparam("code"))
    .returning(*_columns)
)
_settle_attempt = _settle.where(payments.c.attempt == sa.bindparam("ended"))
_settle_unresolved = _settle.where(payments.c.working_until <= now())
_find = sa.select(*_columns).where(payments.c.id == sa.bindparam("payment_id"), ~is_released)
_insert, _insert_change = sa.insert(payments).values(_times), sa.insert(changes)
_correct = (
    sa.update(payments)
    .where(payments.c.id == sa.bindparam("payment_id"), payments.c.status == Status.DECLINED)
    .values(status=Status.AUTHORIZED, authorization_code=sa.bindparam("code"))
    .returning(*_columns)
)


class Sql:
    """The functions of store.py over a database."""

    def __init__(self, url: str, *, connections: int, key_checks: Sequence[str], migrate: bool = True) -> None:
        opened = database.connect(url, connections=connections, key_checks=key_checks, migrate=migrate)
        self._engine, self.found_version, self.known_version = opened
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
        """Run calls of functions that write payments in one transaction; return their outcomes.

        The transaction records all of them or none. A call that raises `NotPending` or `NotDeclined`, or finds its key
        taken, has written nothing, so the others are not affected.
        """
        outcomes: list[Outcome] = []
        with self._engine.begin() as self._shared.connection:
            try:
                for call in calls:
                    try:
                        outcomes.append((call(), None))
                    except (NotPending, NotDeclined) as error:
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
    def claim(self, payment: Payment, key: IdempotencyKey | None, request_s: float) -> Payment | Claimed:
        row = {name: getattr(payment, name) for name in Payment.__dataclass_fields__}
        row |= {"request_s": request_s, "attempt": payment.id, "key_use": 1}
        if key is not None:
            row |= {"idempotency_key": key.digest}
            row |= {"payment_fingerprint": key.fingerprint, "fingerprint_key": key.fingerprint_key}
            # No gateway writes older digests any more, so a row that has one can't appear after this search.
            claimed = self._claim_used_key(payment, key, row) if key.older_digests else None
            if claimed is not None:
                return claimed
        for _ in range(CLAIM_TRIES):
            try:
                with self._transaction() as connection:
                    connection.execute(_insert, row)
            except IntegrityError:
                if key is None:
                    raise
            else:
                return payment
            claimed = self._claim_used_key(payment, key, row)
            if claimed is not None:
                return claimed
        raise StoreUnavailable("other requests changed the key's payments each time")

    def _claim_used_key(self, payment: Payment, key: IdempotencyKey, new: dict[str, Any]) -> Payment | Claimed | None:
        """Return the payment that has the key, or claim the released one again.

        Returns None when the caller should insert `new`, whose key_use is changed to the next one, or when another
        request was faster.
        """
        query = sa.select(*_columns, *_key_columns, _may_be_running).where(
            payments.c.merchant == payment.merchant, payments.c.idempotency_key.in_([key.digest, *key.older_digests])
        )
        try:
            with self._transaction() as connection:
                found = connection.execute(query).all()
                if all(row.status == RELEASED for row in found):  # keep other requests from claiming one of them
                    found = connection.execute(query.order_by(payments.c.key_use).with_for_update()).all()
                for row in found:
                    if row.status != RELEASED:
                        return _claimed(row, payment, key)
                for row in found:
                    if _belongs(key, payment, row):
                        return _claim_released(connection, row, new)
        except IntegrityError:  # another payment has got the key
            return None
        new["key_use"] = max((row.key_use for row in found), default=0) + 1
        return None

    @available()
    def settle(
        self,
        payment_id: UUID,
        status: Status,
        changed_by: str,
        note: str,
        *,
        code: str = "",
        attempt: UUID | None = None,
        if_unresolved: bool = False,
    ) -> Payment:
        change = {
            "payment_id": payment_id,
            "changed_at": datetime.now(UTC),
            "changed_by": changed_by,
            "from_status": Status.PENDING,
            "to_status": status,
            "note": note,
        }
        statement = _settle_unresolved if if_unresolved else _settle if attempt is None else _settle_attempt
        with self._transaction() as connection:
            row = connection.execute(statement, {**change, "code": code, "ended": attempt}).one_or_none()
            if row is None:
                raise NotPending
            connection.execute(_insert_change, {**change, "authorization_code": code})
        return _payment(row)

    @available()
    def correct(self, payment_id: UUID, changed_by: str, note: str, code: str) -> Payment:
        change = {
            "payment_id": payment_id,
            "changed_at": datetime.now(UTC),
            "changed_by": changed_by,
            "from_status": Status.DECLINED,
            "to_status": Status.AUTHORIZED,
            "note": note,
            "authorization_code": code,
        }
        with self._transaction() as connection:
            row = connection.execute(_correct, {"payment_id": payment_id, "code": code}).one_or_none()
            if row is None:
                raise NotDeclined
            connection.execute(_insert_change, change)
        return _payment(row)

    @available()
    def mark_unresolved(self, payment_id: UUID, look_up_in_s: float) -> None:
        values = {"working_until": now(), "look_up_at": now(look_up_in_s)}
        with self._transaction() as connection:
            connection.execute(sa.update(payments).where(payments.c.id == payment_id, is_pending).values(values))

    @available()
    def release(self, payment_id: UUID, attempt: UUID) -> None:
        with self._transaction() as connection:
            _release(connection, attempt, payments.c.id == payment_id)

    @available()
    def drop(self, payment_id: UUID, attempt: UUID) -> None:
        with self._transaction() as connection:
            if payment_id == attempt:
                _delete(connection, attempt)
            else:
                _release(connection, attempt, payments.c.id == payment_id)

    @available()
    def withdraw(self, payment: Payment, key: IdempotencyKey | None) -> None:
        with self._transaction() as connection:
            _delete(connection, payment.id)
            if key is not None:
                with_key = sa.and_(payments.c.merchant == payment.merchant, payments.c.idempotency_key == key.digest)
                _release(connection, payment.id, with_key)

    @available()
    def find(self, payment_id: UUID) -> Payment | None:
        with self._engine.connect() as connection:
            row = connection.execute(_find, {"payment_id": payment_id}).one_or_none()
        return _payment(row) if row else None

    @available()
    def claimed_s_ago(self, payment_id: UUID) -> float:
        with self._engine.connect() as connection:
            query = sa.select(now(), payments.c.claimed_at).where(payments.c.id == payment_id)
            is_now, claimed_at = connection.execute(query).one()
        return float((is_now - claimed_at).total_seconds())

    @available()
    def clock(self) -> datetime:
        with self._engine.connect() as connection:
            return connection.execute(sa.select(now())).scalar_one()

    @available()
    def take_due(self, limit: int, interval_s: Callable[[int], float], bank: str | None = None) -> list[Payment]:
        due = sa.select(payments.c.id, payments.c.look_ups).where(is_pending, payments.c.look_up_at <= now())
        with self._engine.connect() as connection:
            if bank is not None:
                due = due.where(payments.c.bank.in_(names_of_bank(bank, _moves(connection))))
            candidates = connection.execute(due.order_by(payments.c.look_up_at).limit(limit)).all()
        taken = []
        for payment_id, look_ups in candidates:
            values = {"look_up_at": now(interval_s(look_ups)), "look_ups": look_ups + 1}
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
        query = sa.select(*_columns).where(~is_released).order_by(payments.c.created_at.desc()).limit(limit)
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
    def fingerprint_key_uses(self, since: datetime) -> dict[str, int]:
        needed = payments.c.fingerprint_key.is_not(None)
        query = sa.select(payments.c.fingerprint_key, sa.func.count()).where(payments.c.created_at >= since, needed)
        with self._engine.connect() as connection:
            return dict(connection.execute(query.group_by(payments.c.fingerprint_key)).all())

    @available()
    def unresolved_stats(self) -> UnresolvedStats:
        query = sa.select(sa.func.count(), sa.func.min(payments.c.created_at)).where(self._unresolved())
        with self._engine.connect() as connection:
            count, oldest = connection.execute(query).one()
        return UnresolvedStats(count=count, oldest_created_at=oldest)

    @available()
    def move_bank(self, move: BankMove) -> int:
        unresolved = sa.select(sa.func.count()).where(is_pending, payments.c.bank == move.old)
        with self._engine.begin() as connection:
            connection.execute(sa.insert(bank_moves).values(asdict(move)))
            return connection.execute(unresolved).scalar_one()

    @available()
    def is_same_bank(self, recorded: str, now: str) -> bool:
        with self._engine.connect() as connection:
            return _is_same_bank(connection, recorded, now)

    @available()
    def add_api_key(self, key: ApiKey, changed_by: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.insert(api_keys).values(asdict(key)))
            _record_change(connection, key, changed_by, "created")

    @available()
    def list_api_keys(self) -> list[ApiKey]:
        query = sa.select(*_api_key_columns).order_by(api_keys.c.created_at)
        with self._engine.connect() as connection:
            return [ApiKey(**row._mapping) for row in connection.execute(query)]

    @available()
    def revoke_api_key(self, key_id: str, changed_by: str) -> ApiKey | None:
        valid = sa.and_(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        revoke = sa.update(api_keys).where(valid).values(revoked_at=datetime.now(UTC)).returning(*_api_key_columns)
        with self._engine.begin() as connection:
            row = connection.execute(revoke).one_or_none()
            if row is None:
                return None
            key = ApiKey(**row._mapping)
            _record_change(connection, key, changed_by, "revoked")
        return key

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

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @staticmethod
    def _unresolved() -> sa.ColumnElement[bool]:
        return sa.and_(is_pending, payments.c.working_until <= now())


def _claim_released(connection: sa.Connection, released: Any, new: dict[str, Any]) -> Payment | Claimed | None:
    """Claim a row again; return None when another request was faster.

    At another bank the payment becomes unresolved, because the bank that was asked can't be asked again.
    """
    same_bank = _is_same_bank(connection, released.bank, new["bank"])
    names = ("created_at", "attempt", "bank", "payment_fingerprint", "fingerprint_key")
    values = {"status": Status.PENDING, "look_ups": 0, **_times, **{name: new[name] for name in names}}
    if not same_bank:
        values |= {"working_until": now(), "look_up_at": now(), "bank": released.bank}
    update = sa.update(payments).where(payments.c.id == released.id, is_released).values(values)
    claimed = connection.execute(update.returning(*_columns), {"request_s": new["request_s"]}).one_or_none()
    if claimed is None:
        return None
    payment = _payment(claimed)
    return payment if same_bank else Claimed(payment=payment, same_payment=True, in_progress=False)


def _is_same_bank(connection: sa.Connection, recorded: str, now: str) -> bool:
    if recorded == now:
        return True
    return is_same_bank(recorded, now, _moves(connection))


def _moves(connection: sa.Connection) -> list[BankMove]:
    columns = [bank_moves.c[name] for name in BankMove.__dataclass_fields__]
    return [BankMove(**row._mapping) for row in connection.execute(sa.select(*columns))]


def _delete(connection: sa.Connection, attempt: UUID) -> None:
    """Delete the payment that this request made, unless it is settled or another request has claimed it."""
    own = sa.and_(payments.c.id == attempt, payments.c.attempt == attempt)
    connection.execute(sa.delete(payments).where(own, is_pending))


def _release(connection: sa.Connection, attempt: UUID, of_payment: sa.ColumnElement[bool]) -> None:
    """Release the payment, unless it is settled or another request has claimed it."""
    release = sa.update(payments).where(of_payment, payments.c.attempt == attempt, is_pending)
    connection.execute(release.values(status=RELEASED))


def _claimed(row: Any, payment: Payment, key: IdempotencyKey) -> Claimed:
    recorded = _payment(row)
    in_progress = recorded.status is Status.PENDING and bool(row.may_be_running)
    return Claimed(payment=recorded, same_payment=_belongs(key, payment, row), in_progress=in_progress)


def _belongs(key: IdempotencyKey, payment: Payment, row: Any) -> bool:
    """Return whether `payment`, sent with this key, is the payment of the row, which may be released."""
    values = {name: getattr(row, name) for name in Payment.__dataclass_fields__}
    recorded = Payment(**{**values, "status": Status.PENDING})  # a released row has no `Status`
    return key.belongs_to(payment, recorded, row.payment_fingerprint, row.fingerprint_key)


def _record_change(connection: sa.Connection, key: ApiKey, changed_by: str, change: str) -> None:
    now = datetime.now(UTC)
    record = KeyChange(key_id=key.id, merchant=key.merchant, changed_at=now, changed_by=changed_by, change=change)
    connection.execute(sa.insert(api_key_changes).values(asdict(record)))


def _payment(row: Sequence[Any]) -> Payment:
    values = dict(zip(Payment.__dataclass_fields__, row, strict=False))
    return Payment(**{**values, "status": Status(values["status"])})


def _change(row: Sequence[Any]) -> Change:
    values = dict(zip(Change.__dataclass_fields__, row, strict=True))
    return Change(**{**values, "from_status": Status(values["from_status"]), "to_status": Status(values["to_status"])})
