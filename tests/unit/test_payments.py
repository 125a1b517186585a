"""The life of a payment: what is recorded, and when, whatever the bank does."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

import bank
import payments
import store
from store import Payment, Status
from tests.support import AUTHORIZED_CARD, valid_payment


@pytest.fixture(autouse=True)
def memory() -> None:
    """A store in memory, unless the test opens another."""
    store.configure("memory:", fingerprint_key=bytes(32))


class Acquirer:
    """A further bank, which asks a function that blocks."""

    def __init__(self, decide: Callable[[bank.AuthorizationRequest], bool]) -> None:
        self._decide = decide

    async def authorize(self, request: bank.AuthorizationRequest) -> bool:
        return await asyncio.to_thread(self._decide, request)

    async def look_up(self, payment_id: UUID) -> bool | None:
        raise bank.NoLookUp(payment_id)

    def close(self) -> None:
        pass


def connect(
    monkeypatch: pytest.MonkeyPatch,
    decide: Callable[[bank.AuthorizationRequest], bool],
    *,
    concurrency: int = 2,
    connect_timeout_s: float = 0.2,
    queue: int = 2,
) -> None:
    """Register the further bank in one line and choose it by its scheme."""
    monkeypatch.setitem(bank.BANKS, "further", lambda _url, **_options: Acquirer(decide))
    bank.configure(
        "further://bank",
        connect_timeout_s=connect_timeout_s,
        timeout_s=5,
        retries=0,
        concurrency=concurrency,
        queue=queue,
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
    """What is returned is what is found."""
    connect(monkeypatch, lambda _request: authorized)
    payment = pay()
    assert payment.status is status
    assert payment.card_last4 == "8877"
    assert recorded(payment) == payment


def test_pending_is_recorded_before_the_bank_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash while the bank works leaves a record to find."""
    seen: list[Payment | None] = []

    def decide(request: bank.AuthorizationRequest) -> bool:
        seen.append(asyncio.run(store.find(request.payment_id)))
        return True

    connect(monkeypatch, decide)
    payment = pay()
    assert [(found.id, found.status) for found in seen if found] == [(payment.id, Status.PENDING)]


@pytest.mark.parametrize("error", [bank.NotReached("x"), bank.Refused("x")])
def test_what_certainly_did_not_happen_is_dropped(monkeypatch: pytest.MonkeyPatch, error: bank.BankError) -> None:
    """The error reaches the caller, and nothing is recorded."""
    asked: list[bank.AuthorizationRequest] = []

    def decide(request: bank.AuthorizationRequest) -> bool:
        asked.append(request)
        raise error

    connect(monkeypatch, decide)
    with pytest.raises(type(error)):
        pay()
    assert asyncio.run(store.find(asked[0].payment_id)) is None


@pytest.mark.parametrize("error", [bank.NoAnswer("x"), RuntimeError(AUTHORIZED_CARD)])
def test_what_may_have_happened_stays_pending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """No answer, or a bug of ours after the bank was asked: PENDING, told to the operator, never an error."""
    connect(monkeypatch, raising(error))
    with caplog.at_level(logging.INFO):
        payment = pay()
    assert payment.status is Status.PENDING
    assert recorded(payment) == payment
    assert any(str(payment.id) in record.message and record.levelname == "ERROR" for record in caplog.records)
    assert AUTHORIZED_CARD not in caplog.text


def test_a_bank_that_hangs_does_not_hold_up_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every place taken, the next payment is told so in BANK_CONNECT_TIMEOUT_S, and reads go on."""
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
    """Not a field of it, whatever it is called."""
    connect(monkeypatch, lambda _request: True)
    payment = pay()
    values = [getattr(payment, name) for name in Payment.__dataclass_fields__]
    assert AUTHORIZED_CARD not in map(str, values)
    assert "123" not in map(str, values)
