"""More payments than there is room for are refused here, as cheaply as can be.

Under three times the load that a gateway can carry, two of three requests end here, and what they cost is
taken from the payments that are accepted. So it happens before there is a task: handlers/protocol.py asks
as soon as it has read a request's head. payments.py makes certain what is only likely here: that there
is room.

Between its head and payments.py a request is on its way, and those count too. In a busy turn of the
event loop a hundred heads are read before the first of them gets there; without that count, 75 % of the
CPU went to payments that were refused in the end.
"""

from starlette.datastructures import Headers
from starlette.types import Scope

import bank
import exchange
import metrics
from exchange import Exchange
from handlers.contract import Contract, Operation
from handlers.problems import Code

_payments: dict[tuple[str, str], Operation] = {}
_on_their_way = 0


def configure(contract: Contract) -> None:
    """Know the requests that make payments: those with a body."""
    global _on_their_way
    _payments.clear()
    _payments.update({at: made for at, made in contract.fixed_operations().items() if made.max_body_bytes})
    _on_their_way = 0


def refuse(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> Exchange | None:
    """Return what is known of a request that would make one payment too many; None when it would not.

    What a browser sends from another origin's page is let through, for handlers/cors.py to see.
    """
    operation = _payments.get((method, path))
    if operation is None or bank.room_left() > _on_their_way or any(name == b"origin" for name, _ in headers):
        return None
    metrics.SHED.inc()
    refused = exchange.begin(Headers(raw=headers))
    refused.operation, refused.route, refused.outcome = operation.id, operation.route, Code.OVERLOADED
    return refused


def enter(scope: Scope) -> None:
    """Count a request for which there is a task now, if it makes a payment."""
    global _on_their_way
    _on_their_way += (scope["method"], scope["path"]) in _payments


def leave(scope: Scope) -> None:
    """Count it no more, in the turn in which payments.py counts it."""
    global _on_their_way
    _on_their_way -= (scope["method"], scope["path"]) in _payments
