"""Circuit breakers: while calls to the bank fail, a payment fails in milliseconds instead of after a timeout.

A circuit opens after a number of failures in a row, and refuses calls. After some seconds it is half-open: one call is
let through. If that call fails, the circuit opens again; any other outcome closes it.

One circuit opens when calls find no connection. Besides, each merchant has a circuit, for which 503s and missing
replies are failures, too: a merchant's own payments can cause those, and must not stop the payments of others. When the
circuits of two active merchants have opened, or that of the only active merchant, the cause is the bank, and those of
all merchants open.

pybreaker counts and keeps the state of each circuit. Everything runs on the event loop's thread.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import pybreaker

from bank.errors import NoReply, NotReached, Unavailable
from telemetry import metrics

log = logging.getLogger("gateway.bank")

# Seconds after its last payment for which a merchant is active.
ACTIVE_S: Final = 60.0

CLOSED: Final = 0
HALF_OPEN: Final = 1
OPEN: Final = 2
_STATES: Final = {
    pybreaker.STATE_CLOSED: CLOSED,
    pybreaker.STATE_HALF_OPEN: HALF_OPEN,
    pybreaker.STATE_OPEN: OPEN,
}


class Breakers:
    """The circuits of one bank in this process.

    failures: failures in a row that open a circuit
    open_s: seconds until an open circuit lets one call through
    """

    def __init__(self, failures: int, open_s: float) -> None:
        self._failures, self._open_s = failures, open_s
        self._connections = Circuit("the bank", failures, open_s, found_no_connection, self._show)
        self._of_merchants: dict[str, Circuit] = {}
        self._not_closed: set[str] = set()  # merchants
        self._called_at: dict[str, float] = {}  # merchants in the order of their last calls
        self._show()

    def is_open(self) -> bool:
        """Return whether no merchant's payment is sent to the bank, but for those that test it."""
        return self._state() != CLOSED

    @contextmanager
    def guard(self, merchant: str) -> Iterator[None]:
        """Make one call, whose outcome counts. Raises `NotReached` without the call while a circuit refuses it."""
        own = self._of(merchant)
        self._called_at.pop(merchant, None)
        self._called_at[merchant] = time.monotonic()
        own.check()
        self._connections.check()
        was_closed = own.state == CLOSED
        try:
            with self._connections.calling(), own.calling():
                yield
        finally:
            if self._not_closed:
                self._show()  # who is active may have changed
                if was_closed and own.state == OPEN:
                    self._open_all_if_it_is_the_bank()

    def _of(self, merchant: str) -> "Circuit":
        known = self._of_merchants.get(merchant)
        if known is None:
            begins_open = self._merchants_state() != CLOSED
            changed = partial(self._note, merchant)
            known = Circuit(f"merchant {merchant}", self._failures, self._open_s, failed, changed)
            self._of_merchants[merchant] = known
            if begins_open:
                known.open()
        return known

    def _open_all_if_it_is_the_bank(self) -> None:
        active = [circuit.state for circuit in self._active()]
        if len(active) == 1 or active.count(CLOSED) <= len(active) - 2:
            for circuit in self._of_merchants.values():
                circuit.open()

    def _active(self) -> Iterator["Circuit"]:
        """Yield the circuits of active merchants, and that of the last one who was."""
        since = time.monotonic() - ACTIVE_S
        for position, (merchant, called_at) in enumerate(reversed(self._called_at.items())):
            if position and called_at < since:
                return
            yield self._of_merchants[merchant]

    def _note(self, merchant: str) -> None:
        """Update what is derived from a merchant's circuit."""
        if self._of_merchants[merchant].state == CLOSED:
            self._not_closed.discard(merchant)
        else:
            self._not_closed.add(merchant)
        self._show()

    def _show(self) -> None:
        metrics.BREAKER_STATE.set(self._state())
        metrics.MERCHANT_CIRCUITS_OPEN.set(len(self._not_closed))

    def _state(self) -> int:
        return max(self._connections.state, self._merchants_state())

    def _merchants_state(self) -> int:
        """Return the state that the circuits of all active merchants have in common at least."""
        return min((circuit.state for circuit in self._active()), default=CLOSED) if self._not_closed else CLOSED


class Circuit:
    """One circuit.

    name: whose it is
    failures, open_s: as in `Breakers`
    is_failure: whether an error of a call counts; any other outcome starts the count again
    changed: called after the state has changed
    state: CLOSED, HALF_OPEN or OPEN
    """

    def __init__(
        self,
        name: str,
        failures: int,
        open_s: float,
        is_failure: Callable[[BaseException], bool],
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self.state = CLOSED
        self._name, self._changed = name, changed
        self._open_for = timedelta(seconds=open_s)
        self._storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures,
            reset_timeout=open_s,
            exclude=[lambda error: not is_failure(error)],
            listeners=[_Listener(self._note)],
            state_storage=self._storage,
            throw_new_error_on_trip=False,
        )

    def check(self) -> None:
        """Raise `NotReached` if the circuit refuses a call now.

        pybreaker itself would let any number of calls through while the circuit is half-open.
        """
        if self.state == HALF_OPEN:
            raise NotReached(f"the circuit of {self._name} is half-open, and another call tests it", sent=False)
        if self.state == OPEN:
            opened_at = self._storage.opened_at
            if opened_at is not None and datetime.now(UTC) < opened_at + self._open_for:
                raise NotReached(f"the circuit of {self._name} is open", sent=False)

    def calling(self) -> AbstractContextManager[None]:
        """Return a context manager for a call that `check` allows; its outcome counts."""
        calling: AbstractContextManager[None] = self._breaker.calling()
        return calling

    def open(self) -> None:
        """Open the circuit if it is closed."""
        if self.state == CLOSED:
            self._breaker.open()

    def _note(self, old: str, new: str) -> None:
        self.state = _STATES[new]
        log.warning("the circuit of %s is %s, was %s", self._name, new, old)
        self._changed()


class _Listener(pybreaker.CircuitBreakerListener):
    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._note = note

    def state_change(self, _breaker: Any, old: Any, new: Any) -> None:
        if old is not None and old.name != new.name:  # calls in progress that fail later open it again
            self._note(old.name, new.name)


def found_no_connection(error: BaseException) -> bool:
    """Return whether the bank could not be reached at all."""
    return isinstance(error, NotReached) and not isinstance(error, Unavailable)


def failed(error: BaseException) -> bool:
    """Return whether the bank was not reached, answered 503 or did not reply."""
    return isinstance(error, (NotReached, NoReply))


def not_reached(error: BaseException) -> bool:
    """Return whether the bank was not reached or answered 503."""
    return isinstance(error, NotReached)
