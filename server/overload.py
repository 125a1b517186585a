"""More payments than there is room for are refused here, as cheaply as can be.

Under three times the load that a gateway can carry, two of three requests end here, and what they cost is
taken from the payments that are accepted. So it happens before there is a task: server/protocol.py asks
as soon as it has read a request's head. payments.py makes certain what is only likely here: that there
is room.

Between its head and payments.py a request is on its way, and those count too. In a busy turn of the
event loop a hundred heads are read before the first of them gets there; without that count, 75 % of the
CPU went to payments that were refused in the end.

And payments begin a few in each turn of the event loop, however many have come: a turn with a hundred in
it kept reads and refusals waiting for up to 1.9 s.

Clients that do not wait for as long as Retry-After says, but send again at once, would be refused 7,500 times
a second, with 3 % of the CPU left for payments. So a connection on which a payment was refused rests
for a while, and so do the reads of a client that sends them on it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from starlette.types import Scope

import bank
from handlers.contract import Contract, Operation
from handlers.problems import RETRY_SOON, Code
from telemetry import metrics, request_context
from telemetry.request_context import RequestContext

# Payments that begin in one turn: a few milliseconds of it.
AT_ONCE: Final = 4

# How long a connection rests for each that rests already, and at most. So at most 500 a second are refused
# on connections that do not rest of themselves, at 0.1 ms each; and where few are, nothing is to be noticed.
REST_S: Final = 0.002
LONGEST_REST_S: Final = float(RETRY_SOON["Retry-After"])

_payments: dict[tuple[str, str], Operation] = {}
_on_their_way = 0
_resting = 0
_to_begin: deque[Callable[[], None]] = deque()


def configure(contract: Contract) -> None:
    """Know the requests that make payments: those with a body."""
    global _on_their_way
    _payments.clear()
    _payments.update({at: made for at, made in contract.fixed_operations().items() if made.max_body_bytes})
    _on_their_way = 0


def refuse(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> RequestContext | None:
    """Return what is known of a request that would make one payment too many; None when it would not.

    What a browser sends from another origin's page is let through, for server/middleware/cors.py to see.
    """
    operation = _payments.get((method, path))
    if operation is None or bank.room_left() > _on_their_way or any(name == b"origin" for name, _ in headers):
        return None
    metrics.SHED.inc()
    refused = request_context.begin(headers)
    refused.operation, refused.route, refused.outcome = operation.id, operation.route, Code.OVERLOADED
    return refused


def rest(stop: Callable[[], None], go_on: Callable[[], None]) -> None:
    """Let a connection rest, by these, on which a payment was refused."""
    global _resting
    _resting += 1
    stop()
    asyncio.get_running_loop().call_later(min(_resting * REST_S, LONGEST_REST_S), _rested, go_on)


def begin(scope: Scope, start: Callable[[], None]) -> None:
    """Start a request's task, at once or, if it makes a payment, when it is its turn; count those."""
    global _on_their_way
    if (scope["method"], scope["path"]) not in _payments:
        start()
        return
    _on_their_way += 1
    if not _to_begin:
        asyncio.get_running_loop().call_soon(_begin_some)
    _to_begin.append(start)


def leave(scope: Scope) -> None:
    """Count it no more, in the turn in which payments.py counts it."""
    global _on_their_way
    _on_their_way -= (scope["method"], scope["path"]) in _payments


def _rested(go_on: Callable[[], None]) -> None:
    global _resting
    _resting -= 1
    go_on()


def _begin_some() -> None:
    for _ in range(min(AT_ONCE, len(_to_begin))):
        _to_begin.popleft()()
    if _to_begin:
        asyncio.get_running_loop().call_soon(_begin_some)
