"""How a payment is claimed in a database, released, and claimed again under its idempotency key.

A unique index on (merchant, idempotency_key) of the rows that are not released gives a key to one payment. A unique
constraint on these columns and key_use lets a request that did not see a released row find it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from storage import banks
from storage.banks import BankMove
from storage.clock import now
from storage.records import RELEASED, Claimed, IdempotencyKey, Payment, Status, StoreUnavailable
from storage.tables import BALANCES, actions, bank_moves, is_pending, is_released, payment_columns, payment_of, payments

# How often a claim whose key was used before is tried while other requests change the key's payments.
TRIES: Final = 5

_key_columns = [payments.c[name] for name in ("payment_fingerprint", "fingerprint_key", "key_use")]
_may_be_running = (payments.c.working_until > now()).label("may_be_running")
_times = {"claimed_at": now()} | dict.fromkeys(("working_until", "look_up_at"), now(sa.bindparam("request_s")))
_insert = sa.insert(payments).values(_times).inline()
_is_of_action = sa.and_(
    actions.c.merchant == sa.bindparam("merchant"), actions.c.idempotency_key == sa.bindparam("idempotency_key")
)
# A new payment has no balances yet; the database gives these columns their 0.
_fields = [name for name in Payment.__dataclass_fields__ if name not in {*BALANCES, "updated_at", "erased_at"}]
given = [payments.c[name] for name in (*_fields, "attempt", "idempotency_key")]
given += _key_columns
# It inserts nothing if the key belongs to an action.
_insert_with_key = (
    sa.insert(payments)
    .from_select(
        [*given, *_times],
        sa.select(*(sa.bindparam(column.name, type_=column.type) for column in given), *_times.values()).where(
            ~sa.exists().where(_is_of_action)
        ),
    )
    .execution_options(preserve_rowcount=True)
)
_payment_of_action = sa.select(*payment_columns).join(actions).where(_is_of_action)

# Begins a transaction, or continues one.
_Transaction = Callable[[], AbstractContextManager[sa.Connection]]


def row(payment: Payment, key: IdempotencyKey | None, request_s: float) -> dict[str, Any]:
    """Return the values of a new claim: those of `given`, and request_s."""
    values = {name: getattr(payment, name) for name in _fields}
    values |= {"request_s": request_s, "attempt": payment.id, "key_use": 1}
    digests = (None, None, None) if key is None else (key.digest, key.fingerprint, key.fingerprint_key)
    return values | dict(zip(("idempotency_key", "payment_fingerprint", "fingerprint_key"), digests, strict=True))


def claim(
    transaction: _Transaction, payment: Payment, key: IdempotencyKey | None, request_s: float
) -> Payment | Claimed:
    """Claim a payment, as `store.claim` says. Each try is a transaction."""
    new = row(payment, key, request_s)
    insert = _insert if key is None else _insert_with_key
    if key is not None:
        # No gateway writes older digests any more, so a row that has one can't appear after this search.
        claimed = _claim_used_key(transaction, payment, key, new) if key.older_digests else None
        if claimed is not None:
            return claimed
    for _ in range(TRIES):
        try:
            with transaction() as connection:
                if connection.execute(insert, new).rowcount == 0:
                    of_action = payment_of(connection.execute(_payment_of_action, new).one())
                    return Claimed(payment=of_action, same_payment=False, in_progress=False)
        except IntegrityError:
            if key is None:
                raise
        else:
            return payment
        claimed = _claim_used_key(transaction, payment, key, new)
        if claimed is not None:
            return claimed
    raise StoreUnavailable("other requests changed the key's payments each time")


def delete(connection: sa.Connection, attempt: UUID) -> None:
    """Delete the payment that this request made, unless it is settled or another request has claimed it."""
    own = sa.and_(payments.c.id == attempt, payments.c.attempt == attempt)
    connection.execute(sa.delete(payments).where(own, is_pending))


def release(connection: sa.Connection, attempt: UUID, of_payment: sa.ColumnElement[bool]) -> None:
    """Release the payment, unless it is settled, another request has claimed it, or it may have been shown.

    Once its request's time is over, a payment is shown as PENDING, and must not be hidden again.
    """
    running = sa.and_(of_payment, payments.c.attempt == attempt, is_pending, payments.c.working_until > now())
    connection.execute(sa.update(payments).where(running).values(status=RELEASED))


def is_same_bank(connection: sa.Connection, recorded: str, now: str) -> bool:
    """Return whether the bank with the identity `recorded` has the identity `now`, directly or after moves."""
    return recorded == now or banks.is_same_bank(recorded, now, bank_moves_of(connection))


def bank_moves_of(connection: sa.Connection) -> list[BankMove]:
    """Return the moves of banks that operators have recorded."""
    columns = [bank_moves.c[name] for name in BankMove.__dataclass_fields__]
    return [BankMove(**row._mapping) for row in connection.execute(sa.select(*columns))]


def _claim_used_key(
    transaction: _Transaction, payment: Payment, key: IdempotencyKey, new: dict[str, Any]
) -> Payment | Claimed | None:
    """Return the payment that has the key, or claim the released one again.

    Returns None when the caller should insert `new`, whose key_use is changed to the next one, or when another
    request was faster.
    """
    query = sa.select(*payment_columns, *_key_columns, _may_be_running).where(
        payments.c.merchant == payment.merchant, payments.c.idempotency_key.in_([key.digest, *key.older_digests])
    )
    try:
        with transaction() as connection:
            found = connection.execute(query).all()
            if all(row.status == RELEASED for row in found):  # keep other requests from claiming one of them
                found = connection.execute(query.order_by(payments.c.key_use).with_for_update()).all()
            for row in found:
                if row.status != RELEASED:
                    return _claimed(row, payment, key)
            for row in found:
                if _belongs(key, payment, row):
                    return _claim_released(connection, row, new)
            for row in found:
                if row.erased_at is not None:  # the bank may have authorized this payment under the id of that row
                    return _claimed(row, payment, key)
    except IntegrityError:  # another payment has got the key
        return None
    new["key_use"] = max((row.key_use for row in found), default=0) + 1
    return None


def _claim_released(connection: sa.Connection, released: Any, new: dict[str, Any]) -> Payment | Claimed | None:
    """Claim a row again; return None when another request was faster.

    At another bank the payment becomes unresolved, because the bank that was asked can't be asked again.
    """
    same_bank = is_same_bank(connection, released.bank, new["bank"])
    names = ("created_at", "attempt", "bank", "payment_fingerprint", "fingerprint_key")
    values = {
        "status": Status.PENDING,
        "look_ups": 0,
        "updated_at": None,
        **_times,
        **{name: new[name] for name in names},
    }
    if not same_bank:
        values |= {"working_until": now(), "look_up_at": now(), "bank": released.bank}
    unchanged = sa.and_(payments.c.id == released.id, is_released, payments.c.erased_at.is_(None))
    update = sa.update(payments).where(unchanged).values(values)
    claimed = connection.execute(update.returning(*payment_columns), {"request_s": new["request_s"]}).one_or_none()
    if claimed is None:
        return None
    payment = payment_of(claimed)
    return payment if same_bank else Claimed(payment=payment, same_payment=True, in_progress=False)


def _claimed(row: Any, payment: Payment, key: IdempotencyKey) -> Claimed:
    recorded = _recorded(row)
    in_progress = recorded.status is Status.PENDING and bool(row.may_be_running)
    return Claimed(payment=recorded, same_payment=_belongs(key, payment, row), in_progress=in_progress)


def _belongs(key: IdempotencyKey, payment: Payment, row: Any) -> bool:
    """Return whether `payment`, sent with this key, is the payment of the row, which may be released."""
    return key.belongs_to(payment, _recorded(row), row.payment_fingerprint, row.fingerprint_key)


def _recorded(row: Any) -> Payment:
    """Return the payment of a row; a released one, which has no `Status`, as PENDING."""
    values = {name: getattr(row, name) for name in Payment.__dataclass_fields__}
    return Payment(**{**values, "status": Status.PENDING if row.status == RELEASED else Status(row.status)})
