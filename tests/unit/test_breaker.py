"""The circuit breaker: when it opens, what it lets through, and when it closes."""

import asyncio
import time
from contextlib import ExitStack, suppress

import pytest
from prometheus_client import REGISTRY

from bank.breaker import Breaker
from bank.errors import BankError, NoAnswer, NotReached, Refused
from tests.support import wait_until

CLOSED, HALF_OPEN, OPEN = 0, 1, 2
OPEN_S = 0.5


def call(breaker: Breaker, error: BaseException | None = None) -> bool:
    """Make one call that ends with `error`; return whether the breaker let it through."""
    made = False
    with suppress(BankError, asyncio.CancelledError), breaker.guard():
        made = True
        if error is not None:
            raise error
    return made


def opened() -> Breaker:
    """Return a breaker that one failure opened."""
    breaker = Breaker(1, OPEN_S)
    call(breaker, NotReached("x"))
    assert breaker.is_open()
    return breaker


def half_opened(breaker: Breaker) -> ExitStack:
    """Wait until the breaker lets a call through, and return that call, which is in progress."""
    in_progress = ExitStack()

    def let_through() -> bool:
        try:
            in_progress.enter_context(breaker.guard())
        except NotReached:
            return False
        return True

    wait_until(let_through)
    return in_progress


def state() -> float | None:
    """Return the metric."""
    return REGISTRY.get_sample_value("payment_gateway_breaker_state")


def test_the_circuit_opens_after_consecutive_failures() -> None:
    """It opens with the failure that reaches the limit, and from then on no call is made."""
    breaker = Breaker(3, 60)
    for _ in range(3):
        assert not breaker.is_open()
        assert call(breaker, NotReached("x"))
    assert breaker.is_open()
    assert not call(breaker)
    with pytest.raises(NotReached, match="circuit is open"), breaker.guard():
        pass


def test_a_failure_reaches_the_caller_unchanged() -> None:
    """The caller gets the exception itself, even of the call that opens the circuit."""
    breaker = Breaker(1, 60)
    error = NotReached("the bank answered 503")
    with pytest.raises(NotReached) as caught, breaker.guard():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "outcome", [None, Refused("x"), NoAnswer("x"), RuntimeError("a bug"), asyncio.CancelledError()], ids=repr
)
def test_any_other_outcome_starts_the_count_again(outcome: BaseException | None) -> None:
    """A call that reaches the bank, or that fails for another reason, resets the count of failures."""
    breaker = Breaker(2, 60)
    for _ in range(3):
        call(breaker, NotReached("x"))
        with suppress(RuntimeError):
            call(breaker, outcome)
    assert not breaker.is_open()


def test_half_open_lets_exactly_one_call_through() -> None:
    """After `open_s` seconds one call is let through, and all others are refused until it ends."""
    breaker, started = opened(), time.monotonic()
    with half_opened(breaker):
        assert time.monotonic() - started > 0.9 * OPEN_S
        assert breaker.is_open()
        assert not any(call(breaker) for _ in range(10))
        with pytest.raises(NotReached, match="half-open"), breaker.guard():
            pass


@pytest.mark.parametrize("outcome", [None, Refused("x"), NoAnswer("x")], ids=repr)
def test_the_circuit_closes_when_that_call_reaches_the_bank(outcome: BankError | None) -> None:
    """Any answer of the bank closes it, and then it takes the full number of failures to open it again."""
    breaker = Breaker(2, OPEN_S)
    for _ in range(2):
        call(breaker, NotReached("x"))
    with suppress(BankError), half_opened(breaker):
        if outcome is not None:
            raise outcome
    assert not breaker.is_open()
    assert call(breaker, NotReached("x"))
    assert not breaker.is_open()


def test_the_circuit_opens_again_when_that_call_does_not_reach_the_bank() -> None:
    """This single failure opens it for another `open_s` seconds."""
    breaker = Breaker(3, OPEN_S)
    for _ in range(3):
        call(breaker, NotReached("x"))
    with suppress(NotReached), half_opened(breaker):
        raise NotReached("x")
    failed = time.monotonic()
    assert not call(breaker)
    with half_opened(breaker):
        assert time.monotonic() - failed > 0.9 * OPEN_S
    assert not breaker.is_open()


def test_the_metric_and_the_log_follow_the_state(caplog: pytest.LogCaptureFixture) -> None:
    """The metric is 0 for closed, 1 for half-open and 2 for open, and each change is one line of the log."""
    breaker = Breaker(1, OPEN_S)
    assert state() == CLOSED
    call(breaker, NotReached("x"))
    assert state() == OPEN
    with half_opened(breaker):
        assert state() == HALF_OPEN
    assert state() == CLOSED
    assert caplog.messages == [
        "circuit breaker is open, was closed",
        "circuit breaker is half-open, was open",
        "circuit breaker is closed, was half-open",
    ]
    assert {(record.name, record.levelname) for record in caplog.records} == {("gateway.bank", "WARNING")}
