"""The store: one suite, which memory, SQLite and PostgreSQL must all pass."""

import asyncio
import contextlib
import hashlib
import hmac
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import store
from config import ConfigError
from payments import idempotency
from storage import tables
from storage.group_commit import GroupCommit, Outcome
from store import ApiKey, IdempotencyKey, NotPending, Payment, Status, StoreMismatch, StoreUnavailable, UnresolvedStats
from tests.postgres import Postgres
from tests.support import store_url

FINGERPRINT_KEY = bytes(range(32))
OTHER_FINGERPRINT_KEY = bytes(32)
KEY_CHECK = hmac.new(FINGERPRINT_KEY, b"key check", hashlib.sha256).hexdigest()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[str]:
    url = store_url(request.param, tmp_path, request)
    store.configure(url, fingerprint_key=FINGERPRINT_KEY)
    yield url
    store.close()


def pending(**changes: Any) -> Payment:
    payment = Payment(
        id=uuid4(),
        merchant="acme",
        status=Status.PENDING,
        card_last4="8877",
        expiry_month=12,
        expiry_year=2099,
        currency="GBP",
        amount=999_999_999_999,
        created_at=datetime.now(UTC),
    )
    return replace(payment, **changes)


def key(name: str = "k", fingerprint: str = "f" * 64, **changes: Any) -> IdempotencyKey:
    return IdempotencyKey(digest=name, fingerprint=fingerprint, **changes)


def asks(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("status", [Status.AUTHORIZED, Status.DECLINED])
def test_a_settled_payment_is_found_settled(status: Status) -> None:
    """Only its status changes, and the audit trail says who, when, from, to and why."""

    async def scenario() -> None:
        payment = pending()
        assert await store.claim(payment, None, 10) is None
        assert await store.find(payment.id) == payment
        assert await store.history(payment.id) == []
        settled = replace(payment, status=status)
        assert await store.settle(payment.id, status, "someone", "for a reason") == settled
        assert await store.find(payment.id) == settled
        (change,) = await store.history(payment.id)
        assert (change.payment_id, change.changed_by, change.note) == (payment.id, "someone", "for a reason")
        assert (change.from_status, change.to_status) == (Status.PENDING, status)
        assert timedelta() <= datetime.now(UTC) - change.changed_at < timedelta(seconds=10)

    asks(scenario)


@pytest.mark.usefixtures("url")
def test_a_payment_is_settled_once() -> None:
    """A second settling, or one of nothing, hits no PENDING row and changes nothing."""

    async def scenario() -> None:
        payment = pending()
        await store.claim(payment, None, 10)
        await store.settle(payment.id, Status.AUTHORIZED, "first")
        for payment_id in (payment.id, uuid4()):
            with pytest.raises(NotPending):
                await store.settle(payment_id, Status.DECLINED, "second")
        assert [change.changed_by for change in await store.history(payment.id)] == ["first"]

    asks(scenario)


@pytest.mark.usefixtures("url")
def test_a_dropped_payment_is_gone_and_its_key_free() -> None:
    """As if it had never been; a settled payment is never dropped."""

    async def scenario() -> None:
        first, second = pending(), pending()
        await store.claim(first, key(), 10)
        await store.drop(first.id)
        assert await store.find(first.id) is None
        assert await store.claim(second, key(), 10) is None
        await store.settle(second.id, Status.DECLINED, "someone")
        await store.drop(second.id)
        await store.drop(uuid4())
        assert await store.find(second.id) is not None

    asks(scenario)


@pytest.mark.usefixtures("url")
def test_a_key_has_one_payment() -> None:
    """The second claim gets the first's payment, its fingerprint, and whether it is being worked on."""

    async def scenario() -> None:
        first = pending()
        assert await store.claim(first, key(), 10) is None
        claimed = await store.claim(pending(), key(fingerprint="0" * 64), 10)
        assert claimed is not None
        assert (claimed.payment, claimed.fingerprint, claimed.in_progress) == (first, "f" * 64, True)
        settled = await store.settle(first.id, Status.AUTHORIZED, "someone")
        claimed = await store.claim(pending(), key(), 10)
        assert claimed is not None
        assert (claimed.payment, claimed.in_progress) == (settled, False)
        assert await store.claim(pending(), key("other"), 10) is None
        assert await store.claim(pending(merchant="another"), key(), 10) is None
        assert await store.claim(pending(), None, 10) is None
        assert await store.claim(pending(), None, 10) is None

    asks(scenario)


@pytest.mark.usefixtures("url")
def test_work_ends_by_itself_or_in_doubt() -> None:
    """A process that died does not hold a key for ever."""

    async def scenario() -> None:
        await store.claim(pending(), key("dead"), 0)
        doubtful = pending()
        await store.claim(doubtful, key("doubtful"), 60)
        await store.mark_unresolved(doubtful.id, 60)
        for name in ("dead", "doubtful"):
            claimed = await store.claim(pending(), key(name), 10)
            assert claimed is not None
            assert (claimed.payment.status, claimed.in_progress) == (Status.PENDING, False)

    asks(scenario)


@pytest.mark.usefixtures("url")
def test_only_an_idle_payment_is_in_doubt_and_settled_as_such() -> None:
    """What a request is at work on is its own to settle; the oldest doubt comes first."""

    async def scenario() -> None:
        working, older, younger = pending(), pending(), pending()
        await store.claim(working, None, 60)
        await store.claim(older, None, 0)
        await store.claim(younger, None, 0)
        assert [payment.id for payment in await store.list_unresolved()] == [older.id, younger.id]
        with pytest.raises(NotPending):
            await store.settle(working.id, Status.DECLINED, "someone", if_unresolved=True)
        await store.settle(older.id, Status.DECLINED, "someone", if_unresolved=True)
        await store.settle(working.id, Status.AUTHORIZED, "someone")
        assert [payment.id for payment in await store.list_unresolved()] == [younger.id]

    asks(scenario)


@pytest.mark.usefixtures("url")
def test_what_is_due_is_taken_once_and_later_again() -> None:
    """By one process at a time, at growing intervals; what is at work or settled is left alone."""

    async def scenario() -> None:
        due, working, settled = pending(), pending(), pending()
        await store.claim(due, None, 60)
        await store.mark_unresolved(due.id, 0)
        await store.claim(working, None, 60)
        await store.claim(settled, None, 0)
        await store.settle(settled.id, Status.AUTHORIZED, "someone")
        seen: list[int] = []

        def again_s(look_ups: int) -> float:
            seen.append(look_ups)
            return 0 if look_ups < 2 else 60

        for _ in range(3):
            assert [payment.id for payment in await store.take_due(10, again_s)] == [due.id]
        assert await store.take_due(10, again_s) == []
        assert seen == [0, 1, 2]

    asks(scenario)


@pytest.mark.usefixtures("url")
def test_payments_are_searched_newest_first() -> None:
    """By status and by time, at most so many."""

    async def scenario() -> None:
        now = datetime.now(UTC)
        payments = [pending(created_at=now - timedelta(minutes=minutes)) for minutes in range(4)]
        for payment in payments:
            await store.claim(payment, None, 10)
        await store.settle(payments[1].id, Status.DECLINED, "someone")
        ids = [payment.id for payment in payments]
        assert [p.id for p in await store.search()] == ids
        assert [p.id for p in await store.search(limit=2)] == ids[:2]
        assert [p.id for p in await store.search(Status.PENDING)] == [ids[0], *ids[2:]]
        assert [p.id for p in await store.search(since=now - timedelta(minutes=2, seconds=1))] == ids[:3]

    asks(scenario)


@pytest.mark.usefixtures("url")
def test_of_many_writes_at_once_each_has_its_own_outcome() -> None:
    """Though SQLite writes them in a few transactions: a taken key and a payment that has ended harm no other."""

    async def scenario() -> None:
        ended, claimed = pending(), pending()
        await store.claim(ended, None, 10)
        await store.settle(ended.id, Status.DECLINED, "someone")
        await store.claim(claimed, None, 10)
        with_key = [pending(amount=number) for number in range(1, 6)]
        without = [pending() for _ in range(20)]
        outcomes = await asyncio.gather(
            *(store.claim(payment, key(), 10) for payment in with_key),
            store.settle(ended.id, Status.AUTHORIZED, "someone"),
            *(store.claim(payment, None, 10) for payment in without),
            store.settle(claimed.id, Status.AUTHORIZED, "someone"),
            return_exceptions=True,
        )
        keyed, (refused, *made, settled) = outcomes[:5], outcomes[5:]
        (first,) = [payment for payment, outcome in zip(with_key, keyed, strict=True) if outcome is None]
        assert {outcome.payment for outcome in keyed if isinstance(outcome, store.Claimed)} == {first}
        assert isinstance(refused, NotPending)
        assert made == [None] * 20
        assert settled == replace(claimed, status=Status.AUTHORIZED)
        assert {payment.id for payment in await store.search()} == {
            payment.id for payment in (ended, claimed, first, *without)
        }

    asks(scenario)


def test_sqlite_writes_together_and_all_or_nothing(tmp_path: Any) -> None:
    """Fifty claims in a few transactions; while somebody else writes, none is kept that does not say it may be."""
    store.configure(f"sqlite:///{tmp_path / 'payments.db'}", fingerprint_key=FINGERPRINT_KEY)
    commits: list[object] = []
    count = commits.append
    sa.event.listen(sa.Engine, "commit", count)

    async def scenario() -> None:
        await asyncio.gather(*(store.claim(pending(), None, 10) for _ in range(50)))
        assert 2 <= len(commits) < 10
        with contextlib.closing(sqlite3.connect(tmp_path / "payments.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            late = [pending() for _ in range(5)]
            outcomes = await asyncio.gather(
                *(store.claim(payment, None, 10) for payment in late), return_exceptions=True
            )
        for payment, outcome in zip(late, outcomes, strict=True):
            assert isinstance(outcome, StoreUnavailable)
            if outcome.unfinished is not None:  # it waited for the transaction before its own
                await outcome.unfinished
            assert (await store.find(payment.id) is None) == (outcome.unfinished is None)
        assert await store.claim(pending(), None, 10) is None

    try:
        asks(scenario)
    finally:
        sa.event.remove(sa.Engine, "commit", count)
        store.close()


def test_what_was_written_is_told_though_the_store_was_closed_meanwhile() -> None:
    """A transaction under way when the store is closed is recorded, and who waits for it hears so."""
    release = threading.Event()

    def transact(calls: Sequence[Callable[[], Any]]) -> list[Outcome]:
        release.wait(10)
        return [(call(), None) for call in calls]

    async def scenario() -> None:
        threads = ThreadPoolExecutor(1)
        group_commit = GroupCommit(transact, threads)
        under_way, waiting = group_commit.submit(lambda: "recorded"), group_commit.submit(lambda: "never begun")
        threads.shutdown(wait=False, cancel_futures=True)
        release.set()
        assert await asyncio.wait_for(under_way, 5) == "recorded"
        assert not waiting.done()

    asks(scenario)


def test_the_database_decides_races(database_url: str) -> None:
    """Thirty claims of one key from three stores: one wins; thirty settlings: one lands."""
    from storage.sql import Sql  # noqa: PLC0415

    stores = [Sql(database_url, connections=8, key_check=KEY_CHECK) for _ in range(3)]
    with ThreadPoolExecutor(24) as pool:
        claims = list(pool.map(lambda n: stores[n % 3].claim(pending(), key(), 10), range(30)))
        winner = next(claimed for claimed in claims if claimed is not None).payment

        def settle(number: int) -> bool:
            try:
                stores[number % 3].settle(winner.id, Status.AUTHORIZED, "someone", "")
            except NotPending:
                return False
            return True

        assert claims.count(None) == 1
        assert {claimed.payment.id for claimed in claims if claimed is not None} == {winner.id}
        assert list(pool.map(settle, range(30))).count(True) == 1
        stores[0].claim(pending(), None, 0)
        taken = list(pool.map(lambda n: len(stores[n % 3].take_due(10, lambda _: 60)), range(30)))
        assert sum(taken) == 1
    for opened in stores:
        opened.close()


def test_a_restart_finds_everything_again(database_url: str) -> None:
    """Two gateways that start on an empty store at once agree on its tables."""
    with ThreadPoolExecutor(2) as pool:
        from storage.sql import Sql  # noqa: PLC0415

        for opened in pool.map(lambda _: Sql(database_url, connections=2, key_check=KEY_CHECK), range(2)):
            opened.close()

    async def scenario() -> None:
        payment = pending()
        store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
        await store.claim(payment, key(), 10)
        store.close()
        store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
        assert await store.find(payment.id) == payment

    asks(scenario)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "memory",
        "sqlite:///",
        "sqlite:///:memory:",
        "mysql://user:secret@localhost/payments",
        "postgresql://user:secret@localhost/payments",
        "postgresql+psycopg://user:secret@localhost:port/payments",
    ],
)
def test_a_url_that_is_no_store_is_a_config_error(wrong: str) -> None:
    """The store checks its own URL; the message says what is allowed and does not repeat the password."""
    with pytest.raises(ConfigError) as caught:
        store.configure(wrong, fingerprint_key=FINGERPRINT_KEY)
    assert str(caught.value) == (
        "STORE_URL is not a store; "
        "allowed: memory: or sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    )


def test_a_fingerprint_key_has_32_bytes() -> None:
    """A shorter one would make fingerprints that can be reversed by trying every card number."""
    with pytest.raises(ValueError, match="32 bytes"):
        store.configure("memory:", fingerprint_key=b"short")


def test_keyed_digests_are_what_they_always_were() -> None:
    """Databases hold these digests; if they changed, every retry would look like another payment."""
    store.configure("memory:", fingerprint_key=FINGERPRINT_KEY)
    assert idempotency.digest("order-1") == "ee0f7e03e91159b913bbbe05d765151a89c596bd17507640aaaab8bd25905ebe"
    assert (
        idempotency.fingerprint({"amount": 1050, "currency": "GBP"})
        == "c136583519e7b0c6271c119d8e9fd5fc8565092febfee9333206c594739fdcb8"
    )
    assert KEY_CHECK == "2164625b589f20c4807386d5162b926e851be91a835694efcbddd729917e0c63"


def test_a_store_that_is_not_open_is_unavailable() -> None:
    """Before `configure` and after `close` every call says so; a request that outlives the shutdown is a 503."""

    async def scenario() -> None:
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.find(uuid4())
        store.configure("memory:", fingerprint_key=FINGERPRINT_KEY)
        assert await store.find(uuid4()) is None
        store.close()
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.claim(pending(), None, 10)
        store.keep_trying(uuid4(), lambda: store.ping())
        await store.stop()

    asks(scenario)


def test_a_record_is_retried_until_the_store_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the call before it, ends with its first success, and `stop` ends what never succeeds."""
    monkeypatch.setattr(store, "RETRY_DELAYS_S", (0.001, 0.002))
    store.configure("memory:", fingerprint_key=FINGERPRINT_KEY)
    attempts: list[float] = []

    async def scenario() -> None:
        failures: asyncio.Queue[None] = asyncio.Queue()

        async def succeeds_at_last() -> None:
            attempts.append(time.monotonic())
            if len(attempts) < 4:
                raise StoreUnavailable

        async def fails() -> None:
            failures.put_nowait(None)
            raise RuntimeError

        before: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        store.keep_trying(uuid4(), succeeds_at_last, after=before)
        store.keep_trying(uuid4(), fails)
        for _ in range(10):
            await failures.get()
        assert attempts == []
        before.set_result(None)
        for _ in range(20):
            await failures.get()
        assert len(attempts) == 4
        await store.stop()
        assert len(asyncio.all_tasks()) == 1, "only this scenario is left"

    asks(scenario)


def test_another_fingerprint_key_is_refused(database_url: str) -> None:
    """Its fingerprints would make every retry look like another payment."""
    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
    with pytest.raises(StoreMismatch, match=r"^was made with another FINGERPRINT_KEY$"):
        store.configure(database_url, fingerprint_key=OTHER_FINGERPRINT_KEY)


def test_a_store_is_not_made_by_looking_at_it(tmp_path: Any, postgresql: Postgres) -> None:
    """A typo in STORE_URL must not say that there are no payments in doubt."""
    for url in (f"sqlite:///{tmp_path}/typo.db", postgresql.new_database()):
        with pytest.raises(StoreMismatch):
            store.configure(url, fingerprint_key=FINGERPRINT_KEY, create=False)
    assert not (tmp_path / "typo.db").exists()


def test_a_newer_store_is_refused_and_left_alone(database_url: str) -> None:
    """In one clear line."""
    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
    store.close()
    engine = sa.create_engine(database_url)
    with engine.begin() as newer:
        newer.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        newer.exec_driver_sql("DROP TABLE changes")
    with pytest.raises(
        StoreMismatch, match=r"^has schema version 9999, and this gateway knows 0002: run the newer gateway$"
    ):
        store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
    tables = sa.inspect(engine).get_table_names()
    engine.dispose()
    assert set(tables) == {"payments", "meta", "api_keys", "alembic_version"}


def test_the_steps_lead_to_the_tables_that_are_used(database_url: str) -> None:
    """storage/migrations/ and storage/tables.py say the same."""
    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    engine.dispose()


def test_a_store_of_the_first_gateways_is_brought_up_to_date(tmp_path: Any) -> None:
    """With its payments and its keys; and those gateways refuse it from then on, as they know of no API keys."""
    database = sqlite3.connect(tmp_path / "payments.db")
    database.executescript((Path(__file__).parent / "data" / "store-version-1.sql").read_text())
    database.execute("UPDATE meta SET value = ? WHERE name = 'key_check'", [KEY_CHECK])
    database.commit()
    database.close()
    url = f"sqlite:///{tmp_path}/payments.db"
    with pytest.raises(StoreMismatch, match="FINGERPRINT_KEY"):
        store.configure(url, fingerprint_key=OTHER_FINGERPRINT_KEY)
    store.configure(url, fingerprint_key=FINGERPRINT_KEY)

    async def scenario() -> None:
        (payment,) = await store.search()
        assert (payment.merchant, payment.status, payment.amount) == ("default", Status.AUTHORIZED, 1050)
        claimed = await store.claim(pending(merchant="default"), IdempotencyKey(digest="k" * 64, fingerprint="x"), 10)
        assert claimed is not None
        assert (claimed.payment, claimed.fingerprint) == (payment, "f" * 64)
        assert len(await store.history(payment.id)) == 1
        assert await store.list_api_keys() == []

    asks(scenario)
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "payments.db")) as kept:
        assert kept.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchall() == [("2",)]


def api_key(digest: str = "a" * 64, **changes: Any) -> ApiKey:
    return replace(ApiKey(id=digest[:12], digest=digest, merchant="acme", created_at=MINUTE), **changes)


MINUTE = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)


@pytest.mark.usefixtures("url")
def test_api_keys_are_kept_used_and_revoked() -> None:
    """A key is revoked once, and its last use never goes back."""

    async def scenario() -> None:
        one, other = api_key(), api_key("b" * 64, merchant="other")
        await store.add_api_key(one)
        await store.add_api_key(other)
        assert sorted(await store.list_api_keys(), key=lambda key: key.id) == [one, other]
        later = MINUTE + timedelta(minutes=1)
        for minute in (MINUTE, later, MINUTE):
            await store.record_api_key_uses({one.id: minute, "unknown": minute})
        assert {key.id: key.last_used_at for key in await store.list_api_keys()} == {one.id: later, other.id: None}
        revoked = await store.revoke_api_key(one.id)
        assert revoked is not None
        assert revoked.revoked_at is not None
        assert await store.revoke_api_key(one.id) is None
        assert await store.revoke_api_key("unknown") is None
        assert {key.id: key.revoked_at for key in await store.list_api_keys()} == {
            one.id: revoked.revoked_at,
            other.id: None,
        }

    asks(scenario)


@pytest.mark.usefixtures("url")
def test_doubts_are_counted() -> None:
    """Those that no request is at work on, and since when the oldest is."""

    async def scenario() -> None:
        old = pending(created_at=datetime.now(UTC) - timedelta(hours=1))
        for payment, work_s in ((old, 1), (pending(), 0), (pending(), 60)):
            await store.claim(payment, None, work_s)
        stats = await store.unresolved_stats()
        assert stats == UnresolvedStats(count=2, oldest_created_at=old.created_at)
        await store.settle(old.id, Status.DECLINED, "test")
        assert (await store.unresolved_stats()).count == 1
        await store.ping()

    asks(scenario)


def test_sqlite_commits_durably(tmp_path: Any) -> None:
    """WAL, and an fsync with every commit."""
    from storage.sql import Sql  # noqa: PLC0415

    opened = Sql(f"sqlite:///{tmp_path}/payments.db", connections=1, key_check="c")
    with opened._engine.connect() as connection:  # pragmas are a connection's own
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    opened.close()
    assert pragmas == ["wal", 2]


def test_a_locked_sqlite_is_unavailable_not_for_ever(tmp_path: Any) -> None:
    """A writer that does not let go costs five seconds and a StoreUnavailable."""
    url = f"sqlite:///{tmp_path}/payments.db"
    store.configure(url, fingerprint_key=FINGERPRINT_KEY)
    other = sqlite3.connect(tmp_path / "payments.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()

    async def scenario() -> None:
        with pytest.raises(StoreUnavailable):
            await store.claim(pending(), None, 10)

    asks(scenario)
    assert time.monotonic() - started < 7
    other.rollback()
    other.close()


def test_a_postgresql_that_stops_is_unavailable_until_it_is_back(postgresql: Postgres) -> None:
    """And then the first call goes through: stale connections are noticed before they are used."""
    store.configure(postgresql.new_database(), fingerprint_key=FINGERPRINT_KEY)

    async def claim() -> None:
        assert await store.claim(pending(), None, 10) is None

    asks(claim)
    postgresql.stop()
    try:
        with pytest.raises(StoreUnavailable) as caught:
            asks(claim)
        assert "postgres" not in str(caught.value)
    finally:
        postgresql.start()
    asks(claim)


def test_an_unreachable_database_stops_the_start() -> None:
    """Not minutes later, with the first payment."""
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.configure("postgresql+psycopg://nobody@127.0.0.1:1/none", fingerprint_key=FINGERPRINT_KEY)
    assert time.monotonic() - started < 5
