"""Admission: how many payments may be in progress, and which of them begin next.

A payment beyond the limit is refused with 503 after its key and rate were checked, and before its body is read. One
merchant's payments can't take all places of the others (MERCHANT_SHARE). Payments begin a few in each turn of the event
loop, so that they do not take the CPU from those in progress and from reads, and merchants take turns to begin.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bank.slots import RoundRobin
from handlers import problems
from handlers.operations import Operation
from handlers.problems import Code, Problem
from handlers.scope import MERCHANT, OPERATION
from telemetry import metrics

# Payments that begin in one turn of the event loop: about 2 ms of CPU.
AT_ONCE: Final = 4


class Admission:
    """Counts the payments in progress.

    slots, queue: how many there may be, at the bank and waiting for it
    most_of: returns how many of a number of slots or places in the queue one merchant may take
    """

    def __init__(self, slots: int, queue: int = 0, most_of: Callable[[int], int] = lambda number: number) -> None:
        self._slots, self._queue, self._most_of = slots, queue, most_of
        self._free = slots + queue
        self._in_progress: Counter[str] = Counter()
        self._begun = 0
        self._to_begin = RoundRobin()

    def is_full(self, merchant: str) -> bool:
        """Return whether the merchant's next payment would be one too many, with those that wait for their turn."""
        waiting = self._to_begin
        return self._free <= len(waiting) or self._in_progress[merchant] + waiting.count(merchant) >= self._of_one()

    def enter(self, merchant: str) -> None:
        """Count one more payment. Raises `Problem` when it is one too many."""
        if self._free <= 0 or self._in_progress[merchant] >= self._of_one():
            metrics.SHED.inc()
            raise Problem(Code.OVERLOADED)
        self._free -= 1
        self._in_progress[merchant] += 1

    def leave(self, merchant: str) -> None:
        """Count one payment less."""
        self._free += 1
        self._in_progress[merchant] -= 1

    def _of_one(self) -> int:
        return self._most_of(self._slots) + self._most_of(self._queue)

    async def turn(self, merchant: str) -> None:
        """Return in a turn of the event loop in which fewer than `AT_ONCE` payments have begun."""
        if self._begun == 0:
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self._begun < AT_ONCE:
            self._begun += 1
        else:
            await self._to_begin.add(merchant)

    def _next_turn(self) -> None:
        self._begun = 0
        while self._begun < AT_ONCE and self._to_begin.begin_next() is not None:
            self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)


class Admit:
    """ASGI middleware for operations with a body, which are those that make payments."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation: Operation | None = scope.get(OPERATION)
        if operation is None or not operation.has_body:
            await self._app(scope, receive, send)
        elif self._admission.is_full(scope[MERCHANT]):
            metrics.SHED.inc()
            # Without raising, which would cost twice as much CPU.
            await problems.response(Problem(Code.OVERLOADED))(scope, receive, send)
        else:
            await self._admission.turn(scope[MERCHANT])
            await self._admit(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the payment from the end of its body on: a client that sends slowly does not count yet."""
        entered, merchant = False, scope[MERCHANT]

        async def counted() -> Message:
            nonlocal entered
            message = await receive()
            if not entered and message["type"] == "http.request" and not message.get("more_body", False):
                self._admission.enter(merchant)
                entered = True
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            if entered:
                self._admission.leave(merchant)
