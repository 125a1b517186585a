"""A circuit breaker: a bank that can't be reached costs milliseconds, not timeouts.

After `failures` calls in a row that were `NotReached` the bank is left alone for `open_s` seconds; then
one call is let through, and how it ends decides. Declines, refusals and answers that never came are no
failures of the connection. Counts and states are pybreaker's; that a half-open breaker lets no more
than one call through is added here. Everything runs on the event loop's thread.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pybreaker

from bank.errors import NotReached
from telemetry import metrics

log = logging.getLogger("gateway.bank")

_METRIC: Final = {pybreaker.STATE_CLOSED: 0, pybreaker.STATE_HALF_OPEN: 1, pybreaker.STATE_OPEN: 2}


class Breaker:
    """The breaker of one bank, in this process."""

    def __init__(self, failures: int, open_s: float) -> None:
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures,
            reset_timeout=open_s,
            exclude=[lambda error: not isinstance(error, NotReached)],
            listeners=[_Listener()],
            throw_new_error_on_trip=False,
        )
        metrics.BREAKER_STATE.set(_METRIC[self._breaker.current_state])

    def is_open(self) -> bool:
        """Whether calls are refused; those beside the one that tries the bank are, too."""
        return self._breaker.current_state != pybreaker.STATE_CLOSED

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Make one call, whose outcome counts. Raises `NotReached` instead while the bank is left alone."""
        if self._breaker.current_state == pybreaker.STATE_HALF_OPEN:
            raise NotReached("the bank is left alone while one call tries it")
        try:
            with self._breaker.calling():
                yield
        except pybreaker.CircuitBreakerError:
            raise NotReached("the bank is left alone, it could not be reached") from None


class _Listener(pybreaker.CircuitBreakerListener):
    def state_change(self, _breaker: Any, old: Any, new: Any) -> None:
        metrics.BREAKER_STATE.set(_METRIC[new.name])
        log.warning("the breaker is %s, it was %s", new.name, old.name if old else "-")
