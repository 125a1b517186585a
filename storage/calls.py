"""How the functions of a backend are called, and how long a caller waits for them.

Memory answers directly. A database blocks, so its functions run in threads, and a caller waits at most `WAIT_S`.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from storage.batching import GroupCommit
from storage.memory import Memory
from storage.records import StoreUnavailable, fields_of
from telemetry import logs

if TYPE_CHECKING:  # store.py says why
    from storage.sql import Sql

# Concurrent database calls, each on its own connection. A call takes about 1 ms, so the number does not
# limit throughput, and PostgreSQL allows 100 connections by default.
CONNECTIONS: Final = 8

# A shopper is waiting: a database that takes longer than these seconds counts as unavailable.
WAIT_S: Final = 5.0

R = TypeVar("R")


class Calls:
    """Calls the functions of one backend."""

    def __init__(self, backend: "Memory | Sql") -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._group_commit: GroupCommit | None = None
        if not isinstance(backend, Memory):
            self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="store")
            if backend.has_single_writer:
                self._group_commit = GroupCommit(backend.transact, self._threads)

    async def run(
        self, function: Callable[[], R], *, grouped: bool = False, audited: Callable[[R], Iterable[Any]] | None = None
    ) -> R:
        """Call a function of the backend.

        grouped: together with other writes in one transaction, where the backend does that
        audited: returns the lines of the audit trail that were recorded, from the result. They are logged as well,
            because the owner of a database can change them; also when the caller has given up waiting
        Raises what the function raises, and `StoreUnavailable` when there is no answer in time.
        """
        if self._threads is None:
            result = function()
            if audited is not None:
                _log(audited(result))
            return result
        if grouped and self._group_commit is not None:
            future = self._group_commit.submit(function)
        else:
            context = contextvars.copy_context()  # log lines of the call carry the request's id
            future = asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(function))
        if audited is not None:
            _when_done(future, audited)
        return await _in_time(future)

    def close(self) -> None:
        """Start no further call. A call to a vanished database may hang in a thread, so nothing waits for it."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _when_done(call: "asyncio.Future[R]", audited: Callable[[R], Iterable[Any]]) -> None:
    def log(done: "asyncio.Future[R]") -> None:
        if not done.cancelled() and done.exception() is None:
            _log(audited(done.result()))

    call.add_done_callback(log)


def _log(lines: Iterable[Any]) -> None:
    for line in lines:
        logs.audit(fields_of(line))


async def _in_time(call: "asyncio.Future[R]") -> R:
    try:
        async with asyncio.timeout(WAIT_S):
            # The call goes on after the timeout; a caller that must undo it awaits `unfinished` first.
            return await asyncio.shield(call)
    except TimeoutError:
        raise StoreUnavailable(f"no answer within {WAIT_S:g} s", call) from None
