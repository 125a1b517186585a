"""How much a merchant may ask for: RATE_LIMIT, counted by the library `limits`.

In fixed windows, each of which begins with its first request: so what RateLimit and Retry-After say
(draft-ietf-httpapi-ratelimit-headers) is exactly what will be, at the price of up to twice the rate
across the turn of a window. When the Redis that counts does not answer, nobody is held up.
"""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract import OPERATION
from handlers.problems import Code, Problem
from telemetry import request_context

log = logging.getLogger("gateway.rate_limit")

# A Redis beside the gateway answers in a millisecond. After it did not, it is not asked for a while.
WAIT_S: Final = 0.25
AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Window:
    item: RateLimitItem
    allowed: bool
    remaining: int
    resets_s: int


class RateLimit:
    """ASGI middleware, behind the check of API keys.

    items: every one of them must allow a request
    store_url: `memory:` or a Redis's
    """

    def __init__(self, app: ASGIApp, items: Sequence[RateLimitItem], store_url: str) -> None:
        self._app = app
        self._items = items
        self._policy = ", ".join(f'"{_name(item)}";q={item.amount};w={item.get_expiry()}' for item in items)
        storage = (
            RedisStorage(f"async+{store_url}", wrap_exceptions=True, implementation="redispy")
            if store_url.startswith("redis")
            else MemoryStorage()
        )
        self._limiter = FixedWindowRateLimiter(storage)
        self._not_before = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if OPERATION not in scope:
            await self._app(scope, receive, send)
            return
        windows = await self._count(request_context.now().merchant or "")
        if not all(window.allowed for window in windows):
            wait_s = max(window.resets_s for window in windows if not window.allowed)
            raise Problem(Code.RATE_LIMITED, headers={"Retry-After": str(wait_s), **self._told(windows)})

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._told(windows))
            await send(message)

        await self._app(scope, receive, told)

    async def _count(self, merchant: str) -> list[_Window]:
        if time.monotonic() < self._not_before:
            return []
        try:
            async with asyncio.timeout(WAIT_S):
                return [await self._hit(item, merchant) for item in self._items]
        except (StorageError, TimeoutError) as error:
            self._not_before = time.monotonic() + AGAIN_S
            log.warning("requests are not counted, RATE_LIMIT_STORE does not answer: %s", type(error).__name__)
            return []

    async def _hit(self, item: RateLimitItem, merchant: str) -> _Window:
        allowed = await self._limiter.hit(item, merchant)
        resets_at, remaining = await self._limiter.get_window_stats(item, merchant)
        return _Window(item, allowed, remaining, max(1, math.ceil(resets_at - time.time())))

    def _told(self, windows: Sequence[_Window]) -> dict[str, str]:
        if not windows:
            return {}
        tightest = min(windows, key=lambda window: window.remaining / window.item.amount)
        state = f'"{_name(tightest.item)}";r={tightest.remaining};t={tightest.resets_s}'
        return {"RateLimit-Policy": self._policy, "RateLimit": state}


def _name(item: RateLimitItem) -> str:
    return f"{item.amount}-per-{item.multiples if item.multiples > 1 else ''}{item.GRANULARITY.name}"
