"""Where payments are kept, and how they may change: the functions that the rest of the gateway calls.

`configure` chooses memory (storage/memory.py) or a database (storage/sql.py); both do the same, which one
suite of tests holds them to. Memory answers directly. A database blocks, so its calls run in threads of
their own, and none is waited for longer than `WAIT_S`.
"""

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, ParamSpec, TypeVar
from uuid import UUID

from storage.group_commit import GroupCommit
from storage.memory import Memory
from storage.records import (
    ApiKey,
    Change,
    Claimed,
    IdempotencyKey,
    NotPending,
    Payment,
    Status,
    StoreMismatch,
    StoreUnavailable,
    UnresolvedStats,
)
from storage.sql import Sql

__all__ = [
    "ApiKey",
    "Change",
    "Claimed",
    "IdempotencyKey",
    "NotPending",
    "Payment",
    "Status",
    "StoreMismatch",
    "StoreUnavailable",
    "UnresolvedStats",
]

MEMORY: Final = "memory:"

# Calls to the database under way at once, each with a connection of its own. A call takes about a
# millisecond, so this is not what limits a gateway, and a PostgreSQL allows 100 connections by default.
CONNECTIONS: Final = 8

# A database that takes longer is down, as far as a shopper who waits is concerned.
WAIT_S: Final = 5.0

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _OpenStore:
    records: Memory | Sql
    threads: ThreadPoolExecutor | None = None
    group_commit: GroupCommit | None = None


_store = _OpenStore(Memory())


def configure(url: str, *, key_check: str = "", create: bool = True) -> None:
    """Keep payments at `url`: `memory:`, `sqlite:///...` or `postgresql+psycopg://...`.

    key_check: what FINGERPRINT_KEY is known by (idempotency.py)
    create: make the tables where there are none
    Raises `StoreMismatch` when the store is not for this gateway, and `StoreUnavailable` when it can't
    be reached.
    """
    global _store
    close()
    if url == MEMORY:
        _store = _OpenStore(Memory())
    else:
        records = Sql(url, connections=CONNECTIONS, key_check=key_check, create=create)
        threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="store")
        _store = _OpenStore(
            records, threads, GroupCommit(records.transact, threads) if records.has_single_writer else None
        )


def close() -> None:
    """Let the store go; what was in memory is gone."""
    global _store
    if _store.threads is not None:
        _store.threads.shutdown(wait=False, cancel_futures=True)  # one may hang in a call to a vanished database
    _store.records.close()
    _store = _OpenStore(Memory())


def is_lasting() -> bool:
    """Whether what is kept outlives this process."""
    return not isinstance(_store.records, Memory)


async def claim(payment: Payment, key: IdempotencyKey | None, work_s: float) -> Claimed | None:
    """Record a PENDING payment before the bank is asked, or return the payment that has the key already.

    work_s: how long the request may be at work on it
    Raises `StoreUnavailable`; then the payment may or may not be recorded.
    """
    return await _write(_store.records.claim, payment, key, work_s)


async def settle(
    payment_id: UUID, status: Status, changed_by: str, note: str = "", *, if_unresolved: bool = False
) -> Payment:
    """Record how a PENDING payment ended, with a line of the audit trail, and return the payment.

    if_unresolved: only when no request is running for it, whose answer might differ
    Raises `NotPending` when it has ended already, or a request is running for it, and `StoreUnavailable`.
    """
    return await _write(_store.records.settle, payment_id, status, changed_by, note, if_unresolved=if_unresolved)


async def mark_unresolved(payment_id: UUID, look_up_s: float) -> None:
    """Record that no request is at work on a PENDING payment any more, and when to ask the bank about it."""
    await _write(_store.records.mark_unresolved, payment_id, look_up_s)


async def drop(payment_id: UUID) -> None:
    """Forget a PENDING payment that certainly did not happen; nothing else is ever forgotten."""
    await _write(_store.records.drop, payment_id)


async def find(payment_id: UUID) -> Payment | None:
    """Return the payment, or None when there is none with this id."""
    return await _ask(_store.records.find, payment_id)


async def take_due(limit: int, again_s: Callable[[int], float]) -> list[Payment]:
    """Return PENDING payments that are due to be asked about, each to one process only.

    again_s: seconds until it is due again, by how often that was done before
    """
    return await _ask(_store.records.take_due, limit, again_s)


async def list_unresolved() -> list[Payment]:
    """Return every PENDING payment that no request is at work on, oldest first."""
    return await _ask(_store.records.list_unresolved)


async def search(status: Status | None = None, since: datetime | None = None, limit: int = 1000) -> list[Payment]:
    """Return payments, newest first."""
    return await _ask(_store.records.search, status, since, limit)


async def history(payment_id: UUID) -> list[Change]:
    """Return the payment's audit trail, oldest first."""
    return await _ask(_store.records.history, payment_id)


async def unresolved_stats() -> UnresolvedStats:
    """Return how many payments are in doubt, and since when."""
    return await _ask(_store.records.unresolved_stats)


async def add_api_key(key: ApiKey) -> None:
    """Keep what is kept of a new API key."""
    await _ask(_store.records.add_api_key, key)


async def list_api_keys() -> list[ApiKey]:
    """Return every API key, the revoked ones too, oldest first."""
    return await _ask(_store.records.list_api_keys)


async def revoke_api_key(key_id: str) -> ApiKey | None:
    """Revoke an API key and return it; None when there is none with this id that is still good."""
    return await _ask(_store.records.revoke_api_key, key_id)


async def record_api_key_uses(used: Mapping[str, datetime]) -> None:
    """Record when API keys, by their ids, were last used."""
    await _ask(_store.records.record_api_key_uses, used)


async def ping() -> None:
    """Raise `StoreUnavailable` when the store can't be reached."""
    await _ask(_store.records.ping)


async def _write(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    if _store.group_commit is None:
        return await _ask(function, *args, **kwargs)
    return await _in_time(_store.group_commit.submit(partial(function, *args, **kwargs)))


async def _ask(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    if _store.threads is None:
        return function(*args, **kwargs)
    context = contextvars.copy_context()  # for the request's id, should anything be logged
    loop = asyncio.get_running_loop()
    call = loop.run_in_executor(_store.threads, lambda: context.run(function, *args, **kwargs))
    return await _in_time(call)


async def _in_time(call: "asyncio.Future[R]") -> R:
    try:
        async with asyncio.timeout(WAIT_S):
            return await asyncio.shield(call)  # it goes on: whoever has to undo it waits for its end first
    except TimeoutError:
        raise StoreUnavailable(f"no answer within {WAIT_S:g} s", call) from None
