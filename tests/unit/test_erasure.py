"""Erasure: what of a payment goes and what stays, in memory and in databases."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

import payments
import store
from payments import asking, resolver, retention
from storage import erasure, memory
from storage.records import AUTOMATIC
from store import Claimed, IdempotencyKey, NotInStatus, Payment, Status
from telemetry import logs
from tests.support import pending_payment, store_url

KEY = IdempotencyKey(digest="k" * 64, fingerprint="f" * 64, older_fingerprints={"": "f" * 64})
NOTE = "asked Ms Lovelace by telephone"


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An open store of each kind; its URL."""
    url = store_url(request.param, tmp_path, request)
    store.configure(url, fingerprint_key=bytes(32))
    return url


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


async def settled(key: IdempotencyKey | None = None, status: Status = Status.AUTHORIZED, **changes: Any) -> Payment:
    payment = pending_payment(**changes)
    await store.claim(payment, key, 60)
    return await store.settle(payment, status, "operator 7 ada", NOTE, code="C1")


def erased_from(payment: Payment, found: Payment | None) -> None:
    """Check that what was found is what an erasure leaves of the payment."""
    assert found is not None
    assert found.erased_at is not None
    assert abs(datetime.now(UTC) - found.erased_at) < timedelta(seconds=60)
    assert found == replace(payment, card_last4="", expiry_month=0, expiry_year=0, erased_at=found.erased_at)


@pytest.mark.usefixtures("opened")
def test_an_erased_payment_keeps_its_id_amount_status_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of the card goes, and notes of operators; the audit trail stays and has the erasure."""
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr(logs, "audit", logged.append)

    async def scenario() -> None:
        payment, other = await settled(KEY), await settled()
        await store.correct((await settled(status=Status.DECLINED)).id, "resolver", "the bank's look-up")
        before = await store.history(payment.id)
        await store.erase(payment.id, "operator 8 grace")
        erased_from(payment, await store.find(payment.id))
        assert await store.find(other.id) == other
        *kept, line = await store.history(payment.id)
        assert kept == [replace(change, note="") for change in before]
        assert (line.changed_by, line.from_status, line.to_status) == ("operator 8 grace", "AUTHORIZED", "ERASED")
        assert logged[-1]["to_status"] == "ERASED"
        assert await payments.find("acme", payment.id) is None
        assert await payments.find("acme", other.id) == other
        for payment_id in (payment.id, uuid4()):
            with pytest.raises(NotInStatus):
                await store.erase(payment_id, "operator 8 grace")

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_a_pending_payment_is_never_erased() -> None:
    """Whether its request is running or not: its outcome has to be found out first."""

    async def scenario() -> None:
        running, unresolved = (pending_payment(created_at=datetime(2020, 1, 1, tzinfo=UTC)) for _ in range(2))
        await store.claim(running, KEY, 60)
        await store.claim(unresolved, None, 0)
        for payment in (running, unresolved):
            with pytest.raises(NotInStatus):
                await store.erase(payment.id, "operator 7 ada")
        assert await store.erase_older(timedelta(), 10, "retention", "") == 0
        assert await store.find(running.id) == running

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_the_key_of_an_erased_payment_is_never_free_again() -> None:
    """Whether the payment is the same can't be told any more, so it never is: no second payment is made."""

    async def scenario() -> None:
        payment = await settled(KEY)
        await store.erase(payment.id, "operator 7 ada")
        for again in (pending_payment(), pending_payment(amount=1), pending_payment(card_last4="", expiry_month=0)):
            claimed = await store.claim(again, KEY, 60)
            assert isinstance(claimed, Claimed)
            assert (claimed.payment.id, claimed.same_payment) == (payment.id, False)
            assert await store.find(again.id) is None

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_a_released_claim_is_erased_and_its_key_is_never_free_again() -> None:
    """The bank may have authorized it under its id, so a request with its key must not be sent under another."""

    async def scenario() -> None:
        released, other, younger = pending_payment(), pending_payment(amount=1), pending_payment(amount=2)
        other_key, younger_key = replace(KEY, fingerprint="0" * 64), replace(KEY, fingerprint="2" * 64)
        for payment, key in ((released, KEY), (other, other_key)):
            await store.claim(payment, key, 60)
            await store.release(payment.id, payment.id)
        await store.erase(released.id, "operator 7 ada")
        assert await store.find(released.id) is None
        (line,) = await store.history(released.id)
        assert (line.from_status, line.to_status) == ("RELEASED", "ERASED")
        for key in (KEY, younger_key):
            claimed = await store.claim(younger, key, 60)
            assert isinstance(claimed, Claimed)
            assert claimed.same_payment is False
        again = pending_payment(amount=1)
        assert await store.claim(again, other_key, 60) == replace(again, id=other.id), "that claim is not erased"

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_the_banks_word_counts_for_an_erased_payment() -> None:
    """A DECLINED payment that the bank authorized becomes AUTHORIZED; it stays erased."""

    async def scenario() -> None:
        payment = await settled(KEY, Status.DECLINED)
        await store.erase(payment.id, "operator 7 ada")
        corrected = await payments.conflicts.settle(payment.id, Status.AUTHORIZED, "gateway", "the bank's answer", "C2")
        assert corrected is not None
        erased_from(replace(payment, status=Status.AUTHORIZED, authorization_code="C2"), corrected)
        assert [line.to_status for line in await store.history(payment.id)] == ["DECLINED", "ERASED", "AUTHORIZED"]
        assert (await store.history(payment.id))[-1].note == "the bank's answer"

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_older_payments_are_erased_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each payment once, the younger ones never; a payment that was PENDING is erased after it is settled."""
    monkeypatch.setattr(memory, "CHECKED", 4)
    now = datetime.now(UTC)

    async def scenario() -> None:
        older = [await settled(created_at=now - timedelta(days=10, minutes=number)) for number in range(1, 8)]
        younger = await settled(created_at=now - timedelta(days=9))
        unresolved = pending_payment(created_at=now - timedelta(days=11))
        await store.claim(unresolved, None, 0)

        async def erase() -> int:
            return await store.erase_older(timedelta(days=10), 3, "retention", "older than 10 days")

        assert max([await erase() for _ in range(8)]) <= 3
        for payment in older:
            erased_from(payment, await store.find(payment.id))
            assert [line.note for line in await store.history(payment.id)] == ["", "older than 10 days"]
        assert await store.find(younger.id) == younger
        assert await store.find(unresolved.id) == unresolved
        await store.settle(unresolved, Status.DECLINED, "resolver", "the bank's look-up")
        assert sum([await erase() for _ in range(4)]) == 1
        assert [line.note for line in await store.history(unresolved.id)] == [
            "the bank's look-up",
            "older than 10 days",
        ]

    run(scenario)


def test_retention_erases_until_nothing_old_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It continues after an error of the store, and pauses between two batches."""
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "PAUSE_S", 0.001)
    monkeypatch.setattr(retention, "SEARCH_INTERVAL_S", 0.002)
    store.configure("memory:", fingerprint_key=bytes(32))
    erase_older = store.erase_older
    failed: list[bool] = []

    async def fails_once(*arguments: Any) -> int:
        if not failed:
            failed.append(True)
            raise store.StoreUnavailable
        return await erase_older(*arguments)

    monkeypatch.setattr(store, "erase_older", fails_once)

    async def scenario() -> None:
        now = datetime.now(UTC)
        older = [await settled(created_at=now - timedelta(days=30, minutes=1)) for _ in range(5)]
        younger = await settled(created_at=now - timedelta(days=29, hours=23))
        task = asyncio.create_task(retention.run(30))
        async with asyncio.timeout(10):
            erased = {"ERASED"}
            while {(await store.history(payment.id))[-1].to_status for payment in older} != erased:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        task.cancel()
        assert await store.find(younger.id) == younger

    run(scenario)


def test_notes_of_the_gateway_itself_are_no_free_text() -> None:
    """Those who write them are known by name."""
    assert set(AUTOMATIC) == {asking.GATEWAY, resolver.RESOLVER, retention.RETENTION}


def test_only_notes_of_erased_payments_can_be_cleared(database_url: str) -> None:
    """The database refuses to clear any other note, and to change anything else of an erased payment's lines."""
    store.configure(database_url, fingerprint_key=bytes(32))

    async def scenario() -> None:
        await settled()
        await store.erase((await settled()).id, "retention")

    run(scenario)
    engine = sa.create_engine(database_url)
    of_erased = "payment_id IN (SELECT id FROM payments WHERE erased_at IS NOT NULL)"
    for statement in (
        "UPDATE changes SET note = '' WHERE NOT {}",
        "UPDATE changes SET note = 'other' WHERE {}",
        "UPDATE changes SET note = '', changed_by = 'mallory' WHERE {}",
        "DELETE FROM changes WHERE {}",
    ):
        with pytest.raises(sa.exc.DBAPIError, match="the audit trail can only grow"), engine.begin() as connection:
            connection.exec_driver_sql(statement.format(of_erased))
    engine.dispose()


def test_the_first_erasure_makes_older_gateways_too_old(database_url: str) -> None:
    """The upgrade alone does not: they would show what is left of an erased payment."""
    store.configure(database_url, fingerprint_key=bytes(32))
    engine = sa.create_engine(database_url)

    def oldest() -> str:
        with engine.connect() as connection:
            return str(connection.scalar(sa.text("SELECT value FROM meta WHERE name = 'oldest_gateway'")))

    async def scenario() -> None:
        payment = await settled()
        assert await store.erase_older(timedelta(days=1), 10, "retention", "") == 0
        assert oldest() == "0005"
        await store.erase(payment.id, "retention")
        assert oldest() == erasure.SINCE == "0006"
        await store.ping()

    run(scenario)
    engine.dispose()


def test_an_erasure_finds_old_payments_by_an_index(database_url: str) -> None:
    """It must not read all payments that were erased before."""
    store.configure(database_url, fingerprint_key=bytes(32))
    engine = sa.create_engine(database_url)
    sent: list[Any] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *event: sent.append(event[2:4]))
    sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        erasure.older(connection, timedelta(days=1), 100)
        statement, values = sent[-1]
        if not sqlite:  # it would read an empty table as a whole
            connection.exec_driver_sql("SET enable_seqscan = off")
        plan = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN' if sqlite else ''} {statement}", values).all()
    engine.dispose()
    assert "payments_to_erase" in str(plan)


def test_sqlite_overwrites_what_is_erased(tmp_path: Path) -> None:
    """The file holds neither the note nor the fingerprint any more."""
    file = tmp_path / "payments.db"
    store.configure(f"sqlite:///{file}", fingerprint_key=bytes(32))

    def contents() -> bytes:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        return file.read_bytes()

    async def scenario() -> None:
        payments_made = [await settled(replace(KEY, digest=str(number))) for number in range(50)]
        before = contents()
        assert (before.count(NOTE.encode()), before.count(b"f" * 64)) == (50, 50)
        for payment in payments_made:
            await store.erase(payment.id, "retention")
        after = contents()
        assert (after.count(NOTE.encode()), after.count(b"f" * 64)) == (0, 0)

    run(scenario)
