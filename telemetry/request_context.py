"""The request being served and what came of it, known wherever it leads without being passed along.

server/middleware/observe.py begins one for each request; whoever learns something notes it here, and the log
line, the metrics and the problem document are made of it.
"""

import random
import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from telemetry.masking import holds_card_number

# What goes unharmed through a log, a header and a URI reference.
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


_random: Final = random.Random()  # noqa: S311  # it has to be unique, not secret


def _new_id() -> str:
    """A UUID; to ask the kernel for one took a fifth of a refusal's time."""
    digits = f"{_random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


@dataclass(slots=True)
class RequestContext:
    """One request and its answer.

    id: X-Request-ID, the caller's if it is a sane token
    traceparent: the caller's (W3C Trace Context), None when there is none that is well-formed
    operation, route: the contract's operationId and path template, None elsewhere
    merchant: whose key it came with
    outcome: the payment's status, or the code of the problem
    bank_s: how long the bank took
    """

    id: str = field(default_factory=_new_id)
    traceparent: str | None = None
    operation: str | None = None
    route: str | None = None
    merchant: str | None = None
    payment_id: UUID | None = None
    outcome: str | None = None
    bank_s: float | None = None

    def trace(self) -> dict[str, str]:
        """Return the headers that tell others which request this is."""
        headers = {"X-Request-ID": self.id}
        if self.traceparent:
            headers["traceparent"] = self.traceparent
        return headers


current: Final[ContextVar[RequestContext | None]] = ContextVar("request_context", default=None)


def begin(headers: Iterable[tuple[bytes, bytes]]) -> RequestContext:
    """Return a new exchange for a request with these headers; the first of a name counts."""
    request_id = traceparent = None
    for name, value in headers:
        if name == b"x-request-id" and request_id is None:
            request_id = value.decode("latin-1")
        elif name == b"traceparent" and traceparent is None:
            traceparent = value.decode("latin-1")
    if traceparent and not _TRACEPARENT.fullmatch(traceparent):
        traceparent = None
    if request_id and _SANE_ID.fullmatch(request_id) and not holds_card_number(request_id):
        return RequestContext(request_id, traceparent)
    return RequestContext(traceparent=traceparent)


def now() -> RequestContext:
    """Return the exchange of the request being served; outside of one, an empty one."""
    return current.get() or RequestContext()
