"""The store: which functions record payments and API keys, and what each of them guarantees.

`configure` chooses the backend: this process's memory (storage/memory.py) or a database (storage/sql.py).
Both behave the same; one test suite runs against each.
"""

import asyncio
import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from uuid import UUID

from config import MEMORY, wrong
from storage.banks import BankMove
from storage.calls import CONNECTIONS, THREADS, WAIT_S, Calls
from storage.fingerprint_keys import FingerprintKeys
from storage.memory import Memory
from storage.records import (
    EARLIEST,
    LATEST,
    REQUESTED,
    UNKNOWN_BANK,
    Action,
    ActionKey,
    ActionStatus,
    ActionType,
    ApiKey,
    BackupFailed,
    Change,
    Claimed,
    ClaimedAction,
    GatewayTooOld,
    IdempotencyKey,
    InvalidUrl,
    KeyChange,
    NotAvailable,
    NotInStatus,
    Page,
    Payment,
    Position,
    State,
    Status,
    StoreMismatch,
    StoreUnavailable,
    UnresolvedStats,
    Wanted,
)
from storage.retries import Retries
from storage.writing import Writing

# SQLAlchemy and Alembic take a third of the time of a start, so they are imported where there is a database.
if TYPE_CHECKING:
    from storage.sql import Sql

__all__ = [
    "CONNECTIONS",
    "EARLIEST",
    "LATEST",
    "UNKNOWN_BANK",
    "WAIT_S",
    "Action",
    "ActionKey",
    "ActionStatus",
    "ActionType",
    "ApiKey",
    "BackupFailed",
    "Change",
    "Claimed",
    "ClaimedAction",
    "GatewayTooOld",
    "IdempotencyKey",
    "KeyChange",
    "NotAvailable",
    "NotInStatus",
    "Page",
    "Payment",
    "Position",
    "State",
    "Status",
    "StoreMismatch",
    "StoreUnavailable",
    "UnresolvedStats",
    "Wanted",
]

log = logging.getLogger("gateway.store")

_DATABASE_URLS: Final = r"sqlite:///.+|postgresql\+psycopg://.+"

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _OpenStore:
    backend: "Memory | Sql"
    keys: FingerprintKeys
    calls: Calls
    retries: Retries = field(default_factory=Retries)
    writing: Writing = field(default_factory=Writing)


_store: _OpenStore | None = None


def configure(
    url: str,
    *,
    fingerprint_key: bytes,
    old_fingerprint_keys: Sequence[bytes] = (),
    migrate: bool = True,
    durable: bool = True,
) -> None:
    """Open the store at `url`, and close the one that was open before.

    url: `memory:`, `sqlite:///FILE` or `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`
    fingerprint_key: FINGERPRINT_KEY, 32 bytes; every gateway on a database needs the same
    old_fingerprint_keys: FINGERPRINT_OLD_KEYS, which only verify
    migrate: create or upgrade the tables of a database; otherwise one that needs this is a `StoreMismatch`
    durable: a PostgreSQL that may lose what it has committed is a `StoreMismatch`
    Raises `ConfigError` when the URL is not one of these, `StoreMismatch` when the database can't be used
    as it is, and `StoreUnavailable` when it can't be reached.
    """
    global _store
    close()
    keys = FingerprintKeys(fingerprint_key, old_fingerprint_keys)
    backend = Memory() if url == MEMORY else _open_database(url, keys, migrate=migrate, durable=durable)
    _store = _OpenStore(backend, keys, Calls(backend))


def migrate(url: str, *, fingerprint_key: bytes, old_fingerprint_keys: Sequence[bytes] = ()) -> tuple[str | None, str]:
    """Create or upgrade the tables of a database; return the schema's version before, None without tables, and now.

    Raises what `configure` raises.
    """
    database = _open_database(url, FingerprintKeys(fingerprint_key, old_fingerprint_keys), migrate=True, durable=False)
    database.close()
    return database.found_version, database.known_version


def back_up(url: str, file: Path) -> tuple[str, str] | None:
    """Copy the database at `url` into a new file; for PostgreSQL return the command lines that copy and restore it.

    Raises `BackupFailed`, and `ConfigError` when the URL is not that of a database.
    """
    if not re.fullmatch(_DATABASE_URLS, url):
        raise wrong("STORE_URL", "is not a database")
    from storage import backup  # noqa: PLC0415  # see above

    if not url.startswith("sqlite:"):
        return backup.commands(url, file)
    backup.back_up(url, file)
    return None


def close() -> None:
    """Close the store; payments in memory are gone."""
    global _store
    if _store is None:
        return
    _store.calls.close()
    _store.backend.close()
    _store = None


def is_lasting() -> bool:
    """Return whether the records outlive this process."""
    return not isinstance(_opened().backend, Memory)


def keyed_digests(text: str) -> dict[str, str]:
    """Return the HMAC-SHA256 of a text under each fingerprint key, 64 hex digits, by the id of the key.

    FINGERPRINT_KEY comes first. An id has 8 hex digits and says nothing about its key.
    """
    return _opened().keys.digests(text)


def fingerprint_key_ids() -> list[str]:
    """Return the ids of FINGERPRINT_KEY and FINGERPRINT_OLD_KEYS, in this order."""
    return _opened().keys.ids()


def salted_digest(text: str) -> str:
    """Return the SHA-256 of a text with the salt of this store, 64 hex digits."""
    return hashlib.sha256(_opened().backend.salt + text.encode()).hexdigest()


def has_older_digests() -> bool:
    """Return whether idempotency keys may be recorded as one of their `keyed_digests`, as older gateways did."""
    return _opened().backend.has_older_digests


async def claim(payment: Payment, key: IdempotencyKey | None, request_s: float) -> Payment | Claimed:
    """Record a PENDING payment before the bank is asked, or return the payment that has the key already.

    payment: the new payment; its id is also the id of this attempt, which `settle`, `release` and `drop` name
    request_s: how many seconds the request may run; until then the payment is in progress

    Returns the payment as recorded. It has the id of an earlier attempt with the same key and fingerprint if there
    was one that was released: the bank must see one id for one key and payment. If that attempt was sent to another
    bank, its payment becomes PENDING and unresolved, and is returned as `Claimed`: the bank must not be asked.
    Raises `StoreUnavailable`; then the payment may or may not be recorded, and `withdraw` undoes it.
    """
    return await _write(_opened().backend.claim, payment, key, request_s)


async def settle(
    payment: Payment,
    status: Status,
    changed_by: str,
    note: str = "",
    *,
    code: str = "",
    response_code: str = "",
    attempt: UUID | None = None,
    if_unresolved: bool = False,
) -> Payment:
    """Record how a PENDING payment ended, with a line of the audit trail, and return the payment.

    payment: as it was claimed, taken or found; nothing else of it changes while it is PENDING
    code: the bank's authorization code, up to 64 characters
    response_code: why, 5 digits
    attempt: refuse when another attempt has claimed the payment since
    if_unresolved: refuse while a request is running for the payment, because its answer may differ
    Raises `NotInStatus` when the payment is not PENDING or the settling is refused, and `StoreUnavailable`.
    """
    change = _change(payment.id, (Status.PENDING, status), changed_by, note, code)
    return await _record(change, response_code, payment=payment, attempt=attempt, if_unresolved=if_unresolved)


async def correct(
    payment_id: UUID, changed_by: str, note: str = "", code: str = "", *, response_code: str = ""
) -> Payment:
    """Record that a DECLINED payment is AUTHORIZED, with a line of the audit trail, and return the payment.

    The bank's own answer counts more than what was recorded before. Nothing turns AUTHORIZED into DECLINED.
    Raises `NotInStatus` when the payment is not DECLINED, and `StoreUnavailable`.
    """
    change = _change(payment_id, (Status.DECLINED, Status.AUTHORIZED), changed_by, note, code)
    return await _record(change, response_code)


async def erase(payment_id: UUID, erased_by: str) -> None:
    """Erase what is kept of the card, and the notes of operators, with a line of the audit trail; the rest stays.

    A released claim is erased as well. A request with the idempotency key of an erased payment or claim gets `Claimed`,
    with `same_payment` false.
    Raises `NotInStatus` when there is no such payment, or when it is PENDING or erased already, and `StoreUnavailable`.
    """
    await _erase(_opened().backend.erase, payment_id, erased_by)


async def erase_older(age: timedelta, limit: int, erased_by: str, note: str) -> int:
    """Erase payments that are older than this by the store's clock, as `erase` does; return how many.

    limit: the most payments to erase, in one transaction; a later call erases more
    """
    return len(await _erase(_opened().backend.erase_older, age, limit, erased_by, note))


async def mark_unresolved(payment_id: UUID, look_up_in_s: float) -> None:
    """Record that no request is running for a PENDING payment any more.

    look_up_in_s: seconds until the payment is due for a look-up at the bank
    """
    await _write(_opened().backend.mark_unresolved, payment_id, look_up_in_s)


async def release(payment_id: UUID, attempt: UUID) -> None:
    """Hide a PENDING payment that the bank says it did not process, and keep its id for a retry.

    A released payment is found by `claim` only. Nothing happens when another attempt has claimed the payment since, or
    when the time of its request is over: it is shown as PENDING then, and the resolver asks the bank.
    """
    await _write(_opened().backend.release, payment_id, attempt)


async def drop(payment_id: UUID, attempt: UUID) -> None:
    """Delete a PENDING payment that the bank was certainly not asked about; no other record is ever deleted.

    A payment of which an earlier attempt was released is released again instead. Nothing happens when another
    attempt has claimed the payment since.
    """
    await _write(_opened().backend.drop, payment_id, attempt)


async def withdraw(payment: Payment, key: IdempotencyKey | None) -> None:
    """Undo `claim` with the same arguments when it is not known whether the payment was recorded, and as which."""
    await _write(_opened().backend.withdraw, payment, key)


async def find(payment_id: UUID) -> Payment | None:
    """Return the payment, erased or not, or None when there is none with this id."""
    return await _call(_opened().backend.find, payment_id)


async def claimed_s_ago(payment_id: UUID) -> float:
    """Return how many seconds ago a payment was claimed for the last time, by the store's clock."""
    return await _call(_opened().backend.claimed_s_ago, payment_id)


async def clock_offset_s() -> float:
    """Return by how many seconds this process's clock is ahead of the store's.

    The store's clock is PostgreSQL's own, and otherwise the host's.
    """
    before = time.time()
    clock = await _call(_opened().backend.clock)
    return (before + time.time()) / 2 - clock.timestamp()


async def take_due(limit: int, interval_s: Callable[[int], float], bank: str | None = None) -> list[Payment]:
    """Return PENDING payments that are due for a look-up; no two processes get the same payment.

    interval_s: from the number of earlier look-ups to the seconds until the payment is due again
    bank: take no payment that was sent to another bank: its turn is for a gateway that may ask that bank
    """
    return await _call(_opened().backend.take_due, limit, interval_s, bank)


async def list_unresolved(other_than: str | None = None, limit: int | None = None) -> list[Payment]:
    """Return PENDING payments without a running request, oldest first.

    other_than: the identity of a bank; only payments that were sent to others, not those whose bank is not recorded
    """
    return await _call(_opened().backend.list_unresolved, other_than, limit)


async def list_payments(wanted: Wanted) -> Page:
    """Return a page of a merchant's payments that are neither released nor erased, newest first.

    With a state it looks at 1,000 payments at most, so a page with a next one may be short, or empty.
    """
    return await _call(_opened().backend.page, wanted)


async def search(
    status: State | None = None, since: datetime | None = None, limit: int = 1000, *, merchant: str | None = None
) -> list[Payment]:
    """Return payments, newest first."""
    return await _call(_opened().backend.search, status, since, limit, merchant)


async def find_all(payment_ids: Sequence[UUID]) -> dict[UUID, Payment]:
    """Return those of these payments that there are, erased or not, by their ids."""
    return {payment.id: payment for payment in await _call(_opened().backend.find_all, payment_ids)}


async def list_authorized(
    since: datetime | None, until: datetime | None, bank: str | None, after: Payment | None
) -> list[Payment]:
    """Return a page of the AUTHORIZED payments that were created in a time, oldest first; none after the last page.

    until: the first time that is not in it any more
    bank: only payments that were sent to this bank
    after: the last payment of the page before
    """
    return await _call(_opened().backend.list_authorized, since, until, bank, after)


async def claim_action(
    action: Action, key: ActionKey | None, attempt: UUID, request_s: float, *, operator: str = "", note: str = ""
) -> Action | ClaimedAction:
    """Record a PENDING action before the bank is asked, and hold its amount, or return what has the key already.

    attempt: a new id of this request, which `settle_action` and `drop_action` name
    request_s: how many seconds the request may run; until then the action is in progress
    operator, note: who asks for it in the merchant's place, and why, for a line of the audit trail

    Raises `NotAvailable` when the payment does not have the amount, or other actions hold it, and `StoreUnavailable`;
    then the action may or may not be recorded, and `drop_action` undoes it.
    """
    change = _action_change(action, (REQUESTED, ActionStatus.PENDING), operator, note) if operator else None
    claim = partial(_opened().backend.actions.claim, action, key, attempt, request_s, change)
    return await _run_write(claim, audited=lambda claimed: [change] if change and claimed is action else [])


async def find_action_key(merchant: str, key: ActionKey) -> ClaimedAction | None:
    """Return what a merchant's idempotency key belongs to, None if it belongs to nothing."""
    return await _call(_opened().backend.actions.find_key, merchant, key)


async def settle_action(
    action: Action,
    status: ActionStatus,
    changed_by: str,
    note: str = "",
    *,
    response_code: str,
    attempt: UUID | None = None,
    if_unresolved: bool = False,
) -> Action:
    """Record how a PENDING action ended, and what that does to its payment; return the action.

    Otherwise as `settle`.
    """
    change = _action_change(action, (ActionStatus.PENDING, status), changed_by, note)
    settle = partial(_opened().backend.actions.settle, attempt=attempt, if_unresolved=if_unresolved)
    return await _run_write(partial(settle, change, response_code), audited=lambda _: [change])


async def correct_action(action: Action, changed_by: str, note: str, *, response_code: str) -> Action:
    """Record that a DECLINED action is APPROVED, and what that does to its payment; return the action.

    Raises `NotInStatus` when the action is not DECLINED, `NotAvailable` when the payment does not have the amount
    any more, and `StoreUnavailable`.
    """
    change = _action_change(action, (ActionStatus.DECLINED, ActionStatus.APPROVED), changed_by, note)
    settle = partial(_opened().backend.actions.settle, change, response_code)
    return await _run_write(settle, audited=lambda _: [change])


async def mark_action_unresolved(action_id: UUID, look_up_in_s: float) -> None:
    """Record that no request is running for a PENDING action any more, as `mark_unresolved` does."""
    await _write(_opened().backend.actions.mark_unresolved, action_id, look_up_in_s)


async def drop_action(action_id: UUID, attempt: UUID) -> None:
    """Delete a PENDING action that the bank did not process, and hold its amount no longer.

    Nothing happens when another attempt has claimed the action since.
    """
    await _write(_opened().backend.actions.drop, action_id, attempt)


async def find_action(action_id: UUID) -> Action | None:
    """Return the action, or None when there is none with this id."""
    return await _call(_opened().backend.actions.find, action_id)


async def list_actions(*payment_ids: UUID) -> list[Action]:
    """Return the actions of these payments, oldest first."""
    return await _call(_opened().backend.actions.list_of, payment_ids)


async def action_claimed_s_ago(action_id: UUID) -> float:
    """Return how many seconds ago an action was claimed, by the store's clock."""
    return await _call(_opened().backend.actions.claimed_s_ago, action_id)


async def take_due_actions(limit: int, interval_s: Callable[[int], float], bank: str | None = None) -> list[Action]:
    """Return PENDING actions that are due for a look-up, as `take_due` does."""
    return await _call(_opened().backend.actions.take_due, limit, interval_s, bank)


async def list_unresolved_actions(other_than: str | None = None, limit: int | None = None) -> list[Action]:
    """Return PENDING actions without a running request, as `list_unresolved` does."""
    return await _call(_opened().backend.actions.list_unresolved, other_than, limit)


async def history(payment_id: UUID) -> list[Change]:
    """Return the payment's audit trail, oldest first."""
    return await _call(_opened().backend.history, payment_id)


async def fingerprint_key_uses(since: datetime) -> dict[str, int]:
    """Return how many payments created since then need each fingerprint key, by its id."""
    return await _call(_opened().backend.fingerprint_key_uses, since)


async def unresolved_stats() -> UnresolvedStats:
    """Return how many payments and actions are unresolved, and when the oldest was created."""
    return await _call(_opened().backend.unresolved_stats)


async def move_bank(old: str, new: str, moved_by: str) -> int:
    """Record that the bank with the identity `old` has the identity `new` now, in the audit trail.

    Payments of `old` count as payments of `new` from now on (`is_same_bank`).
    Returns how many payments of `old` are PENDING.
    """
    move = BankMove(old=old, new=new, moved_at=datetime.now(UTC), moved_by=moved_by)
    return await _opened().calls.run(partial(_opened().backend.move_bank, move), audited=lambda _: [move])


async def is_same_bank(recorded: str, now: str) -> bool:
    """Return whether the bank that a payment was recorded with has the identity `now`, directly or after moves."""
    return await _call(_opened().backend.is_same_bank, recorded, now)


async def add_api_key(key: ApiKey, changed_by: str) -> None:
    """Record a new API key, with a line of the audit trail."""
    change = KeyChange.of(key, changed_by)
    await _opened().calls.run(partial(_opened().backend.add_api_key, key, change), audited=lambda _: [change])


async def list_api_keys() -> list[ApiKey]:
    """Return every API key, including the revoked ones, oldest first."""
    return await _call(_opened().backend.list_api_keys)


async def revoke_api_key(key_id: str, changed_by: str) -> KeyChange | None:
    """Revoke an API key, and return the line of the audit trail; return None when no valid key has this id."""
    revoke = partial(_opened().backend.revoke_api_key, key_id, changed_by)
    return await _opened().calls.run(revoke, audited=lambda change: [change] if change else [])


async def key_history() -> list[KeyChange]:
    """Return the audit trail of the API keys, oldest first."""
    return await _call(_opened().backend.key_history)


async def record_api_key_uses(used: Mapping[str, datetime]) -> None:
    """Record when API keys, by their ids, were last used; an earlier time changes nothing."""
    await _call(_opened().backend.record_api_key_uses, used)


async def ping() -> None:
    """Raise `StoreUnavailable` when the store can't be reached, or `GatewayTooOld`, which is one of these."""
    await _call(_opened().backend.ping)


async def check_writing() -> None:
    """Raise `StoreUnavailable`, with the cause, when the store takes no writes.

    The last write of this process says it for `VALID_S` (storage/writing.py); after that the store is asked to write
    something small. So a store that failed is used again once it works, also while no payment arrives.
    """
    opened = _opened()
    if not opened.writing.is_known():
        await _write(opened.backend.try_to_write)
        opened.writing.succeeded()
    opened.writing.check()


def keep_trying(
    payment_id: UUID,
    record: Callable[[], Awaitable[object]],
    *,
    what: str = "a change",
    after: "asyncio.Future[Any] | None" = None,
) -> None:
    """Call `record` in the background until the store takes it, or until `stop`; never raises.

    payment_id: the payment that `record` is about, for the log
    what: what `record` records, for the log, so that an operator can record it if the gateway stops before
    after: a call to the store that has to end first
    """
    if _store is None:
        log.error("payment %s: %s is not recorded, the store is closed", payment_id, what)
        return
    _store.retries.begin(payment_id, record, what, after)


async def stop() -> None:
    """Cancel what `keep_trying` is still trying, and log it; the resolver finds these payments PENDING."""
    if _store is not None:
        await _store.retries.stop()


def _open_database(url: str, keys: FingerprintKeys, *, migrate: bool, durable: bool) -> "Sql":
    if re.fullmatch(_DATABASE_URLS, url):
        from storage.sql import Sql  # noqa: PLC0415  # see above

        with contextlib.suppress(InvalidUrl):
            return Sql(url, connections=THREADS, key_checks=keys.checks, migrate=migrate, durable=durable)
    raise wrong("STORE_URL", "is not a store")


def _change(payment_id: UUID, statuses: tuple[Status, Status], changed_by: str, note: str, code: str) -> Change:
    return Change(
        payment_id=payment_id,
        changed_at=datetime.now(UTC),
        changed_by=changed_by,
        from_status=statuses[0],
        to_status=statuses[1],
        note=note,
        authorization_code=code,
    )


def _action_change(action: Action, statuses: tuple[str, ActionStatus], changed_by: str, note: str) -> Change:
    return Change(
        payment_id=action.payment_id,
        action_id=action.id,
        changed_at=datetime.now(UTC),
        changed_by=changed_by,
        from_status=statuses[0],
        to_status=statuses[1],
        note=note,
    )


async def _record(
    change: Change,
    response_code: str,
    *,
    payment: Payment | None = None,
    attempt: UUID | None = None,
    if_unresolved: bool = False,
) -> Payment:
    record = partial(
        _opened().backend.change,
        change,
        response_code,
        payment=payment,
        attempt=attempt,
        if_unresolved=if_unresolved,
    )
    return await _run_write(record, audited=lambda _: [change])


async def _erase(function: Callable[P, list[Change]], *args: P.args, **kwargs: P.kwargs) -> list[Change]:
    return await _run_write(partial(function, *args, **kwargs), audited=lambda lines: lines)


def _opened() -> _OpenStore:
    if _store is None:  # before `configure`, or a request that outlived the shutdown
        raise StoreUnavailable("the store is not open")
    return _store


async def _write(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    return await _run_write(partial(function, *args, **kwargs))


async def _run_write(write: "partial[R]", audited: Callable[[R], Any] | None = None) -> R:
    opened = _opened()
    try:
        result = await opened.calls.run(write, is_write=True, audited=audited)
    except StoreUnavailable as error:
        opened.writing.failed(str(error))
        raise
    if isinstance(result, Payment | Action):  # a `Claimed` was found, and what returns None may have changed nothing
        opened.writing.succeeded()
    return result


async def _call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    return await _opened().calls.run(partial(function, *args, **kwargs))
