"""Rate limits: how many requests a merchant may make (RATE_LIMIT), counted by the library `limits`.

Windows are fixed and begin with their first request, so RateLimit and Retry-After
(draft-ietf-httpapi-ratelimit-headers) are exact. The price is up to twice the rate across the border of two windows.
While the Redis that counts does not answer, requests are served without being counted.
"""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import redis
from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

import config
from handlers.problems import Code, Problem
from handlers.scope import ADDED_HEADERS, MERCHANT, OPERATION
from telemetry import causes, metrics

log = logging.getLogger("gateway.rate_limit")

# Seconds. A Redis near the gateway answers in a millisecond. If it does not within WAIT_S, it is not asked for RETRY_S.
WAIT_S: Final = 0.25
RETRY_S: Final = 1.0

REDIS_PORT: Final = 6379


@dataclass(frozen=True, slots=True)
class _Window:
    rate: RateLimitItem
    allowed: bool
    remaining: int
    resets_s: int


class RateLimiter:
    """Counts requests by merchant.

    rates: all of them must allow a request
    store_url: `memory:` or the URL of a Redis; raises `ConfigError` for any other
    """

    def __init__(self, rates: Sequence[RateLimitItem], store_url: str) -> None:
        self._rates = rates
        self._policy = ", ".join(f'"{_name(rate)}";q={rate.amount};w={rate.get_expiry()}' for rate in rates)
        self._storage = _storage(store_url)
        self._limiter = FixedWindowRateLimiter(self._storage)
        self._not_before = 0.0

    async def check_store(self) -> None:
        """Say in the log if requests can't be counted now. Nothing else happens: payments are made all the same."""
        if self._rates:
            try:
                async with asyncio.timeout(WAIT_S):
                    await self._storage.get("start")
            except Exception as error:
                self._failed(error)

    async def count(self, merchant: str) -> list[_Window]:
        """Count one request of this merchant, and return its windows; empty while requests can't be counted."""
        if time.monotonic() < self._not_before:
            metrics.RATE_LIMIT_UNCOUNTED.inc()
            return []
        try:
            async with asyncio.timeout(WAIT_S):
                return [await self._hit(rate, merchant) for rate in self._rates]
        except Exception as error:  # whatever is wrong with the counter must not stop payments
            metrics.RATE_LIMIT_UNCOUNTED.inc()
            self._failed(error)
            return []

    def _failed(self, error: Exception) -> None:
        self._not_before = time.monotonic() + RETRY_S
        log.warning("requests are not counted, RATE_LIMIT_STORE does not answer: %s", causes.of(error))

    async def _hit(self, rate: RateLimitItem, merchant: str) -> _Window:
        allowed = await self._limiter.hit(rate, merchant)
        resets_at, remaining = await self._limiter.get_window_stats(rate, merchant)
        return _Window(rate, allowed, remaining, max(1, math.ceil(resets_at - time.time())))

    def headers(self, windows: Sequence[_Window]) -> list[tuple[bytes, bytes]]:
        """Return the headers that report these windows: all rates, and the one with the least left."""
        if not windows:
            return []
        tightest = min(windows, key=lambda window: window.remaining / window.rate.amount)
        state = f'"{_name(tightest.rate)}";r={tightest.remaining};t={tightest.resets_s}'
        return [(b"ratelimit-policy", self._policy.encode()), (b"ratelimit", state.encode())]


class RateLimit:
    """ASGI middleware behind authentication. Every answer to a request that it counted reports the windows."""

    def __init__(self, app: ASGIApp, limiter: RateLimiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if OPERATION not in scope:
            await self._app(scope, receive, send)
            return
        windows = await self._limiter.count(scope[MERCHANT])
        scope[ADDED_HEADERS] = self._limiter.headers(windows)
        if not all(window.allowed for window in windows):
            wait_s = max(window.resets_s for window in windows if not window.allowed)
            raise Problem(Code.RATE_LIMITED, headers={"Retry-After": str(wait_s)})
        await self._app(scope, receive, send)


def _storage(url: str) -> MemoryStorage | RedisStorage:
    if url == config.MEMORY:
        return MemoryStorage()
    try:
        redis.ConnectionPool.from_url(url)  # checks the URL; nothing is connected yet
        if url.startswith(("redis://", "rediss://")):
            return RedisStorage(f"async+{_with_port(url)}", wrap_exceptions=True, implementation="redispy")
    except ValueError:
        pass
    raise config.wrong("RATE_LIMIT_STORE", "is neither memory nor a Redis")


def _with_port(url: str) -> str:
    """Return the URL with Redis's default port if it has none; `limits` requires a port."""
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is not None:
        return url
    return parts._replace(netloc=f"{parts.netloc.removesuffix(':')}:{REDIS_PORT}").geturl()


def _name(rate: RateLimitItem) -> str:
    return f"{rate.amount}-per-{rate.multiples if rate.multiples > 1 else ''}{rate.GRANULARITY.name}"
