"""Payments: what `pay` records and returns for each behaviour of the bank and the store."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import bank
import payments
import store
from bank.simulator import Simulator
from storage import retries
from store import Payment, Status
from telemetry import metrics, request_context
from tests.support import (
    AUTHORIZED_CARD,
    DECLINED_CARD,
    FAILED,
    REFUSED,
    UNAVAILABLE_CARD,
    settle_found,
    store_url,
    valid_payment,
)


@pytest.fixture(autouse=True)
def memory() -> None:
    """A store in memory, unless the test opens another."""
    store.configure("memory:", fingerprint_key=bytes(32))


class Acquirer:
    """A bank whose answers come from a blocking function."""

    def __init__(self, decide: Callable[[bank.AuthorizationRequest], bool]) -> None:
        self._decide = decide

    async def authorize(self, request: bank.AuthorizationRequest) -> bank.Authorization:
        return bank.Authorization(await asyncio.to_thread(self._decide, request))

    async def look_up(self, payment_id: UUID) -> bank.LookUp:
        raise bank.NoLookUp(payment_id)

    def close(self) -> None:
        pass


def connect(
    monkeypatch: pytest.MonkeyPatch,
    decide: Callable[[bank.AuthorizationRequest], bool],
    *,
    concurrency: int = 2,
    connect_timeout_s: float = 0.2,
) -> None:
    """Register the bank, and choose it by its scheme."""
    monkeypatch.setitem(bank.BANKS, "test", lambda _url, **_options: Acquirer(decide))
    bank.configure(
        "test://bank",
        connect_timeout_s=connect_timeout_s,
        timeout_s=5,
        retries=0,
        concurrency=concurrency,
        breaker_failures=3,
        breaker_open_s=0.2,
    )


def raising(error: Exception) -> Callable[[Any], bool]:
    def decide(_request: bank.AuthorizationRequest) -> bool:
        raise error

    return decide


def pay() -> Payment:
    return asyncio.run(payments.pay("acme", valid_payment())).payment


def recorded(payment: Payment) -> Payment | None:
    return asyncio.run(payments.find("acme", payment.id))


@pytest.mark.parametrize(("authorized", "status"), [(True, Status.AUTHORIZED), (False, Status.DECLINED)])
def test_the_banks_answer_is_recorded(monkeypatch: pytest.MonkeyPatch, *, authorized: bool, status: Status) -> None:
    """`pay` returns the payment as it is recorded."""
    connect(monkeypatch, lambda _request: authorized)
    payment = pay()
    assert payment.status is status
    assert payment.card_last4 == "8877"
    assert recorded(payment) == payment


def test_pending_is_recorded_before_the_bank_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash during the bank call leaves a PENDING record."""
    seen: list[Payment | None] = []

    def decide(request: bank.AuthorizationRequest) -> bool:
        seen.append(asyncio.run(store.find(request.payment_id)))
        return True

    connect(monkeypatch, decide)
    payment = pay()
    assert [(found.id, found.status) for found in seen if found] == [(payment.id, Status.PENDING)]


@pytest.mark.parametrize("error", [bank.NotReached("x"), bank.Refused("x")])
def test_a_payment_that_was_not_charged_is_dropped(monkeypatch: pytest.MonkeyPatch, error: bank.BankError) -> None:
    """The caller gets the bank's error, and no record stays."""
    asked: list[bank.AuthorizationRequest] = []

    def decide(request: bank.AuthorizationRequest) -> bool:
        asked.append(request)
        raise error

    connect(monkeypatch, decide)
    with pytest.raises(type(error)):
        pay()
    assert asyncio.run(store.find(asked[0].payment_id)) is None


@pytest.mark.parametrize("error", [bank.NoAnswer("x"), RuntimeError(AUTHORIZED_CARD)])
def test_a_payment_that_may_be_charged_stays_pending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """After no answer, or a bug in the bank's client, `pay` returns PENDING and logs an error with the payment's id."""
    connect(monkeypatch, raising(error))
    with caplog.at_level(logging.INFO):
        payment = pay()
    assert payment.status is Status.PENDING
    assert recorded(payment) == payment
    assert any(str(payment.id) in record.message and record.levelname == "ERROR" for record in caplog.records)
    assert AUTHORIZED_CARD not in caplog.text


def test_a_bank_that_hangs_does_not_block_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """When every slot is taken, the next payment fails within BANK_CONNECT_TIMEOUT_S; nothing was charged."""
    release = threading.Event()
    connect(monkeypatch, lambda _request: release.wait(10))

    async def scenario() -> None:
        hanging = [asyncio.create_task(payments.pay("acme", valid_payment())) for _ in range(2)]
        await asyncio.sleep(0)
        started = time.monotonic()
        with pytest.raises(bank.NotReached):
            await payments.pay("acme", valid_payment())
        assert 0.15 < time.monotonic() - started < 2
        release.set()
        assert [(await task).payment.status for task in hanging] == [Status.AUTHORIZED] * 2

    asyncio.run(scenario())


def test_a_record_holds_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """No field of a record holds the card number or the CVV."""
    connect(monkeypatch, lambda _request: True)
    payment = pay()
    values = [getattr(payment, name) for name in Payment.__dataclass_fields__]
    assert AUTHORIZED_CARD not in map(str, values)
    assert "123" not in map(str, values)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """An open store of each kind."""
    store.configure(store_url(request.param, tmp_path, request), fingerprint_key=bytes(32))


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """The bank simulator, behind HTTP."""
    simulator = Simulator()
    simulator.start()
    bank.configure(
        simulator.url,
        connect_timeout_s=2,
        timeout_s=5,
        retries=0,
        concurrency=2,
        breaker_failures=100,
        breaker_open_s=0.2,
    )
    yield simulator
    simulator.stop()


def fail(*_: object, **__: object) -> Any:
    raise RuntimeError(AUTHORIZED_CARD)


def cancel_and(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Cancel the task that makes the call, as a shutdown may do at any moment."""

    async def cancelled(*args: Any, **options: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        result = await call(*args, **options)
        await asyncio.sleep(0)  # memory does not wait, so the cancellation arrives here
        return result

    return cancelled


def settle_and_fail(settle: Callable[..., Awaitable[Payment]]) -> Callable[..., Awaitable[Payment]]:
    async def settled(*args: Any, **options: Any) -> Payment:
        await settle(*args, **options)
        raise RuntimeError(AUTHORIZED_CARD)

    return settled


def pay_and_wait_for(expected: Status | None, **changes: Any) -> tuple[Payment | Exception, Payment | None]:
    """Return what `pay` returned or raised, and the record once it has the expected status or is deleted."""

    async def scenario() -> tuple[Payment | Exception, Payment | None]:
        outcome: Payment | Exception
        try:
            outcome = (await payments.pay("acme", valid_payment(**changes), "a key")).payment
        except (bank.NotReached, bank.Refused) as error:
            outcome = error
        async with asyncio.timeout(10):
            while True:
                found = next(iter(await store.search()), None)
                if (found.status if found else None) is expected:
                    await store.stop()
                    return outcome, found
                await asyncio.sleep(0.01)

    return asyncio.run(scenario())


@pytest.mark.usefixtures("stored", "simulator")
@pytest.mark.parametrize(
    ("card_number", "status"),
    [(AUTHORIZED_CARD, Status.AUTHORIZED), (DECLINED_CARD, Status.DECLINED), (FAILED, Status.PENDING)],
)
def test_a_payment_that_can_not_be_counted_is_answered_as_recorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, card_number: str, status: Status
) -> None:
    """A failing metric raises nothing and changes nothing; the log says what failed."""
    monkeypatch.setattr(metrics.PAYMENTS, "labels", fail)
    payment, found = pay_and_wait_for(status, card_number=card_number)
    assert isinstance(payment, Payment)
    assert payment.status is status
    assert found == payment
    assert any(str(payment.id) in line.message and "RuntimeError" in line.message for line in caplog.records)
    assert card_number not in caplog.text


@pytest.mark.usefixtures("stored", "simulator")
@pytest.mark.parametrize("wrap", [lambda _settle: fail, settle_and_fail, cancel_and])
def test_a_failure_while_settling_raises_nothing_and_loses_no_answer(
    monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any], Any]
) -> None:
    """The bank has answered: `pay` returns the payment, and the answer is recorded as soon as the store takes it."""
    calls = [wrap(store.settle), store.settle]
    settle_once_broken = lambda *args, **options: calls.pop(0)(*args, **options)  # noqa: E731
    monkeypatch.setattr(store, "settle", settle_once_broken)
    monkeypatch.setattr(retries, "DELAYS_S", (0.01,))
    payment, found = pay_and_wait_for(Status.AUTHORIZED)
    assert isinstance(payment, Payment)
    assert payment.status in {Status.PENDING, Status.AUTHORIZED}
    assert found is not None
    assert found.id == payment.id


@pytest.mark.usefixtures("stored", "simulator")
@pytest.mark.parametrize("wrap", [lambda _mark: fail, cancel_and])
def test_a_failure_after_no_answer_leaves_the_payment_pending(
    monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any], Any]
) -> None:
    """The bank answered 500, so money may have moved: `pay` returns the PENDING payment although a later step fails."""
    monkeypatch.setattr(store, "mark_unresolved", wrap(store.mark_unresolved))
    payment, found = pay_and_wait_for(Status.PENDING, card_number=FAILED)
    assert isinstance(payment, Payment)
    assert found == payment


@pytest.mark.usefixtures("stored", "simulator")
@pytest.mark.parametrize(("card_number", "error"), [(UNAVAILABLE_CARD, bank.NotReached), (REFUSED, bank.Refused)])
@pytest.mark.parametrize("wrap", [lambda _release: fail, cancel_and])
def test_a_failure_after_nothing_was_charged_is_still_the_banks_error(
    monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any], Any], card_number: str, error: type[Exception]
) -> None:
    """The caller learns that no payment is kept, and the record is released as soon as that works."""
    calls = [wrap(store.release), store.release]
    monkeypatch.setattr(store, "release", lambda *args: calls.pop(0)(*args))
    monkeypatch.setattr(retries, "DELAYS_S", (0.01,))
    outcome, found = pay_and_wait_for(None, card_number=card_number)
    assert isinstance(outcome, error)
    assert found is None


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("error", "same"),
    [(bank.NotReached("503"), True), (bank.Refused("400"), True), (bank.NotReached("open", sent=False), False)],
)
def test_a_retry_has_the_same_id_if_the_bank_was_sent_the_payment(
    monkeypatch: pytest.MonkeyPatch, error: bank.BankError, *, same: bool
) -> None:
    """A payment that was never sent leaves no record; without a key there is none to find it by."""
    asked: list[UUID] = []

    def decide(request: bank.AuthorizationRequest) -> bool:
        asked.append(request.payment_id)
        raise error

    connect(monkeypatch, decide)
    for key in ("a key", "a key", None):
        with pytest.raises(type(error)):
            asyncio.run(payments.pay("acme", valid_payment(), key))
    first, second, without = asked
    assert (first == second) is same
    assert without not in {first, second}


@pytest.mark.usefixtures("stored")
def test_a_claim_whose_answer_is_lost_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first claim of a payment is deleted and a later one is released, so that the next retry is made."""
    asked: list[UUID] = []
    errors: list[Exception] = [bank.NotReached("503")]
    claim = store.claim

    async def claim_and_lose_the_answer(*args: Any) -> Any:
        await claim(*args)
        raise store.StoreUnavailable

    def decide(request: bank.AuthorizationRequest) -> bool:
        asked.append(request.payment_id)
        if errors:
            raise errors.pop()
        return True

    async def lost() -> None:
        monkeypatch.setattr(store, "claim", claim_and_lose_the_answer)
        with pytest.raises(store.StoreUnavailable):
            await payments.pay("acme", valid_payment(), "a key")
        monkeypatch.setattr(store, "claim", claim)
        async with asyncio.timeout(10):
            while True:
                if await store.search() == []:
                    return
                await asyncio.sleep(0.01)

    async def scenario() -> None:
        await lost()
        with pytest.raises(bank.NotReached):
            await payments.pay("acme", valid_payment(), "a key")
        await lost()
        paid = await payments.pay("acme", valid_payment(), "a key")
        assert asked == [paid.payment.id] * 2

    monkeypatch.setattr(retries, "DELAYS_S", (0.01,))
    connect(monkeypatch, decide)
    asyncio.run(scenario())


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("recorded", [Status.DECLINED, Status.AUTHORIZED])
@pytest.mark.parametrize("answer", [Status.DECLINED, Status.AUTHORIZED])
def test_a_late_answer_of_the_bank_corrects_declined_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recorded: Status, answer: Status
) -> None:
    """The payment was settled while the bank decided: what is recorded then is what `pay` returns."""

    class Late(Acquirer):
        async def authorize(self, request: bank.AuthorizationRequest) -> bank.Authorization:
            await settle_found(request.payment_id, recorded, "operator")
            return bank.Authorization(authorized=answer is Status.AUTHORIZED, code="C1")

    connect(monkeypatch, lambda _request: True)
    monkeypatch.setitem(bank.BANKS, "late", lambda _url, **_options: Late(lambda _request: True))
    bank.configure(
        "late://bank",
        connect_timeout_s=1,
        timeout_s=5,
        retries=0,
        concurrency=2,
        breaker_failures=3,
        breaker_open_s=0.2,
    )

    async def scenario() -> tuple[Payment, list[str]]:
        payment = (await payments.pay("acme", valid_payment())).payment
        assert await store.find(payment.id) == payment
        return payment, [change.to_status for change in await store.history(payment.id)]

    payment, changes = asyncio.run(scenario())
    corrected = (recorded, answer) == (Status.DECLINED, Status.AUTHORIZED)
    assert payment.status is (Status.AUTHORIZED if corrected else recorded)
    assert changes == [recorded, *([Status.AUTHORIZED] if corrected else [])]
    errors = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert len(errors) == (recorded is not answer)


@pytest.mark.usefixtures("simulator")
@pytest.mark.parametrize("card_number", [AUTHORIZED_CARD, FAILED, UNAVAILABLE_CARD])
def test_the_time_at_the_bank_is_noted_for_the_log(card_number: str) -> None:
    """The request context has the time, whether the call succeeds or fails."""

    async def scenario() -> float | None:
        context = request_context.begin([])
        request_context.current.set(context)
        with contextlib.suppress(bank.NotReached):
            await payments.pay("acme", valid_payment(card_number=card_number))
        return context.bank_s

    bank_s = asyncio.run(scenario())
    assert bank_s is not None
    assert 0 < bank_s < 10
