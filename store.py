"""The store: which functions record payments and API keys, and what each of them guarantees.

`configure` chooses the backend: this process's memory (storage/memory.py) or a database (storage/sql.py).
Both behave the same; one test suite runs against each. Memory answers directly. A database blocks, so
its calls run in a thread pool, and a caller waits at most `WAIT_S` for one.
"""

import asyncio
import contextlib
import contextvars
import hashlib
import hmac
import itertools
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar
from uuid import UUID

from config import MEMORY, wrong
from storage import backup
from storage.group_commit import GroupCommit
from storage.memory import Memory
from storage.records import (
    UNKNOWN_BANK,
    ApiKey,
    BackupFailed,
    BankMove,
    Change,
    Claimed,
    GatewayTooOld,
    IdempotencyKey,
    InvalidUrl,
    KeyChange,
    NotDeclined,
    NotPending,
    Payment,
    Status,
    StoreMismatch,
    StoreUnavailable,
    UnresolvedStats,
)
from storage.sql import Sql
from telemetry import logs

__all__ = [
    "UNKNOWN_BANK",
    "ApiKey",
    "BackupFailed",
    "Change",
    "Claimed",
    "GatewayTooOld",
    "IdempotencyKey",
    "KeyChange",
    "NotDeclined",
    "NotPending",
    "Payment",
    "Status",
    "StoreMismatch",
    "StoreUnavailable",
    "UnresolvedStats",
]

log = logging.getLogger("gateway.store")

# Concurrent database calls, each on its own connection. A call takes about 1 ms, so the number does not
# limit throughput, and PostgreSQL allows 100 connections by default.
CONNECTIONS: Final = 8

# A shopper is waiting: a database that takes longer than these seconds counts as unavailable.
WAIT_S: Final = 5.0

# Seconds between the attempts of `keep_trying`; the last one repeats.
RETRY_DELAYS_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)

# The text whose HMAC identifies a FINGERPRINT_KEY.
_KEY_CHECK: Final = "key check"

# How many hex digits of a key check are the id of the key.
_KEY_ID_LENGTH: Final = 8

_DATABASE_URLS: Final = r"sqlite:///.+|postgresql\+psycopg://.+"

_Fields = dict[str, Any]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _OpenStore:
    backend: Memory | Sql
    fingerprint_keys: dict[str, bytes] = field(repr=False)  # by id; the first one makes the fingerprints
    threads: ThreadPoolExecutor | None = None
    group_commit: GroupCommit | None = None
    retries: set[asyncio.Task[None]] = field(default_factory=set)


_store: _OpenStore | None = None


def configure(
    url: str, *, fingerprint_key: bytes, old_fingerprint_keys: Sequence[bytes] = (), migrate: bool = True
) -> None:
    """Open the store at `url`, and close the one that was open before.

    url: `memory:`, `sqlite:///FILE` or `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`
    fingerprint_key: FINGERPRINT_KEY, 32 bytes; every gateway on a database needs the same
    old_fingerprint_keys: FINGERPRINT_OLD_KEYS, which only verify
    migrate: create or upgrade the tables of a database; otherwise one that needs this is a `StoreMismatch`
    Raises `ConfigError` when the URL is not one of these, `StoreMismatch` when the database can't be used
    as it is, and `StoreUnavailable` when it can't be reached.
    """
    global _store
    close()
    keys = (fingerprint_key, *old_fingerprint_keys)
    if any(len(key) != 32 for key in keys):
        raise ValueError("a fingerprint key is not 32 bytes")
    fingerprint_keys = {_hmac(key, _KEY_CHECK)[:_KEY_ID_LENGTH]: key for key in keys}
    if url == MEMORY:
        _store = _OpenStore(Memory(), fingerprint_keys)
        return
    database = _open_database(url, keys, migrate=migrate)
    threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="store")
    group_commit = GroupCommit(database.transact, threads) if database.has_single_writer else None
    _store = _OpenStore(database, fingerprint_keys, threads, group_commit)


def migrate(url: str, *, fingerprint_key: bytes, old_fingerprint_keys: Sequence[bytes] = ()) -> tuple[str | None, str]:
    """Create or upgrade the tables of a database; return the schema's version before, None without tables, and now.

    Raises what `configure` raises.
    """
    database = _open_database(url, (fingerprint_key, *old_fingerprint_keys), migrate=True)
    database.close()
    return database.found_version, database.known_version


def back_up(url: str, file: Path) -> str | None:
    """Copy the database at `url` into a new file; for PostgreSQL return the command lines that do it instead.

    Raises `BackupFailed`, and `ConfigError` when the URL is not that of a database.
    """
    if not re.fullmatch(_DATABASE_URLS, url):
        raise wrong("STORE_URL", "is not a database")
    if not url.startswith("sqlite:"):
        return "\n".join(backup.commands(url, file))
    backup.back_up(url, file)
    return None


def close() -> None:
    """Close the store; payments in memory are gone."""
    global _store
    if _store is None:
        return
    if _store.threads is not None:
        _store.threads.shutdown(wait=False, cancel_futures=True)  # a call to a vanished database may hang in one
    _store.backend.close()
    _store = None


def is_lasting() -> bool:
    """Return whether the records outlive this process."""
    return not isinstance(_opened().backend, Memory)


def keyed_digests(text: str) -> dict[str, str]:
    """Return the HMAC-SHA256 of a text under each fingerprint key, 64 hex digits, by the id of the key.

    FINGERPRINT_KEY comes first. An id has 8 hex digits and says nothing about its key.
    """
    return {key_id: _hmac(key, text) for key_id, key in _opened().fingerprint_keys.items()}


def fingerprint_key_ids() -> list[str]:
    """Return the ids of FINGERPRINT_KEY and FINGERPRINT_OLD_KEYS, in this order."""
    return list(_opened().fingerprint_keys)


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
    payment_id: UUID,
    status: Status,
    changed_by: str,
    note: str = "",
    *,
    code: str = "",
    attempt: UUID | None = None,
    if_unresolved: bool = False,
) -> Payment:
    """Record how a PENDING payment ended, with a line of the audit trail, and return the payment.

    code: the bank's authorization code, up to 64 characters
    attempt: refuse when another attempt has claimed the payment since
    if_unresolved: refuse while a request is running for the payment, because its answer may differ
    Raises `NotPending` when the payment is not PENDING or the settling is refused, and `StoreUnavailable`.
    """
    change = partial(
        _opened().backend.settle,
        payment_id,
        status,
        changed_by,
        note,
        code=code,
        attempt=attempt,
        if_unresolved=if_unresolved,
    )
    line = _change(payment_id, changed_by, (Status.PENDING, status), note, code)
    return await _run(change, grouped=True, changed=lambda _: line)


async def correct(payment_id: UUID, changed_by: str, note: str = "", code: str = "") -> Payment:
    """Record that a DECLINED payment is AUTHORIZED, with a line of the audit trail, and return the payment.

    The bank's own answer counts more than what was recorded before. Nothing turns AUTHORIZED into DECLINED.
    Raises `NotDeclined` when the payment is not DECLINED, and `StoreUnavailable`.
    """
    change = partial(_opened().backend.correct, payment_id, changed_by, note, code)
    line = _change(payment_id, changed_by, (Status.DECLINED, Status.AUTHORIZED), note, code)
    return await _run(change, grouped=True, changed=lambda _: line)


async def mark_unresolved(payment_id: UUID, look_up_in_s: float) -> None:
    """Record that no request is running for a PENDING payment any more.

    look_up_in_s: seconds until the payment is due for a look-up at the bank
    """
    await _write(_opened().backend.mark_unresolved, payment_id, look_up_in_s)


async def release(payment_id: UUID, attempt: UUID) -> None:
    """Hide a PENDING payment that the bank says it did not process, and keep its id for a retry.

    A released payment is found by `claim` only. Nothing happens when another attempt has claimed the payment since.
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
    """Return the payment, or None when there is none with this id."""
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


async def list_unresolved() -> list[Payment]:
    """Return every PENDING payment without a running request, oldest first."""
    return await _call(_opened().backend.list_unresolved)


async def search(status: Status | None = None, since: datetime | None = None, limit: int = 1000) -> list[Payment]:
    """Return payments, newest first."""
    return await _call(_opened().backend.search, status, since, limit)


async def history(payment_id: UUID) -> list[Change]:
    """Return the payment's audit trail, oldest first."""
    return await _call(_opened().backend.history, payment_id)


async def fingerprint_key_uses(since: datetime) -> dict[str, int]:
    """Return how many payments created since then need each fingerprint key, by its id."""
    return await _call(_opened().backend.fingerprint_key_uses, since)


async def unresolved_stats() -> UnresolvedStats:
    """Return how many payments are unresolved, and when the oldest was created."""
    return await _call(_opened().backend.unresolved_stats)


async def move_bank(old: str, new: str, moved_by: str) -> int:
    """Record that the bank with the identity `old` has the identity `new` now, in the audit trail.

    Payments of `old` count as payments of `new` from now on (`is_same_bank`).
    Returns how many payments of `old` are PENDING.
    """
    move = BankMove(old=old, new=new, moved_at=datetime.now(UTC), moved_by=moved_by)
    line = {"changed_by": moved_by, "from_bank": old, "to_bank": new}
    return await _run(partial(_opened().backend.move_bank, move), changed=lambda _: line)


async def is_same_bank(recorded: str, now: str) -> bool:
    """Return whether the bank that a payment was recorded with has the identity `now`, directly or after moves."""
    return await _call(_opened().backend.is_same_bank, recorded, now)


async def add_api_key(key: ApiKey, changed_by: str) -> None:
    """Record a new API key, with a line of the audit trail."""
    change = partial(_opened().backend.add_api_key, key, changed_by)
    await _run(change, changed=lambda _: _key_change(key, changed_by, "created"))


async def list_api_keys() -> list[ApiKey]:
    """Return every API key, including the revoked ones, oldest first."""
    return await _call(_opened().backend.list_api_keys)


async def revoke_api_key(key_id: str, changed_by: str) -> ApiKey | None:
    """Revoke an API key, with a line of the audit trail, and return it; return None when no valid key has this id."""
    change = partial(_opened().backend.revoke_api_key, key_id, changed_by)
    return await _run(change, changed=lambda key: _key_change(key, changed_by, "revoked") if key else None)


async def key_history() -> list[KeyChange]:
    """Return the audit trail of the API keys, oldest first."""
    return await _call(_opened().backend.key_history)


async def record_api_key_uses(used: Mapping[str, datetime]) -> None:
    """Record when API keys, by their ids, were last used; an earlier time changes nothing."""
    await _call(_opened().backend.record_api_key_uses, used)


async def ping() -> None:
    """Raise `StoreUnavailable` when the store can't be reached, or `GatewayTooOld`, which is one of these."""
    await _call(_opened().backend.ping)


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
    task = asyncio.create_task(_retry(payment_id, record, what, after))
    _store.retries.add(task)
    task.add_done_callback(_store.retries.discard)


async def stop() -> None:
    """Cancel what `keep_trying` is still trying, and log it; the resolver finds these payments PENDING."""
    if _store is not None:
        retries = list(_store.retries)
        for task in retries:
            task.cancel()
        await asyncio.gather(*retries, return_exceptions=True)


async def _retry(
    payment_id: UUID, record: Callable[[], Awaitable[object]], what: str, after: "asyncio.Future[Any] | None"
) -> None:
    try:
        await _until_recorded(payment_id, record, what, after)
    except asyncio.CancelledError:
        log.error("payment %s: %s was not recorded before the gateway stopped", payment_id, what)
        raise


async def _until_recorded(
    payment_id: UUID, record: Callable[[], Awaitable[object]], what: str, after: "asyncio.Future[Any] | None"
) -> None:
    if after is not None:
        await asyncio.wait([after])
    for delay_s in itertools.chain(RETRY_DELAYS_S, itertools.repeat(RETRY_DELAYS_S[-1])):
        await asyncio.sleep(delay_s)
        try:
            await record()
        except Exception as error:
            reason = str(error) if isinstance(error, StoreUnavailable) else type(error).__name__
            log.warning("payment %s: %s is not recorded yet: %s", payment_id, what, reason)
        else:
            log.info("payment %s: %s is recorded now", payment_id, what)
            return


def _open_database(url: str, fingerprint_keys: Sequence[bytes], *, migrate: bool) -> Sql:
    key_checks = [_hmac(key, _KEY_CHECK) for key in fingerprint_keys]
    if re.fullmatch(_DATABASE_URLS, url):
        with contextlib.suppress(InvalidUrl):
            return Sql(url, connections=CONNECTIONS, key_checks=key_checks, migrate=migrate)
    raise wrong("STORE_URL", "is not a store")


def _change(payment_id: UUID, changed_by: str, statuses: tuple[Status, Status], note: str, code: str) -> _Fields:
    before, after = statuses
    fields = {"payment_id": payment_id, "changed_by": changed_by, "from": before, "to": after, "note": note}
    return {**fields, "code": code}


def _key_change(key: ApiKey, changed_by: str, change: str) -> _Fields:
    return {"key_id": key.id, "merchant": key.merchant, "changed_by": changed_by, "change": change}


def _hmac(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()


def _opened() -> _OpenStore:
    if _store is None:  # before `configure`, or a request that outlived the shutdown
        raise StoreUnavailable("the store is not open")
    return _store


async def _write(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    return await _run(partial(function, *args, **kwargs), grouped=True)


async def _call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    return await _run(partial(function, *args, **kwargs))


async def _run(
    call: Callable[[], R], *, grouped: bool = False, changed: Callable[[R], _Fields | None] | None = None
) -> R:
    """Call a function of the backend.

    grouped: together with other writes in one transaction, where the backend does that
    changed: returns the line of the audit trail from the result; logged even when the caller has given up waiting
    """
    opened = _opened()
    if opened.threads is None:
        result = call()
        if changed is not None:
            _log_change(changed(result))
        return result
    if grouped and opened.group_commit is not None:
        future = opened.group_commit.submit(call)
    else:
        context = contextvars.copy_context()  # log lines of the call carry the request's id
        future = asyncio.get_running_loop().run_in_executor(opened.threads, lambda: context.run(call))
    if changed is not None:
        line = changed

        def log_if_done(done: "asyncio.Future[R]") -> None:
            if not done.cancelled() and done.exception() is None:
                _log_change(line(done.result()))

        future.add_done_callback(log_if_done)
    return await _in_time(future)


def _log_change(line: _Fields | None) -> None:
    """Log a line of the audit trail as well, because the owner of the database can change the database."""
    if line is not None:
        logs.audit(line)


async def _in_time(call: "asyncio.Future[R]") -> R:
    try:
        async with asyncio.timeout(WAIT_S):
            # The call goes on after the timeout; a caller that must undo it awaits `unfinished` first.
            return await asyncio.shield(call)
    except TimeoutError:
        raise StoreUnavailable(f"no answer within {WAIT_S:g} s", call) from None
