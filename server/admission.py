"""Admission: how many payments may be in progress, and how the surplus is refused.

A payment beyond the limit is refused with 503 after its key and rate were checked, and before its body is read.
Overload must not take the CPU from the payments that are admitted, or from reads. So payments begin a few in each turn
of the event loop, and a refusal waits the longer the more others wait: clients that retry would otherwise be refused
thousands of times a second.
"""

import asyncio
import math
from collections import deque
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers import problems
from handlers.operations import Operation
from handlers.problems import Code, Problem
from handlers.scope import OPERATION
from telemetry import metrics

# Payments that begin in one turn of the event loop: about 2 ms of CPU.
AT_ONCE: Final = 4

# Seconds that a refusal waits for each one that waits already, and at most. That caps refusals near 250 a second, a
# twentieth of a core, as long as fewer than 1,250 wait.
WAIT_S: Final = 0.004
LONGEST_WAIT_S: Final = 5.0

# Retry-After is as many times as long. With thousands of clients that wait for it, few enough return in each second.
RETRY_AFTER_FACTOR: Final = 2


class Admission:
    """Counts the payments in progress.

    limit: how many there may be, at the bank and waiting for it
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._begun = 0
        self._to_begin: deque[asyncio.Future[None]] = deque()
        self._refusals = 0

    def is_full(self) -> bool:
        """Return whether the next payment would be one too many, with those that wait for their turn to begin."""
        return self._free <= len(self._to_begin)

    def enter(self) -> None:
        """Count one more payment. Raises `Problem` when it is one too many."""
        if self._free <= 0:
            metrics.SHED.inc()
            raise Problem(Code.OVERLOADED)
        self._free -= 1

    def leave(self) -> None:
        """Count one payment less."""
        self._free += 1

    async def turn(self) -> None:
        """Return in a turn of the event loop in which fewer than `AT_ONCE` payments have begun."""
        loop = asyncio.get_running_loop()
        if self._begun == 0:
            loop.call_soon(self._next_turn)
        if self._begun < AT_ONCE:
            self._begun += 1
        else:
            future = loop.create_future()
            self._to_begin.append(future)
            await future

    def _next_turn(self) -> None:
        self._begun = min(AT_ONCE, len(self._to_begin))
        for _ in range(self._begun):
            future = self._to_begin.popleft()
            if not future.done():  # cancelled at a shutdown
                future.set_result(None)
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)

    async def wait_to_refuse(self) -> float:
        """Wait, longer the more others wait; return how many seconds."""
        self._refusals += 1
        wait_s = min(self._refusals * WAIT_S, LONGEST_WAIT_S)
        try:
            await asyncio.sleep(wait_s)
        finally:
            self._refusals -= 1
        return wait_s


class Admit:
    """ASGI middleware for operations with a body, which are those that make payments."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation: Operation | None = scope.get(OPERATION)
        if operation is None or not operation.has_body:
            await self._app(scope, receive, send)
        elif self._admission.is_full():
            await self._refuse(scope, receive, send)
        else:
            await self._admission.turn()
            await self._admit(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the payment, without raising, which would cost twice as much CPU."""
        metrics.SHED.inc()
        wait_s = await self._admission.wait_to_refuse()
        retry_after = {"Retry-After": str(math.ceil(wait_s * RETRY_AFTER_FACTOR))}
        await problems.response(Problem(Code.OVERLOADED, headers=retry_after))(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the payment from the end of its body on: a client that sends slowly does not count yet."""
        entered = False

        async def counted() -> Message:
            nonlocal entered
            message = await receive()
            if not entered and message["type"] == "http.request" and not message.get("more_body", False):
                self._admission.enter()
                entered = True
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            if entered:
                self._admission.leave()
