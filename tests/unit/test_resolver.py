"""The resolver settles unresolved payments by what the bank says, and no others."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY

import bank
import payments
import store
from bank import client
from bank.simulator import Simulator
from payments import asking, resolver
from store import Payment, Status
from tests.support import (
    DROPPED,
    OVERSIZED,
    pending_payment,
    reply,
    scripted_bank,
    settle_found,
    store_url,
    valid_payment,
)


@pytest.fixture(params=["memory", "sqlite"], autouse=True)
def stored(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open store, and a resolver that does not wait long."""
    store.configure(store_url(request.param, tmp_path, request), fingerprint_key=bytes(32))
    monkeypatch.setattr(resolver, "SEARCH_INTERVAL_S", 0.001)
    monkeypatch.setattr(resolver, "FIRST_INTERVAL_S", 0.0)
    monkeypatch.setattr(resolver, "surely_over_s", lambda: 0.0)  # no request for a payment can still reach the bank


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """The bank simulator, behind HTTP."""
    simulator = Simulator()
    simulator.start()
    connect(simulator.url)
    yield simulator
    simulator.stop()


def connect(url: str) -> None:
    bank.configure(
        url,
        connect_timeout_s=2,
        timeout_s=5,
        retries=0,
        concurrency=4,
        breaker_failures=10_000,
        breaker_open_s=0.1,
    )


async def unresolved(*, sent_to: str | None = None) -> UUID:
    """Record a payment that no request is running for and that the bank does not know.

    sent_to: the identity of its bank, if that is not the configured one
    """
    payment = pending_payment(bank=sent_to or bank.identity())
    await store.claim(payment, None, 0)
    return payment.id


@contextlib.asynccontextmanager
async def resolving(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Run the resolver; the function that this yields waits until two further rounds are over, look-ups included."""
    began: asyncio.Queue[None] = asyncio.Queue()
    take_due, resolve = store.take_due, resolver._resolve
    look_ups: set[asyncio.Task[Any] | None] = set()

    async def noted(payment: Payment) -> None:
        look_ups.add(asyncio.current_task())
        await resolve(payment)

    async def counted(*arguments: Any) -> list[Payment]:
        began.put_nowait(None)
        return await take_due(*arguments)

    async def two_rounds() -> None:
        for _ in range(2):
            while not began.empty():
                began.get_nowait()
            for _ in range(3):  # the third one begins when the look-ups of the second have begun
                await asyncio.wait_for(began.get(), 10)
            await asyncio.wait_for(asyncio.gather(*filter(None, look_ups), return_exceptions=True), 10)

    monkeypatch.setattr(store, "take_due", counted)
    monkeypatch.setattr(resolver, "_resolve", noted)
    running = asyncio.create_task(resolver.run())
    try:
        yield two_rounds
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def outcome(payment_id: UUID) -> tuple[Status, list[tuple[str, str]]]:
    """Return the payment's status, and who changed it, with which note."""
    found = await store.find(payment_id)
    assert found is not None
    return found.status, [(change.changed_by, change.note) for change in await store.history(payment_id)]


@pytest.mark.usefixtures("simulator")
@pytest.mark.parametrize(("card_number", "status"), [(DROPPED, Status.AUTHORIZED), (OVERSIZED, Status.DECLINED)])
def test_a_payment_whose_answer_was_lost_ends_as_the_bank_decided(
    monkeypatch: pytest.MonkeyPatch, card_number: str, status: Status
) -> None:
    """The bank decided and its answer can't be read; the look-up says what it decided."""
    monkeypatch.setattr(asking, "LOOK_UP_S", 0.0)

    async def scenario() -> None:
        paid = await payments.pay("acme", valid_payment(card_number=card_number))
        assert paid.payment.status is Status.PENDING
        async with resolving(monkeypatch) as two_rounds:
            await two_rounds()
        assert await outcome(paid.payment.id) == (status, [("resolver", "the bank's look-up")])

    asyncio.run(scenario())


@pytest.mark.usefixtures("simulator")
def test_an_old_payment_that_the_bank_promises_never_to_authorize_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bank does not know it and says that this is final, so it was not charged and never will be."""

    async def scenario() -> None:
        payment_id = await unresolved()
        async with resolving(monkeypatch) as two_rounds:
            await two_rounds()
        expected = [("resolver", "the bank does not know the payment")]
        assert await outcome(payment_id) == (Status.DECLINED, expected)

    asyncio.run(scenario())


@pytest.mark.parametrize("final", ["", ', "final": false', ', "final": "true"', ', "final": 1', ', "final": null'])
def test_an_old_payment_that_the_bank_may_still_authorize_stays_pending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, final: str
) -> None:
    """Without `"final": true`, "unknown" promises nothing: the bank is asked again, in the end by an operator."""

    async def scenario() -> None:
        with scripted_bank(lambda connection: unknown(connection)) as answering:
            connect(answering.url)
            payment_id = await unresolved()
            unknown = reply(200, f'{{"payment_id": "{payment_id}", "status": "unknown"{final}}}'.encode())
            async with resolving(monkeypatch) as two_rounds:
                await two_rounds()
            assert len(answering.requests) > 1
        assert await outcome(payment_id) == (Status.PENDING, [])
        assert any(str(payment_id) in line.message and "may still authorize" in line.message for line in caplog.records)

    asyncio.run(scenario())


@pytest.mark.parametrize("status", ["authorized", "declined", "unknown"])
def test_another_bank_is_not_asked_about_a_payment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    """It stays PENDING, and the log says why, until an operator says that its bank has moved."""

    async def scenario() -> None:
        with scripted_bank(lambda connection: answer(connection)) as answering:
            connect(answering.url)
            payment_id = await unresolved(sent_to="https://bank.example:443")
            known = f'{{"payment_id": "{payment_id}", "status": "{status}", "final": true}}'
            answer = reply(200, known.encode())
            async with resolving(monkeypatch) as two_rounds:
                await two_rounds()
                assert answering.requests == []
                assert await outcome(payment_id) == (Status.PENDING, [])
                reason = f"it was sent to https://bank.example:443, and the configured bank is {bank.identity()}"
                assert any(str(payment_id) in line.message and reason in line.message for line in caplog.records)
                await store.move_bank("https://bank.example:443", "https://new.example:443", "operator")
                await two_rounds()
                assert answering.requests == []
                await store.move_bank("https://new.example:443", bank.identity(), "operator")
                await two_rounds()
            expected = Status.AUTHORIZED if status == "authorized" else Status.DECLINED
            assert (await outcome(payment_id))[0] is expected

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "expected"),
    [("authorized", Status.AUTHORIZED), ("declined", Status.DECLINED), ("unknown", Status.PENDING)],
)
def test_a_payment_whose_bank_is_not_recorded_is_settled_by_a_decision_only(
    monkeypatch: pytest.MonkeyPatch, status: str, expected: Status
) -> None:
    """A bank that does not know the payment may be another one than the bank that it was sent to."""

    async def scenario() -> None:
        with scripted_bank(lambda connection: answer(connection)) as answering:
            connect(answering.url)
            payment_id = await unresolved(sent_to=store.UNKNOWN_BANK)
            known = f'{{"payment_id": "{payment_id}", "status": "{status}", "final": true}}'
            answer = reply(200, known.encode())
            async with resolving(monkeypatch) as two_rounds:
                await two_rounds()
                assert (await outcome(payment_id))[0] is expected
                assert answering.requests

    asyncio.run(scenario())


@pytest.mark.usefixtures("simulator")
def test_a_young_payment_that_the_bank_does_not_know_stays_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for it may still be on its way to the bank, whatever the bank promises."""
    monkeypatch.setattr(resolver, "surely_over_s", lambda: 60.0)

    async def scenario() -> None:
        payment_id = await unresolved()
        async with resolving(monkeypatch) as two_rounds:
            await two_rounds()
        assert await outcome(payment_id) == (Status.PENDING, [])

    asyncio.run(scenario())


def test_look_ups_that_hang_do_not_keep_another_payment_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 121 due payments each is looked up once before any is looked up again; `LOOK_UPS` of them at a time."""
    monkeypatch.setattr(client, "LOOK_UP_S", 0.3)
    release = threading.Event()

    def answer(connection: socket.socket) -> None:
        if str(known[-1]).encode() in answering.current.request:
            reply(200, f'{{"payment_id": "{known[-1]}", "status": "authorized"}}'.encode())(connection)
        else:
            release.wait(10)

    async def scenario() -> None:
        known.extend([await unresolved() for _ in range(121)])
        async with asyncio.timeout(60), resolving(monkeypatch) as two_rounds:
            while (await outcome(known[-1]))[0] is Status.PENDING:
                await two_rounds()

    known: list[UUID] = []
    with scripted_bank(answer) as answering:
        connect(answering.url)
        asyncio.run(scenario())
        release.set()
        asked = [request for request in answering.requests if str(known[-1]).encode() in request]
        assert answering.requests.index(asked[0]) < len(known) + bank.LOOK_UPS, "in the last round"


@pytest.mark.usefixtures("simulator")
def test_a_payment_with_a_running_request_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request settles it."""
    looked_up: list[UUID] = []
    look_up = bank.look_up

    async def noted(payment_id: UUID) -> bank.LookUp:
        looked_up.append(payment_id)
        return await look_up(payment_id)

    monkeypatch.setattr(bank, "look_up", noted)

    async def scenario() -> None:
        idle, running = await unresolved(), uuid4()
        found = await store.find(idle)
        assert found is not None
        await store.claim(replace(found, id=running), None, 3600)
        async with resolving(monkeypatch) as two_rounds:
            await two_rounds()
        assert looked_up == [idle]
        assert await outcome(running) == (Status.PENDING, [])

    asyncio.run(scenario())


def test_without_a_look_up_the_payment_stays_pending_for_an_operator(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, simulator: Simulator
) -> None:
    """A 404 does not say that the bank does not know the payment; the log says what an operator can do."""
    connect(f"{simulator.url}/without-look-up")

    async def scenario() -> None:
        payment_id = await unresolved()
        async with resolving(monkeypatch) as two_rounds:
            await two_rounds()
        assert await outcome(payment_id) == (Status.PENDING, [])
        lines = [line.message for line in caplog.records if str(payment_id) in line.message]
        assert lines
        assert "run.py settle" in lines[0]

    asyncio.run(scenario())


def test_a_payment_stays_pending_while_the_bank_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is settled when the bank is back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connect(f"http://127.0.0.1:{port}")

    async def scenario() -> None:
        payment_id = await unresolved()
        async with resolving(monkeypatch) as two_rounds:
            await two_rounds()
            assert await outcome(payment_id) == (Status.PENDING, [])
            simulator = Simulator(port=port)
            simulator.start()
            await two_rounds()
            await two_rounds()
            assert (await outcome(payment_id))[0] is Status.DECLINED
        await asyncio.to_thread(simulator.stop)

    asyncio.run(scenario())


@pytest.mark.usefixtures("simulator")
def test_a_payment_that_is_settled_during_the_look_up_is_not_settled_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first one to settle wins, the audit trail has one line, and the log has no warning."""
    look_up = bank.look_up

    async def slow_look_up(payment_id: UUID) -> bank.LookUp:
        found = await look_up(payment_id)
        await settle_found(payment_id, Status.AUTHORIZED, "operator", "the bank's statement")
        return found

    monkeypatch.setattr(bank, "look_up", slow_look_up)

    async def scenario() -> None:
        payment_id = await unresolved()
        async with resolving(monkeypatch) as two_rounds:
            await two_rounds()
        assert await outcome(payment_id) == (Status.AUTHORIZED, [("operator", "the bank's statement")])

    asyncio.run(scenario())
    assert [line.message for line in caplog.records if line.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("recorded", "status", "ends"),
    [
        (Status.DECLINED, "authorized", Status.AUTHORIZED),
        (Status.AUTHORIZED, "declined", Status.AUTHORIZED),
        (Status.DECLINED, "unknown", Status.DECLINED),
        (Status.AUTHORIZED, "unknown", Status.AUTHORIZED),
    ],
)
def test_the_banks_answer_corrects_what_an_operator_recorded_during_the_look_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recorded: Status, status: str, ends: Status
) -> None:
    """DECLINED becomes AUTHORIZED, never the reverse; a contradiction is counted and logged, "unknown" is none."""
    look_up = bank.look_up

    async def slow_look_up(payment_id: UUID) -> bank.LookUp:
        found = await look_up(payment_id)
        await settle_found(payment_id, recorded, "operator", "the bank's statement")
        return found

    monkeypatch.setattr(bank, "look_up", slow_look_up)
    counted = REGISTRY.get_sample_value("payment_gateway_conflicts_total") or 0

    async def scenario() -> None:
        with scripted_bank(lambda connection: answer(connection)) as answering:
            connect(answering.url)
            payment_id = await unresolved()
            known = {"payment_id": str(payment_id), "status": status, "final": True, "authorization_code": "C1"}
            answer = reply(200, json.dumps(known).encode())
            async with resolving(monkeypatch) as two_rounds:
                await two_rounds()
            corrected = [("resolver", "the bank's look-up")] if recorded is not ends else []
            assert await outcome(payment_id) == (ends, [("operator", "the bank's statement"), *corrected])
            if corrected:
                change = (await store.history(payment_id))[-1]
                assert (change.from_status, change.authorization_code) == (Status.DECLINED, "C1")

    asyncio.run(scenario())
    conflicts = 0 if status == "unknown" else 1
    assert REGISTRY.get_sample_value("payment_gateway_conflicts_total") == counted + conflicts
    errors = [line.message for line in caplog.records if line.levelno == logging.ERROR]
    assert len(errors) == conflicts
    assert all(f"was recorded as {recorded}" in error and f"it is {ends} now" in error for error in errors)


@pytest.mark.usefixtures("simulator")
def test_the_intervals_between_look_ups_grow_to_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals double from 2 s to 5 minutes, and the look-ups never stop."""
    monkeypatch.setattr(resolver, "FIRST_INTERVAL_S", 2.0)
    monkeypatch.setattr(resolver, "surely_over_s", lambda: 60.0)  # the payment stays PENDING
    intervals: list[float] = []
    take_due = store.take_due

    async def noted(limit: int, interval_s: Callable[[int], float], *more: Any) -> list[Payment]:
        def noted_interval_s(look_ups: int) -> float:
            intervals.append(interval_s(look_ups))
            return 0.0  # due again at once

        return await take_due(limit, noted_interval_s, *more)

    monkeypatch.setattr(store, "take_due", noted)

    async def scenario() -> None:
        await unresolved()
        async with asyncio.timeout(10), resolving(monkeypatch) as two_rounds:
            while len(intervals) < 10:
                await two_rounds()

    asyncio.run(scenario())
    assert intervals[:10] == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@pytest.mark.usefixtures("simulator")
@pytest.mark.parametrize("function", ["unresolved_stats", "take_due", "settle"])
@pytest.mark.parametrize("error", [store.StoreUnavailable("down"), RuntimeError("4000000000000127")])
def test_a_failure_of_the_store_does_not_end_the_resolver(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, function: str, error: Exception
) -> None:
    """A function of the store that fails is tried again, and the log shows no text of an unknown exception."""
    working = getattr(store, function)
    failures = [error, error]

    async def fails_twice(*args: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return await working(*args, **options)

    monkeypatch.setattr(store, function, fails_twice)

    async def scenario() -> None:
        payment_id = await unresolved()
        async with asyncio.timeout(10), resolving(monkeypatch) as two_rounds:
            while failures or (await outcome(payment_id))[0] is Status.PENDING:
                await two_rounds()
        assert (await outcome(payment_id))[0] is Status.DECLINED

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert failures == []
    assert [line for line in caplog.records if line.name == "gateway.resolver"]
    assert "4000000000000127" not in caplog.text
