"""Calls that come together are done together, and each has the outcome that it would have alone."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

import store
from storage import batching, payment_statements
from storage.batching import Batching, Call, Outcome
from storage.calls import THREADS, Calls
from storage.sql import Sql
from store import Claimed, IdempotencyKey, NotInStatus, Payment, Status, StoreUnavailable
from tests.postgres import Postgres
from tests.support import pending_payment, wait_until

FINGERPRINT_KEY = bytes(32)

# Seconds within which calls end that nothing holds up, on a busy machine.
SOON_S = 4.0


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def key(name: str) -> IdempotencyKey:
    return IdempotencyKey(digest=name, fingerprint="f" * 64)


@pytest.fixture
def opened(database_url: str) -> Iterator[str]:
    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
    yield database_url
    store.close()


@pytest.fixture
def on_postgresql(postgresql: Postgres) -> Iterator[str]:
    url = postgresql.new_database()
    store.configure(url, fingerprint_key=FINGERPRINT_KEY)
    yield url
    store.close()


@contextlib.contextmanager
def another_session(url: str) -> Iterator[sa.Connection]:
    """Yield a connection to the database, with a transaction that ends with it."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


async def claimed(count: int) -> list[Payment]:
    payments = [pending_payment() for _ in range(count)]
    assert await asyncio.gather(*(store.claim(payment, None, 60) for payment in payments)) == payments
    return payments


def settle(payment: Payment, **options: Any) -> Awaitable[Payment]:
    return store.settle(payment, Status.AUTHORIZED, "gateway", code="C1", response_code="10000", **options)


@pytest.mark.usefixtures("opened")
def test_calls_that_come_together_have_the_outcomes_that_they_have_alone() -> None:
    """Whatever one call of a batch finds, the others are recorded, and what is returned is what is found afterwards."""

    async def scenario() -> None:
        first, settled, unresolved, *others = await claimed(12)
        await settle(settled)
        await store.mark_unresolved(unresolved.id, 60)
        outcomes = await asyncio.gather(
            *(settle(payment, attempt=payment.id) for payment in others),
            settle(settled),
            settle(pending_payment()),
            settle(first, attempt=settled.id),
            settle(first, if_unresolved=True),
            settle(unresolved, if_unresolved=True),
            return_exceptions=True,
        )
        done, refused = outcomes[: len(others)], outcomes[len(others) : -1]
        assert done == [
            replace(payment, status=Status.AUTHORIZED, authorization_code="C1", response_code="10000")
            for payment in others
        ]
        assert [type(outcome) for outcome in refused] == [NotInStatus] * 4
        assert outcomes[-1] == await store.find(unresolved.id)
        assert await asyncio.gather(*(store.find(payment.id) for payment in (*others, first))) == [*done, first]
        for payment in (*others, unresolved):
            assert [line.to_status for line in await store.history(payment.id)] == [Status.AUTHORIZED]
        assert await store.history(first.id) == []

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_of_many_settlings_of_one_payment_in_a_batch_one_succeeds() -> None:
    """The audit trail has one line."""

    async def scenario() -> None:
        payment, *_ = await claimed(3)
        outcomes = await asyncio.gather(*(settle(payment) for _ in range(20)), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NotInStatus"] * 19 + ["Payment"]
        assert len(await store.history(payment.id)) == 1

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_every_field_survives_a_batch() -> None:
    """What is found is what was claimed, with texts of every kind."""

    async def scenario() -> None:
        texts = {"plain": "a", "quotes": "'\"\\", "nul": "\0", "accents": "Zoë 店", "emoji": "🧾", "line": "a\nb"}
        payments = [
            pending_payment(reference='o\'rder "1" \\ %(x)s :y', metadata=texts, card_scheme="visa", amount=10**12),
            pending_payment(reference=None, metadata={}, card_scheme=None),
        ]
        await asyncio.gather(*(store.claim(payment, key(payment.bank), 60) for payment in payments[:1]))
        await asyncio.gather(*(store.claim(payment, None, 60) for payment in payments[1:]))
        assert await asyncio.gather(*(store.find(payment.id) for payment in payments)) == payments

    run(scenario)


def test_writes_that_come_together_share_transactions(on_postgresql: str) -> None:
    """Sixty claims, and sixty settlings, need a few transactions each; test_store.py counts those of SQLite."""

    async def scenario() -> None:
        payments = await claimed(60)
        await asyncio.gather(*map(settle, payments))
        with another_session(on_postgresql) as session:
            for query in (
                "SELECT count(DISTINCT xmin::text), count(*) FROM payments",
                "SELECT count(DISTINCT xmin::text), count(*) FROM changes",
            ):
                transactions, rows = session.exec_driver_sql(query).one()
                assert rows == 60
                assert transactions < 10

    run(scenario)


def test_a_text_that_postgresql_cannot_hold_fails_alone(on_postgresql: str) -> None:
    """U+0000 in one bank's code prevents no other settling of its batch."""
    assert on_postgresql

    async def scenario() -> None:
        payments = await claimed(6)
        wrong = store.settle(payments[0], Status.AUTHORIZED, "gateway", code="a\0b")
        outcomes = await asyncio.gather(wrong, *map(settle, payments[1:]), return_exceptions=True)
        assert isinstance(outcomes[0], StoreUnavailable)
        assert [outcome.id for outcome in outcomes[1:] if isinstance(outcome, Payment)] == [
            payment.id for payment in payments[1:]
        ]

    run(scenario)


def test_a_locked_row_holds_up_no_other_settling(on_postgresql: str) -> None:
    """The others of its batch are settled at once; it is settled when the lock is gone."""

    async def scenario() -> None:
        payments = await claimed(8)
        with another_session(on_postgresql) as session:
            locked = sa.text("SELECT id FROM payments WHERE id = :id FOR UPDATE")
            session.execute(locked, {"id": payments[3].id})
            settling = [asyncio.ensure_future(settle(payment)) for payment in payments]
            done, waiting = await asyncio.wait(settling[:3] + settling[4:], timeout=SOON_S)
            assert [task.result().status for task in done] == [Status.AUTHORIZED] * 7
            assert (len(waiting), settling[3].done()) == (0, False)
            session.rollback()
            assert (await settling[3]).status is Status.AUTHORIZED

    run(scenario)


def test_a_transaction_that_holds_a_key_holds_up_no_other_claim(
    on_postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of its batch are claimed within the limit of a lock; it waits for the transaction."""
    assert payment_statements.LOCK_TIMEOUT_MS < store.WAIT_S * 1000 / 2
    monkeypatch.setattr("storage.calls.WAIT_S", 30.0)

    async def scenario() -> None:
        (first,) = await claimed(1)
        with another_session(on_postgresql) as session:
            change = sa.text("UPDATE payments SET idempotency_key = 'taken', payment_fingerprint = 'f' WHERE id = :id")
            session.execute(change, {"id": first.id})
            names = ["a", "taken", "b", "c", "d"]
            claiming = [asyncio.ensure_future(store.claim(pending_payment(), key(name), 60)) for name in names]
            done, waiting = await asyncio.wait([claiming[0], *claiming[2:]], timeout=2 * SOON_S)
            assert sorted(type(task.result()) is Payment for task in done) == [True] * 4
            assert (len(waiting), claiming[1].done()) == (0, False)
            session.commit()
            outcome = await claiming[1]
            assert isinstance(outcome, Claimed)
            assert outcome.payment.id == first.id

    run(scenario)


def test_gateways_that_claim_the_same_keys_in_any_order_never_wait_for_each_other(on_postgresql: str) -> None:
    """Each key gets one payment, and PostgreSQL sees no deadlock."""

    async def scenario() -> None:
        opened = [open_calls(on_postgresql) for _ in range(3)]
        try:
            for round_ in range(5):
                names = [f"{round_} {number}" for number in range(60)]
                claims = [
                    calls.run(partial(backend.claim, pending_payment(), key(name), 60.0))
                    for backend, calls in opened
                    for name in random.sample(names, len(names))
                ]
                outcomes = await asyncio.gather(*claims)
                made = [outcome for outcome in outcomes if isinstance(outcome, Payment)]
                assert len(made) == len(names)
                assert {outcome.payment.id for outcome in outcomes if isinstance(outcome, Claimed)} <= {
                    payment.id for payment in made
                }
        finally:
            for backend, calls in opened:
                calls.close()
                backend.close()

    run(scenario)
    with another_session(on_postgresql) as session:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert session.exec_driver_sql(query).scalar_one() == 0


def open_calls(url: str) -> tuple[Sql, Calls]:
    """Open the database as another gateway does."""
    with another_session(url) as session:
        check = session.exec_driver_sql("SELECT value FROM meta WHERE name = 'key_check'").scalar_one()
    backend = Sql(url, connections=THREADS, key_checks=[check], migrate=False)
    return backend, Calls(backend)


def test_a_connection_that_ends_in_a_batch_makes_its_calls_unavailable(on_postgresql: str) -> None:
    """Reads are done all the same, and so is the next batch, on a new connection."""

    async def scenario() -> None:
        (payment,) = await claimed(1)
        with another_session(on_postgresql) as session, another_session(on_postgresql) as killer:
            session.exec_driver_sql("LOCK payments IN ACCESS EXCLUSIVE MODE")
            claims = [asyncio.ensure_future(store.claim(pending_payment(), None, 60)) for _ in range(5)]
            reads = [asyncio.ensure_future(store.find(payment.id)) for _ in range(5)]
            waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

            def are_waiting() -> bool:
                killer.rollback()  # else it sees what it saw before
                return bool(killer.exec_driver_sql(f"SELECT count(*) {waiting}").scalar_one() >= 2)

            await asyncio.to_thread(wait_until, are_waiting)
            killer.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {waiting}")
            with pytest.raises(StoreUnavailable, match="shutting down"):
                await claims[0]
            session.rollback()
        assert all(isinstance(claim, Payment) for claim in await asyncio.gather(*claims[1:]))
        assert await asyncio.gather(*reads) == [payment] * 5

    run(scenario)


def test_a_restart_of_the_server_costs_no_call(own_postgresql: Postgres) -> None:
    """Connections that the server ended while they were idle are replaced before anything is sent on them."""
    store.configure(own_postgresql.new_database(), fingerprint_key=FINGERPRINT_KEY)

    async def scenario() -> None:
        for _ in range(2):
            (payment,) = await claimed(1)
            assert await store.find(payment.id) == payment
            own_postgresql.stop()
            own_postgresql.start()
            assert (await settle(payment)).status is Status.AUTHORIZED

    run(scenario)
    store.close()


def test_a_batch_is_bounded_and_the_calls_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that finds nothing under way is done at once, and what comes meanwhile in batches of at most `LIMIT`."""
    monkeypatch.setattr(batching, "LIMIT", 7)
    batches: list[list[int]] = []

    async def do(calls: Sequence[Call]) -> list[Outcome]:
        batches.append([call() for call in calls])
        await asyncio.sleep(0)
        return [(call(), None) for call in calls]

    async def scenario() -> None:
        together = Batching(do, unexpected)
        outcomes = await asyncio.gather(*(together.submit(partial(int, number)) for number in range(20)))
        assert outcomes == list(range(20))
        assert list(map(len, batches)) == [1, 7, 7, 5]
        assert [number for batch in batches for number in batch] == outcomes

    def unexpected(_: Call) -> "asyncio.Future[Any]":
        raise AssertionError

    run(scenario)
