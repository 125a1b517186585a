"""More payments than there is room for are refused here, as cheaply as can be.

Under three times the load that a gateway can carry, two of three requests end here, and what they cost is
taken from the payments that are accepted. So it happens before there is an ASGI scope, let alone a task:
handlers/protocol.py asks as soon as it has read a request's head. payments.py makes certain what is only
likely here: that there is room.
"""

from starlette.datastructures import Headers

import bank
import exchange
import metrics
from exchange import Exchange
from handlers.contract import Contract, Operation
from handlers.problems import Code

_payments: dict[tuple[bytes, bytes], Operation] = {}


def configure(contract: Contract) -> None:
    """Know the requests that make payments: those with a body."""
    _payments.clear()
    for (method, path), operation in contract.fixed_operations().items():
        if operation.max_body_bytes:
            _payments[method.encode(), path.encode()] = operation


def refuse(method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> Exchange | None:
    """Return what is known of a request that would make one payment too many; None when it would not.

    What a browser sends from another origin's page is let through, for handlers/cors.py to see.
    """
    operation = _payments.get((method, url))
    if operation is None or bank.has_room() or any(name == b"origin" for name, _ in headers):
        return None
    metrics.SHED.inc()
    refused = exchange.begin(Headers(raw=headers))
    refused.operation, refused.route, refused.outcome = operation.id, operation.route, Code.OVERLOADED
    return refused
