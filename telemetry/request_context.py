"""The request context: the request that a log line, a call to the bank or an error belongs to.

server/middleware/observe.py begins one for each request. It is for logs and traces; no decision depends on it.
"""

import random
import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from telemetry.masking import holds_card_number

# Safe in a log line, in a header and in a URI reference.
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_random: Final = random.Random()  # noqa: S311  # an id has to be unique, not secret


def _new_id() -> str:
    """Return a random UUID. uuid4() makes a system call, a fifth of the cost of refusing a request."""
    digits = f"{_random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


@dataclass(slots=True)
class RequestContext:
    """One request and what is known about its response.

    id: X-Request-ID, the caller's own if it is safe to repeat
    traceparent: the caller's (W3C Trace Context), None if it is missing or malformed
    outcome: the payment's status, or the code of the problem
    bank_s: seconds that the call to the bank took, with the wait for a slot
    """

    id: str = field(default_factory=_new_id)
    traceparent: str | None = None
    payment_id: UUID | None = None
    outcome: str | None = None
    bank_s: float | None = None

    def trace(self) -> dict[str, str]:
        """Return the headers that identify this request to another server."""
        headers = {"X-Request-ID": self.id}
        if self.traceparent:
            headers["traceparent"] = self.traceparent
        return headers


current: Final[ContextVar[RequestContext | None]] = ContextVar("request_context", default=None)


def begin(headers: Iterable[tuple[bytes, bytes]]) -> RequestContext:
    """Return a new context for a request with these headers. The first value of a repeated header counts."""
    request_id = traceparent = None
    for name, value in headers:
        if name == b"x-request-id" and request_id is None:
            request_id = value.decode("latin-1")
        elif name == b"traceparent" and traceparent is None:
            traceparent = value.decode("latin-1")
    if traceparent and not _TRACEPARENT.fullmatch(traceparent):
        traceparent = None
    if request_id and _SAFE_ID.fullmatch(request_id) and not holds_card_number(request_id):
        return RequestContext(request_id, traceparent)
    return RequestContext(traceparent=traceparent)


def now() -> RequestContext:
    """Return the context of the request being served; a new one outside of any request."""
    return current.get() or RequestContext()
