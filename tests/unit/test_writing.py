"""Whether the store takes writes: found out by payments, and by a write of its own when there were none for a while."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from uuid import uuid4

import pytest
import sqlalchemy as sa

import store
from store import Status, StoreUnavailable
from tests.support import pending_payment

FINGERPRINT_KEY = bytes(range(32))


@pytest.fixture
def database(database_url: str) -> Iterator[sa.Engine]:
    """An open store, and another connection to its database."""
    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")
    yield engine
    store.close()
    engine.dispose()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def tried_at(database: sa.Engine) -> str | None:
    """Return when the store was last asked to write something of its own."""
    with database.connect() as connection:
        found: str | None = connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'tried_at'").scalar()
    return found


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the last write say nothing any more."""
    monkeypatch.setattr(store._opened().writing, "_valid_until", 0.0)


def test_a_write_of_its_own_comes_only_when_the_last_write_is_old(
    database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the question is asked: not after a payment, and not after a write of its own."""

    async def scenario() -> None:
        payment = pending_payment()
        await store.claim(payment, None, 10)
        for _ in range(3):
            await store.check_writing()
        assert tried_at(database) is None
        forget(monkeypatch)
        await store.settle(payment, Status.AUTHORIZED, "someone")
        await store.check_writing()
        assert tried_at(database) is None
        forget(monkeypatch)
        await store.check_writing()
        first = tried_at(database)
        assert first is not None
        await store.check_writing()
        assert tried_at(database) == first
        forget(monkeypatch)
        await store.check_writing()
        assert tried_at(database) != first
        assert await store.search() == [await store.find(payment.id)], "no payment was written"

    run(scenario)


@pytest.mark.parametrize("table", ["payments", "changes"])
def test_a_missing_table_is_noticed_without_a_payment(database: sa.Engine, table: str) -> None:
    """Each table that a payment needs is tried."""
    with database.connect() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO other")

    async def scenario() -> None:
        await store.ping()
        with pytest.raises(StoreUnavailable, match=r"^no such table$"):
            await store.check_writing()

    run(scenario)


def test_a_failed_payment_is_remembered_until_a_write_succeeds(
    database: sa.Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads and writes that change nothing do not count, and the log has a line when it begins and when it ends."""

    def rename(old: str, new: str) -> None:
        with database.connect() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")

    async def fails() -> None:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"^no such table$"):
                await store.check_writing()

    async def scenario() -> None:
        await store.check_writing()
        rename("changes", "other")
        payment = pending_payment()
        await store.claim(payment, None, 10)
        with pytest.raises(StoreUnavailable):
            await store.settle(payment, Status.AUTHORIZED, "someone")
        await fails()
        rename("other", "changes")
        assert await store.find(payment.id) is not None
        await store.drop(uuid4(), uuid4())
        await fails()
        forget(monkeypatch)
        await store.check_writing()

    with caplog.at_level(logging.WARNING, "gateway.store"):
        run(scenario)
    assert [record.getMessage() for record in caplog.records if record.name == "gateway.store"] == [
        "the store takes no writes: no such table",
        "the store takes writes again",
    ]


@pytest.mark.parametrize(
    ("pragma", "cause"), [("query_only=ON", "read only"), ("max_page_count=1", "disk full")], ids=["read only", "full"]
)
def test_a_sqlite_that_takes_no_writes_is_noticed(tmp_path: object, pragma: str, cause: str) -> None:
    """By payments and by writes of its own; the cause is given in words."""
    store.configure(f"sqlite:///{tmp_path}/payments.db", fingerprint_key=FINGERPRINT_KEY)
    engine: sa.Engine = store._opened().backend._engine  # type: ignore[union-attr]
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}").close())
    engine.dispose()  # the connections that follow have the limit

    async def pay_until_it_fails() -> None:
        for _ in range(200):  # until the pages that the file has are full
            await store.claim(pending_payment(), None, 10)

    for fails in (pay_until_it_fails, store.check_writing):
        with pytest.raises(StoreUnavailable, match=f"^{cause}$"):
            run(fails)


def test_memory_takes_writes() -> None:
    """It can't fail."""
    store.configure("memory:", fingerprint_key=FINGERPRINT_KEY)
    run(store.check_writing)
