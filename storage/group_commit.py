"""Writes that share a transaction: those that came while the one before was being written (group commit).

SQLite has one writer at a time, and waits for the disk with each transaction. One at a time, the writes of
64 payments under way took 3 ms of CPU each, most of it to hand the interpreter's lock to and fro.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

# What became of a call: what it returned, or what it raised.
Outcome = tuple[Any, BaseException | None]


class GroupCommit:
    """Makes calls in transactions, each of them in a thread.

    transact: makes all of these calls in one transaction, and returns what became of each; what it raises
        itself is what became of all
    """

    def __init__(self, transact: Callable[[Sequence[Callable[[], Any]]], list[Outcome]], threads: Executor) -> None:
        self._transact, self._threads = transact, threads
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._writing = False

    def submit(self, call: Callable[[], Any]) -> "asyncio.Future[Any]":
        """Make this call in the next transaction."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        if not self._writing:
            self._write()
        return future

    def _write(self) -> None:
        batch, self._waiting = self._waiting, []
        self._writing = bool(batch)
        if batch:
            written = asyncio.get_running_loop().run_in_executor(
                self._threads, self._transact, [call for call, _ in batch]
            )
            written.add_done_callback(lambda done: self._written(batch, done))

    def _written(
        self, batch: list[tuple[Callable[[], Any], "asyncio.Future[Any]"]], done: "asyncio.Future[list[Outcome]]"
    ) -> None:
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
                future.exception()  # to have looked at it: whoever waited may have given up
        self._write()
