"""The rate limiter: which stores it accepts, and that a counter that fails stops no payment."""

import asyncio

import limits
import pytest

from config import SETTINGS, ConfigError
from server.middleware.rate_limit import RateLimiter


@pytest.mark.parametrize(
    "url", ["redis", "memcached://u:secret@h", "unix://u:secret@/r", "redis://u:secret@h:x", "redis://h:0x"]
)
def test_a_wrong_store_is_one_line_that_says_what_is_allowed(url: str) -> None:
    """The message names the setting and what is allowed, and does not repeat the URL, which may hold a password."""
    with pytest.raises(ConfigError) as caught:
        RateLimiter((), url)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("RATE_LIMIT_STORE ")
    assert message.endswith(f"; allowed: {SETTINGS['RATE_LIMIT_STORE'].allowed}")
    assert "secret" not in message


@pytest.mark.parametrize(
    "url", ["memory:", "redis://127.0.0.1", "redis://[::1]/0", "rediss://u:p@redis.example.com:6380/1", "redis:///0"]
)
def test_memory_and_a_redis_are_accepted(url: str) -> None:
    """A URL needs no port, and no connection is made before the first request."""
    RateLimiter((), url)


def test_a_counter_that_fails_in_any_way_stops_no_request() -> None:
    """redis-py raises TypeError for an unknown option in the URL, when it connects."""
    limiter = RateLimiter(limits.parse_many("1/second"), "redis://127.0.0.1/0?unknown=option")
    assert asyncio.run(limiter.count("acme")) == []
