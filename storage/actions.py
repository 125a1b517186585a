"""How actions are recorded in a database: claimed with their amount, settled, and found.

An action holds its amount from its claim to its settlement. One conditional UPDATE of the payment takes the amount, and
CHECK constraints keep what is captured and released within what is authorized, and what is refunded within what is
captured. A unique constraint on (merchant, idempotency_key) gives a key to one action; a claim also looks for the key
among the payments.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from storage import look_ups
from storage.clock import now
from storage.database import available
from storage.records import (
    Action,
    ActionKey,
    ActionStatus,
    ActionType,
    Change,
    ClaimedAction,
    NotAvailable,
    NotInStatus,
    Status,
    fields_of,
)
from storage.tables import (
    BALANCES,
    OLDEST_GATEWAY,
    action_columns,
    action_of,
    actions,
    changes,
    is_pending_action,
    is_released,
    meta,
    payments,
)

# The first version of the schema whose gateways know of actions. An older one would show and erase a payment without
# regard to them.
SINCE: Final = "0008"

_require_newer = sa.update(meta).where(meta.c.name == OLDEST_GATEWAY, meta.c.value < SINCE).values(value=SINCE)

# Begins a transaction, or continues one.
_Transaction = Callable[[], AbstractContextManager[sa.Connection]]


class SqlActions:
    """The store's functions for actions over a database."""

    def __init__(self, engine: sa.Engine, transaction: _Transaction) -> None:
        self._engine, self._transaction = engine, transaction

    @available()
    def claim(
        self, action: Action, key: ActionKey | None, attempt: UUID, request_s: float, requested: Change | None = None
    ) -> Action | ClaimedAction:
        times = {"claimed_at": now()} | dict.fromkeys(("working_until", "look_up_at"), now(request_s))
        values = {**fields_of(action), "attempt": attempt, "look_ups": 0, **times}
        if key is not None:
            values |= {"idempotency_key": key.digest, "fingerprint": key.fingerprint}
        try:
            with self._transaction() as connection:
                if key is not None and _is_of_payment(connection, action.merchant, key):
                    return ClaimedAction(action=None, same_action=False, in_progress=False)
                connection.execute(sa.insert(actions).values(values).inline())
                if not _take(connection, action):
                    # Other calls may share the transaction, so it is not rolled back.
                    connection.execute(sa.delete(actions).where(actions.c.id == action.id))
                    raise NotAvailable
                connection.execute(_require_newer)
                if requested is not None:
                    connection.execute(sa.insert(changes).inline(), fields_of(requested))
        except IntegrityError:
            if key is None:
                raise
            claimed = self.find_key(action.merchant, key)
            if claimed is None:  # its request has ended without an action in the meantime
                raise NotAvailable from None
            return claimed
        return action

    @available()
    def find_key(self, merchant: str, key: ActionKey) -> ClaimedAction | None:
        running = (actions.c.working_until > now()).label("running")
        query = sa.select(*action_columns, actions.c.fingerprint, running).where(
            actions.c.merchant == merchant, actions.c.idempotency_key == key.digest
        )
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                taken = _is_of_payment(connection, merchant, key)
                return ClaimedAction(action=None, same_action=False, in_progress=False) if taken else None
        action = action_of(row)
        in_progress = action.status is ActionStatus.PENDING and bool(row.running)
        return ClaimedAction(action=action, same_action=row.fingerprint == key.fingerprint, in_progress=in_progress)

    @available()
    def settle(
        self, change: Change, response_code: str, *, attempt: UUID | None = None, if_unresolved: bool = False
    ) -> Action:
        wanted = sa.and_(actions.c.id == change.action_id, actions.c.status == change.from_status)
        if attempt is not None:
            wanted = sa.and_(wanted, actions.c.attempt == attempt)
        if if_unresolved:
            wanted = sa.and_(wanted, actions.c.working_until <= now())
        with self._transaction() as connection:
            row = connection.execute(sa.select(*action_columns).where(wanted).with_for_update()).one_or_none()
            if row is None:
                raise NotInStatus
            values = {"status": change.to_status, "response_code": response_code, "updated_at": change.changed_at}
            if not _record_at_payment(connection, action_of(row), change):
                raise NotAvailable
            connection.execute(sa.update(actions).where(actions.c.id == change.action_id).values(values))
            connection.execute(sa.insert(changes).inline(), fields_of(change))
        return replace(
            action_of(row),
            status=ActionStatus(change.to_status),
            response_code=response_code,
            updated_at=change.changed_at,
        )

    @available()
    def mark_unresolved(self, action_id: UUID, look_up_in_s: float) -> None:
        values = {"working_until": now(), "look_up_at": now(look_up_in_s)}
        with self._transaction() as connection:
            connection.execute(sa.update(actions).where(actions.c.id == action_id, is_pending_action).values(values))

    @available()
    def drop(self, action_id: UUID, attempt: UUID) -> None:
        own = sa.and_(actions.c.id == action_id, actions.c.attempt == attempt, is_pending_action)
        with self._transaction() as connection:
            row = connection.execute(sa.delete(actions).where(own).returning(*action_columns)).one_or_none()
            if row is not None:
                connection.execute(_give_back(action_of(row)))

    @available()
    def find(self, action_id: UUID) -> Action | None:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(*action_columns).where(actions.c.id == action_id)).one_or_none()
        return action_of(row) if row else None

    @available()
    def list_of(self, payment_ids: Sequence[UUID]) -> list[Action]:
        query = sa.select(*action_columns).where(actions.c.payment_id.in_(payment_ids))
        with self._engine.connect() as connection:
            return [action_of(row) for row in connection.execute(query.order_by(actions.c.created_at, actions.c.id))]

    @available()
    def claimed_s_ago(self, action_id: UUID) -> float:
        return look_ups.claimed_s_ago(self._engine, actions, action_id)

    @available()
    def take_due(self, limit: int, interval_s: Callable[[int], float], bank: str | None = None) -> list[Action]:
        rows = look_ups.take_due(self._engine, action_columns, limit, interval_s, bank)
        return [action_of(row) for row in rows]

    @available()
    def list_unresolved(self, other_than: str | None, limit: int | None) -> list[Action]:
        rows = look_ups.list_unresolved(self._engine, action_columns, other_than, limit)
        return [action_of(row) for row in rows]


def _is_of_payment(connection: sa.Connection, merchant: str, key: ActionKey) -> bool:
    """Return whether the key belongs to a payment; one that was released counts, for it may be claimed again."""
    with_key = sa.and_(payments.c.merchant == merchant, payments.c.idempotency_key == key.digest)
    return connection.execute(sa.select(payments.c.id).where(with_key).limit(1)).one_or_none() is not None


def _take(connection: sa.Connection, action: Action) -> bool:
    """Hold what the action needs of its payment; return False if it is not available."""
    takes, columns = action.takes(), payments.c
    if action.type is ActionType.REFUND:
        available_now = columns.refunded + columns.refund_held + takes <= columns.captured
        values = {"refund_held": columns.refund_held + takes}
    elif action.type is ActionType.VOID or action.releases:
        # Everything that is left, so no other action may hold a part of it.
        available_now = sa.and_(columns.held == 0, columns.captured + columns.voided + takes == columns.amount)
        values = {"held": columns.held + takes}
    else:
        available_now = columns.captured + columns.voided + columns.held + takes <= columns.amount
        values = {"held": columns.held + takes}
    is_authorized = sa.and_(columns.status == Status.AUTHORIZED, columns.erased_at.is_(None), ~is_released)
    own = sa.and_(columns.id == action.payment_id, columns.merchant == action.merchant, is_authorized)
    return connection.execute(sa.update(payments).where(own, available_now).values(values)).rowcount == 1


def _record_at_payment(connection: sa.Connection, action: Action, change: Change) -> bool:
    """Record how a PENDING action ended, or that a DECLINED one is APPROVED; return False if that exceeds an amount."""
    after: dict[str, Any] = {name: payments.c[name] for name in BALANCES}
    if change.from_status == ActionStatus.PENDING:
        after[action.held_in()] -= action.takes()
    if change.to_status == ActionStatus.APPROVED:
        for name, amount in action.done().items():
            after[name] += amount
    fits = sa.and_(
        after["captured"] + after["voided"] + after["held"] <= payments.c.amount,
        after["refunded"] + after["refund_held"] <= after["captured"],
    )
    values = {**after, "updated_at": change.changed_at}
    update = sa.update(payments).where(payments.c.id == action.payment_id, fits).values(values)
    return connection.execute(update).rowcount == 1


def _give_back(action: Action) -> sa.Update:
    held = payments.c[action.held_in()]
    return sa.update(payments).where(payments.c.id == action.payment_id).values({held.name: held - action.takes()})
