"""How the functions of a backend are called, and how long a caller waits for them.

Memory answers directly. What every payment needs of a database is done in batches (storage/batching.py), and the rest
in threads, because SQLAlchemy and SQLite block. A caller waits at most `WAIT_S`.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from storage.batching import Batching
from storage.memory import Memory
from storage.records import StoreUnavailable, fields_of
from telemetry import logs

if TYPE_CHECKING:  # store.py says why
    from storage.sql import Sql

# Calls that run in threads at once, each on its own connection.
THREADS: Final = 5

# The most connections to a database. Claims, changes and reads of PostgreSQL have one each besides.
CONNECTIONS: Final = THREADS + 3

# A shopper is waiting: a database that takes longer than these seconds counts as unavailable.
WAIT_S: Final = 5.0

R = TypeVar("R")


class Calls:
    """Calls the functions of one backend."""

    def __init__(self, backend: "Memory | Sql") -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._writes: Batching | None = None
        self._batched: dict[Callable[..., Any], Batching] = {}
        if isinstance(backend, Memory):
            return
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        if backend.batches is None:  # SQLite has one writer at a time
            self._writes = Batching(lambda calls: self._in_thread(partial(backend.write, calls)), self._in_thread)
            self._batched[backend.find] = Batching(
                lambda calls: self._in_thread(partial(backend.read, calls)), self._in_thread
            )
        else:
            batches = backend.batches
            pairs = (backend.claim, batches.claim), (backend.change, batches.change), (backend.find, batches.find)
            self._batched = {function: Batching(do, self._in_thread) for function, do in pairs}

    async def run(
        self, call: "partial[R]", *, is_write: bool = False, audited: Callable[[R], Iterable[Any]] | None = None
    ) -> R:
        """Call a function of the backend.

        is_write: the function writes, and in SQLite can do so in one transaction with others
        audited: returns the lines of the audit trail that were recorded, from the result. They are logged as well,
            because the owner of a database can change them; also when the caller has given up waiting
        Raises what the function raises, and `StoreUnavailable` when there is no answer in time.
        """
        if self._threads is None:
            result = call()
            if audited is not None:
                _log(audited(result))
            return result
        batching = self._writes if is_write and self._writes else self._batched.get(call.func)
        future = self._in_thread(call) if batching is None else batching.submit(call)
        if audited is not None:
            _when_done(future, audited)
        return await _in_time(future)

    def close(self) -> None:
        """Start no further call. A call to a vanished database may hang in a thread, so nothing waits for it."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _in_thread(self, call: "partial[R]") -> "asyncio.Future[R]":
        assert self._threads is not None
        context = contextvars.copy_context()  # log lines of the call carry the request's id
        return asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(call))


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
