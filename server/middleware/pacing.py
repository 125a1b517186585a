"""Pacing: the more refusals of a caller wait, the longer each of them waits.

A client that is refused can send its next request at once, thousands of times a second. Without a wait, refusals would
take the CPU from the requests of others.
"""

import asyncio
import math
from collections import Counter
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.scope import ENDPOINT, MERCHANT

# Seconds that a refusal waits for each one that waits already, and at most. That caps refusals near 250 a second, a
# twentieth of a core, as long as fewer than 1,250 wait.
WAIT_S: Final = 0.004
LONGEST_WAIT_S: Final = 5.0

# Retry-After is at least as many times as long. With thousands of clients that wait for it, few enough return in each
# second.
RETRY_AFTER_FACTOR: Final = 2


class Pacing:
    """ASGI middleware around all that refuse requests before an operation is answered.

    What a merchant may retry waits, by merchant: 429 and 503. Errors of strangers wait together. Health checks do not.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting: Counter[str | None] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def paced(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400 and ENDPOINT not in scope:
                merchant, status = scope.get(MERCHANT), message["status"]
                if merchant is None or status in {429, 503}:
                    await self._pace(merchant, MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, paced)

    async def _pace(self, merchant: str | None, headers: MutableHeaders) -> None:
        self._waiting[merchant] += 1
        wait_s = min(self._waiting[merchant] * WAIT_S, LONGEST_WAIT_S)
        if "retry-after" in headers:
            seconds = max(int(headers["retry-after"]), math.ceil(wait_s * RETRY_AFTER_FACTOR))
            headers["retry-after"] = str(seconds)
        try:
            await asyncio.sleep(wait_s)
        finally:
            self._waiting[merchant] -= 1
