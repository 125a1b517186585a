"""The circuit breakers: when circuits open, what they let through, and when they close."""

import asyncio
import time
from contextlib import ExitStack, suppress

import pytest
from prometheus_client import REGISTRY

from bank import breaker as breaker_module
from bank.breaker import Breakers
from bank.errors import BankError, NoAnswer, NoReply, NotReached, Refused, Unavailable
from tests.support import wait_until

CLOSED, HALF_OPEN, OPEN = 0, 1, 2
OPEN_S = 0.5


FAILURES = [NotReached("no connection"), Unavailable("503"), NoReply("silence")]


def call(breaker: Breakers, error: BaseException | None = None, merchant: str = "acme") -> bool:
    """Make one call that ends with `error`; return whether the circuits let it through."""
    made = False
    with suppress(BankError, asyncio.CancelledError), breaker.guard(merchant):
        made = True
        if error is not None:
            raise error
    return made


def opened() -> Breakers:
    """Return a breaker that one failure opened."""
    breaker = Breakers(1, OPEN_S)
    call(breaker, NotReached("x"))
    assert breaker.is_open()
    return breaker


def half_opened(breaker: Breakers) -> ExitStack:
    """Wait until the breaker lets a call through, and return that call, which is in progress."""
    in_progress = ExitStack()

    def let_through() -> bool:
        try:
            in_progress.enter_context(breaker.guard("acme"))
        except NotReached:
            return False
        return True

    wait_until(let_through)
    return in_progress


def state() -> float | None:
    """Return the metric."""
    return REGISTRY.get_sample_value("payment_gateway_breaker_state")


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_the_circuit_opens_after_consecutive_failures(failure: BankError) -> None:
    """It opens with the failure that reaches the limit, and from then on no call is made."""
    breaker = Breakers(3, 60)
    for _ in range(3):
        assert not breaker.is_open()
        assert call(breaker, failure)
    assert breaker.is_open()
    assert not call(breaker)
    with pytest.raises(NotReached, match=r"circuit of .* is open"), breaker.guard("acme"):
        pass


def test_a_failure_reaches_the_caller_unchanged() -> None:
    """The caller gets the exception itself, even of the call that opens the circuit."""
    breaker = Breakers(1, 60)
    error = NotReached("the bank answered 503")
    with pytest.raises(NotReached) as caught, breaker.guard("acme"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "outcome", [None, Refused("x"), NoAnswer("x"), RuntimeError("a bug"), asyncio.CancelledError()], ids=repr
)
def test_any_other_outcome_starts_the_count_again(outcome: BaseException | None) -> None:
    """A call that reaches the bank, or that fails for another reason, resets the count of failures."""
    breaker = Breakers(2, 60)
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
        with pytest.raises(NotReached, match="half-open"), breaker.guard("acme"):
            pass


@pytest.mark.parametrize("outcome", [None, Refused("x"), NoAnswer("x")], ids=repr)
def test_the_circuit_closes_when_that_call_reaches_the_bank(outcome: BankError | None) -> None:
    """Any answer of the bank closes it, and then it takes the full number of failures to open it again."""
    breaker = Breakers(2, OPEN_S)
    for _ in range(2):
        call(breaker, NotReached("x"))
    with suppress(BankError), half_opened(breaker):
        if outcome is not None:
            raise outcome
    assert not breaker.is_open()
    assert call(breaker, NotReached("x"))
    assert not breaker.is_open()


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_the_circuit_opens_again_when_that_call_fails(failure: BankError) -> None:
    """This single failure opens it for another `open_s` seconds."""
    breaker = Breakers(3, OPEN_S)
    for _ in range(3):
        call(breaker, NotReached("x"))
    with suppress(BankError), half_opened(breaker):
        raise failure
    failed = time.monotonic()
    assert not call(breaker)
    with half_opened(breaker):
        assert time.monotonic() - failed > 0.9 * OPEN_S
    assert not breaker.is_open()


def test_the_metric_and_the_log_follow_the_state(caplog: pytest.LogCaptureFixture) -> None:
    """The metric is 0 for closed, 1 for half-open and 2 for open, and each change is one line of the log."""
    breaker = Breakers(1, OPEN_S)
    assert state() == CLOSED
    call(breaker, NotReached("x"))
    assert state() == OPEN
    with half_opened(breaker):
        assert state() == HALF_OPEN
    assert state() == CLOSED
    changes = [("open", "closed"), ("half-open", "open"), ("closed", "half-open")]
    assert sorted(caplog.messages) == sorted(
        f"the circuit of {whose} is {new}, was {old}" for whose in ("the bank", "merchant acme") for new, old in changes
    )
    assert {(record.name, record.levelname) for record in caplog.records} == {("gateway.bank", "WARNING")}


def test_failures_in_progress_when_the_circuit_opens_are_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Of ten calls that end without a reply at the same time, the first ones open the circuit."""
    breaker = Breakers(2, 60)
    calls = [breaker.guard("acme") for _ in range(10)]
    for each in calls:
        each.__enter__()
    for each in calls:
        with suppress(NoReply):
            each.__exit__(NoReply, NoReply("x"), None)
    assert caplog.messages == ["the circuit of merchant acme is open, was closed"]


@pytest.mark.parametrize("failure", [Unavailable("503"), NoReply("silence")], ids=repr)
def test_one_merchants_failures_do_not_stop_another(failure: BankError) -> None:
    """Its own circuit opens, again and again; the bank's stays closed while another merchant is active."""
    breaker = Breakers(3, 0.1)
    assert call(breaker, merchant="other")
    for _ in range(3):
        assert call(breaker, failure)
    for _ in range(3):
        assert not call(breaker)
        assert call(breaker, merchant="other")
        assert not breaker.is_open()
        assert state() == CLOSED
        assert REGISTRY.get_sample_value("payment_gateway_merchant_circuits_open") == 1
        wait_until(lambda: call(breaker, failure))


def test_failed_connections_of_any_merchant_stop_all() -> None:
    """The bank can't be reached, whoever's payment it is."""
    breaker = Breakers(3, 60)
    for merchant in ("one", "two", "three"):
        assert call(breaker, NotReached("x"), merchant)
    assert breaker.is_open()
    assert not any(call(breaker, merchant=merchant) for merchant in ("one", "four"))


@pytest.mark.parametrize("failure", [Unavailable("503"), NoReply("silence")], ids=repr)
def test_the_failures_of_two_merchants_stop_all(failure: BankError) -> None:
    """Also a third one whose payments succeeded, and one that is new; each of them tests the bank on its own."""
    breaker = Breakers(2, OPEN_S)
    assert call(breaker, merchant="third")
    for merchant in ("one", "two"):
        assert [call(breaker, failure, merchant) for _ in range(2)] == [True, True]
    assert breaker.is_open()
    assert not any(call(breaker, merchant=merchant) for merchant in ("one", "two", "third", "new"))
    assert state() == OPEN
    wait_until(lambda: call(breaker, merchant="third"))
    assert call(breaker, merchant="third")
    assert not breaker.is_open()
    wait_until(lambda: call(breaker, merchant="new"))


def test_a_merchant_that_was_active_long_ago_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only active merchant's failures open the circuits of all; those of two count only if both are active."""
    monkeypatch.setattr(breaker_module, "ACTIVE_S", 0.0)
    breaker = Breakers(2, 60)
    assert call(breaker, merchant="other")
    for _ in range(2):
        call(breaker, NoReply("x"))
    assert breaker.is_open()
    assert not call(breaker, merchant="other")
    assert not call(breaker, merchant="new")
