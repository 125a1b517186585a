"""Group commit: how writes that arrive while a transaction is being written share the next one.

SQLite has one writer at a time and calls fsync for each transaction, so fewer and larger transactions
cost less.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

# What a call returned, or the exception that it raised.
Outcome = tuple[Any, BaseException | None]
_Write = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class GroupCommit:
    """Runs calls in shared transactions, one transaction at a time, in a thread.

    transact: runs all of these calls in one transaction and returns their outcomes; an exception that it
        raises is the outcome of every call
    """

    def __init__(self, transact: Callable[[Sequence[Callable[[], Any]]], list[Outcome]], threads: Executor) -> None:
        self._transact, self._threads = transact, threads
        self._waiting: list[_Write] = []
        self._writing = False

    def submit(self, call: Callable[[], Any]) -> "asyncio.Future[Any]":
        """Run the call in the next transaction; the future gets its outcome."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        if not self._writing:
            self._begin()
        return future

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        self._writing = bool(batch)
        if batch:
            calls = [call for call, _ in batch]
            transaction = asyncio.get_running_loop().run_in_executor(self._threads, self._transact, calls)
            transaction.add_done_callback(lambda done: self._finish(batch, done))

    def _finish(self, batch: list[_Write], done: "asyncio.Future[list[Outcome]]") -> None:
        if done.cancelled():  # the store was closed
            for _, future in batch:
                future.cancel()
            return
        error = done.exception()
        outcomes: list[Outcome] = [(None, error)] * len(batch) if error else done.result()
        for (_, future), (result, raised) in zip(batch, outcomes, strict=True):
            if raised is None:
                future.set_result(result)
            else:
                future.set_exception(raised)
                future.exception()  # mark it as retrieved: the waiter may be gone
        self._begin()
