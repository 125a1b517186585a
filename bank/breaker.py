"""A circuit breaker: while the bank cannot be reached, a payment fails in milliseconds instead of after a timeout.

After a number of calls in a row that raised `NotReached`, the circuit opens and calls are refused. After some seconds
it is half-open: one call is let through. If that call is not reached either, the circuit opens again; any other
outcome closes it. Declines, refusals and missing answers are not failures, because the bank was reached.

pybreaker counts and keeps the state. This module adds that a half-open circuit lets only one call through.
Everything runs on the event loop's thread.
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
    """The circuit breaker of one bank in this process.

    failures: calls in a row that raise `NotReached` before the circuit opens
    open_s: seconds until an open circuit lets one call through
    """

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
        """Return whether the circuit is open or half-open."""
        return self._breaker.current_state != pybreaker.STATE_CLOSED

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Make one call, whose outcome counts. Raises `NotReached` without the call while the circuit is open."""
        if self._breaker.current_state == pybreaker.STATE_HALF_OPEN:
            raise NotReached("the circuit is half-open, and another call is testing the bank", sent=False)
        try:
            with self._breaker.calling():
                yield
        except pybreaker.CircuitBreakerError:
            raise NotReached("the circuit is open, the bank could not be reached", sent=False) from None


class _Listener(pybreaker.CircuitBreakerListener):
    def state_change(self, _breaker: Any, old: Any, new: Any) -> None:
        metrics.BREAKER_STATE.set(_METRIC[new.name])
        log.warning("circuit breaker is %s, was %s", new.name, old.name if old else "-")
