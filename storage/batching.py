"""Batches: how calls of a backend that arrive while a batch is under way are done together, in the next one.

A database has work to do for each transaction, fsync for one, and the gateway has work for each statement. So fewer and
larger ones cost less. A call that finds no batch under way is done at once.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from storage.records import StoreUnavailable

# The most calls in a batch, so that none waits for very many others.
LIMIT: Final = 100

CLOSED: Final = "the store is closed"

Call = partial[Any]

# What a call returned, or the exception that it raised; None if the batch did not do it.
Outcome = tuple[Any, BaseException | None] | None


class _Waiting(NamedTuple):
    call: Call
    future: "asyncio.Future[Any]"
    context: contextvars.Context


class Batching:
    """Does calls in batches, one batch at a time.

    do: does these calls and returns their outcomes; an exception that it raises is the outcome of every call
    alone: begins a call that a batch did not do; the future gets its outcome
    """

    def __init__(
        self,
        do: Callable[[Sequence[Call]], Awaitable[Sequence[Outcome]]],
        alone: "Callable[[Call], asyncio.Future[Any]]",
    ) -> None:
        self._do, self._alone = do, alone
        self._waiting: list[_Waiting] = []
        self._under_way = False

    def submit(self, call: Call) -> "asyncio.Future[Any]":
        """Do the call in the next batch; the future gets its outcome."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(call, future, contextvars.copy_context()))
        if not self._under_way:
            self._begin()
        return future

    def _begin(self) -> None:
        batch, self._waiting = self._waiting[:LIMIT], self._waiting[LIMIT:]
        self._under_way = bool(batch)
        if batch:
            try:
                done = asyncio.ensure_future(self._do([waiting.call for waiting in batch]))
            except RuntimeError:  # the threads are shut down
                _end_all(batch, StoreUnavailable(CLOSED))
            else:
                done.add_done_callback(partial(self._finish, batch))

    def _finish(self, batch: list[_Waiting], done: "asyncio.Future[Sequence[Outcome]]") -> None:
        error = StoreUnavailable(CLOSED) if done.cancelled() else done.exception()
        if error is not None:
            _end_all(batch, error)
        else:
            for waiting, outcome in zip(batch, done.result(), strict=True):
                if outcome is None:
                    self._do_alone(waiting)
                else:
                    _end(waiting.future, *outcome)
        self._begin()

    def _do_alone(self, waiting: _Waiting) -> None:
        try:
            begun = waiting.context.run(self._alone, waiting.call)
        except RuntimeError:  # the threads are shut down
            _end(waiting.future, None, StoreUnavailable(CLOSED))
        else:
            begun.add_done_callback(partial(_end_as, waiting.future))


def _end_as(future: "asyncio.Future[Any]", done: "asyncio.Future[Any]") -> None:
    error = StoreUnavailable(CLOSED) if done.cancelled() else done.exception()
    _end(future, None if error else done.result(), error)


def _end_all(batch: list[_Waiting], error: BaseException) -> None:
    for waiting in batch:
        _end(waiting.future, None, error)


def _end(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
        future.exception()  # mark it as retrieved: the waiter may be gone
