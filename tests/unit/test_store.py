"""The store: memory, SQLite and PostgreSQL pass the same tests."""

import asyncio
import contextlib
import hashlib
import hmac
import os
import shlex
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import store
from config import ConfigError
from payments import idempotency
from storage import retries, tables
from storage.batching import Batching, Call, Outcome
from storage.memory import Memory
from store import (
    ApiKey,
    Change,
    IdempotencyKey,
    KeyChange,
    NotInStatus,
    Payment,
    State,
    Status,
    StoreMismatch,
    StoreUnavailable,
    UnresolvedStats,
)
from telemetry import logs
from tests import older_store
from tests.postgres import Postgres
from tests.support import ROOT, pending_payment, store_url

FINGERPRINT_KEY = bytes(range(32))
OTHER_FINGERPRINT_KEY = bytes(32)
OTHER_KEY = r"^was made with another FINGERPRINT_KEY, which is not in FINGERPRINT_OLD_KEYS either$"
VERSION = ScriptDirectory(str(ROOT / "storage" / "migrations")).get_current_head()
KEY_CHECK = hmac.new(FINGERPRINT_KEY, b"key check", hashlib.sha256).hexdigest()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[str]:
    url = store_url(request.param, tmp_path, request)
    store.configure(url, fingerprint_key=FINGERPRINT_KEY)
    yield url
    store.close()


def pending(**changes: Any) -> Payment:
    return pending_payment(**{"amount": 999_999_999_999, **changes})


def key(name: str = "k", fingerprint: str = "f" * 64, **changes: Any) -> IdempotencyKey:
    return IdempotencyKey(digest=name, fingerprint=fingerprint, **changes)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("status", [Status.AUTHORIZED, Status.DECLINED])
def test_a_settled_payment_is_found_settled(status: Status) -> None:
    """The audit trail says who changed it, when, from what, to what and why; it has the authorization code, too."""

    async def scenario() -> None:
        payment = pending()
        assert await store.claim(payment, None, 10) == payment
        assert await store.find(payment.id) == payment
        assert await store.history(payment.id) == []
        settled = replace(payment, status=status, authorization_code="c" * 64)
        assert await store.settle(payment, status, "someone", "for a reason", code="c" * 64) == settled
        assert await store.find(payment.id) == settled
        (change,) = await store.history(payment.id)
        assert (change.payment_id, change.changed_by, change.note) == (payment.id, "someone", "for a reason")
        assert (change.from_status, change.to_status) == (Status.PENDING, status)
        assert change.authorization_code == "c" * 64
        assert timedelta() <= datetime.now(UTC) - change.changed_at < timedelta(seconds=10)

    run(scenario)


@pytest.mark.usefixtures("url")
def test_a_payment_is_settled_once() -> None:
    """Settling a settled or an unknown payment raises NotInStatus and changes nothing."""

    async def scenario() -> None:
        payment = pending()
        await store.claim(payment, None, 10)
        await store.settle(payment, Status.AUTHORIZED, "first")
        for settled_or_unknown in (payment, pending()):
            with pytest.raises(NotInStatus):
                await store.settle(settled_or_unknown, Status.DECLINED, "second")
        assert [change.changed_by for change in await store.history(payment.id)] == ["first"]

    run(scenario)


@pytest.mark.usefixtures("url")
def test_only_a_declined_payment_is_corrected() -> None:
    """It becomes AUTHORIZED once, with a line of the audit trail and the authorization code."""

    async def scenario() -> None:
        declined, running, authorized = pending(), pending(), pending()
        for payment in (declined, running, authorized):
            await store.claim(payment, None, 10)
        await store.settle(declined, Status.DECLINED, "resolver")
        await store.settle(authorized, Status.AUTHORIZED, "resolver", code="first")
        corrected = replace(declined, status=Status.AUTHORIZED, authorization_code="c")
        assert await store.correct(declined.id, "someone", "for a reason", "c") == corrected
        assert await store.find(declined.id) == corrected
        change = (await store.history(declined.id))[-1]
        assert (change.from_status, change.to_status) == (Status.DECLINED, Status.AUTHORIZED)
        assert (change.changed_by, change.note, change.authorization_code) == ("someone", "for a reason", "c")
        for payment_id in (declined.id, running.id, authorized.id, uuid4()):
            with pytest.raises(NotInStatus):
                await store.correct(payment_id, "someone", "again", "d")
        assert await store.find(declined.id) == corrected
        found = await store.find(authorized.id)
        assert found is not None
        assert found.authorization_code == "first"

    run(scenario)


@pytest.mark.usefixtures("url")
def test_the_time_since_a_claim_is_the_stores() -> None:
    """It does not depend on the time at which a gateway says that the payment was created."""

    async def scenario() -> None:
        payment = pending()
        await store.claim(payment, None, 10)
        assert -0.1 < await store.claimed_s_ago(payment.id) < 5
        assert abs(await store.clock_offset_s()) < 1

    run(scenario)


@pytest.mark.usefixtures("url")
def test_a_dropped_payment_is_deleted_and_its_key_is_free() -> None:
    """Another payment can take the key; a settled payment is never dropped."""

    async def scenario() -> None:
        first, second = pending(), pending()
        await store.claim(first, key(), 10)
        await store.drop(first.id, first.id)
        assert await store.find(first.id) is None
        assert await store.claim(second, key(), 10) == second
        await store.settle(second, Status.DECLINED, "someone")
        await store.drop(second.id, second.id)
        await store.drop(uuid4(), uuid4())
        assert await store.find(second.id) is not None

    run(scenario)


@pytest.mark.usefixtures("url")
def test_an_idempotency_key_belongs_to_one_payment() -> None:
    """A second claim gets the first payment, whether it is the same payment, and whether its request may be running."""

    async def scenario() -> None:
        first = pending()
        assert await store.claim(first, key(), 10) == first
        claimed = await store.claim(pending(), key(fingerprint="0" * 64), 10)
        assert isinstance(claimed, store.Claimed)
        assert (claimed.payment, claimed.same_payment, claimed.in_progress) == (first, False, True)
        settled = await store.settle(first, Status.AUTHORIZED, "someone")
        claimed = await store.claim(pending(), key(), 10)
        assert isinstance(claimed, store.Claimed)
        assert (claimed.payment, claimed.same_payment, claimed.in_progress) == (settled, True, False)
        assert isinstance(await store.claim(pending(), key("other"), 10), Payment)
        assert isinstance(await store.claim(pending(merchant="another"), key(), 10), Payment)
        assert isinstance(await store.claim(pending(), None, 10), Payment)
        assert isinstance(await store.claim(pending(), None, 10), Payment)

    run(scenario)


@pytest.mark.usefixtures("url")
def test_a_payment_is_in_progress_until_its_time_is_over_or_it_is_unresolved() -> None:
    """A process that crashed does not keep a key in progress."""

    async def scenario() -> None:
        await store.claim(pending(), key("crashed"), 0)
        unresolved = pending()
        await store.claim(unresolved, key("unresolved"), 60)
        await store.mark_unresolved(unresolved.id, 60)
        for name in ("crashed", "unresolved"):
            claimed = await store.claim(pending(), key(name), 10)
            assert isinstance(claimed, store.Claimed)
            assert (claimed.payment.status, claimed.in_progress) == (Status.PENDING, False)

    run(scenario)


@pytest.mark.usefixtures("url")
def test_a_payment_with_a_running_request_is_not_unresolved() -> None:
    """Only its request may settle it; unresolved payments are listed oldest first."""

    async def scenario() -> None:
        running, older, younger = pending(), pending(), pending()
        await store.claim(running, None, 60)
        await store.claim(older, None, 0)
        await store.claim(younger, None, 0)
        assert [payment.id for payment in await store.list_unresolved()] == [older.id, younger.id]
        with pytest.raises(NotInStatus):
            await store.settle(running, Status.DECLINED, "someone", if_unresolved=True)
        await store.settle(older, Status.DECLINED, "someone", if_unresolved=True)
        await store.settle(running, Status.AUTHORIZED, "someone")
        assert [payment.id for payment in await store.list_unresolved()] == [younger.id]

    run(scenario)


@pytest.mark.usefixtures("url")
def test_a_due_payment_is_taken_once_and_again_after_its_interval() -> None:
    """Payments that are settled or have a running request are not taken."""

    async def scenario() -> None:
        due, running, settled = pending(), pending(), pending()
        await store.claim(due, None, 60)
        await store.mark_unresolved(due.id, 0)
        await store.claim(running, None, 60)
        await store.claim(settled, None, 0)
        await store.settle(settled, Status.AUTHORIZED, "someone")
        seen: list[int] = []

        def interval_s(look_ups: int) -> float:
            seen.append(look_ups)
            return 0 if look_ups < 2 else 60

        for _ in range(3):
            assert [payment.id for payment in await store.take_due(10, interval_s)] == [due.id]
        assert await store.take_due(10, interval_s) == []
        assert seen == [0, 1, 2]

    run(scenario)


@pytest.mark.usefixtures("url")
def test_payments_are_searched_newest_first() -> None:
    """A search can be limited by status, by time and in number."""

    async def scenario() -> None:
        now = datetime.now(UTC)
        payments = [pending(created_at=now - timedelta(minutes=minutes)) for minutes in range(4)]
        for payment in payments:
            await store.claim(payment, None, 10)
        await store.settle(payments[1], Status.DECLINED, "someone")
        ids = [payment.id for payment in payments]
        assert [p.id for p in await store.search()] == ids
        assert [p.id for p in await store.search(limit=2)] == ids[:2]
        assert [p.id for p in await store.search(State.PENDING)] == [ids[0], *ids[2:]]
        assert [p.id for p in await store.search(since=now - timedelta(minutes=2, seconds=1))] == ids[:3]

    run(scenario)


@pytest.mark.usefixtures("url")
def test_concurrent_writes_have_separate_outcomes() -> None:
    """SQLite groups them in a few transactions; a key that is taken or a settled payment affects no other write."""

    async def scenario() -> None:
        settled, claimed = pending(), pending()
        await store.claim(settled, None, 10)
        await store.settle(settled, Status.DECLINED, "someone")
        await store.claim(claimed, None, 10)
        with_key = [pending(amount=number) for number in range(1, 6)]
        without = [pending() for _ in range(20)]
        outcomes = await asyncio.gather(
            *(store.claim(payment, key(), 10) for payment in with_key),
            store.settle(settled, Status.AUTHORIZED, "someone"),
            *(store.claim(payment, None, 10) for payment in without),
            store.settle(claimed, Status.AUTHORIZED, "someone"),
            return_exceptions=True,
        )
        keyed, (refused, *others, authorized) = outcomes[:5], outcomes[5:]
        (first,) = [outcome for outcome in keyed if isinstance(outcome, Payment)]
        assert {outcome.payment for outcome in keyed if isinstance(outcome, store.Claimed)} == {first}
        assert isinstance(refused, NotInStatus)
        assert others == without
        assert authorized == replace(claimed, status=Status.AUTHORIZED)
        assert {payment.id for payment in await store.search()} == {
            payment.id for payment in (settled, claimed, first, *without)
        }

    run(scenario)


def test_sqlite_groups_writes_and_records_all_of_a_group_or_none(tmp_path: Any) -> None:
    """Fifty claims need a few transactions; while the database is locked, no claim that failed is recorded."""
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
            if outcome.unfinished is not None:  # it was waiting for the transaction before its own
                await outcome.unfinished
            assert (await store.find(payment.id) is None) == (outcome.unfinished is None)
        assert isinstance(await store.claim(pending(), None, 10), Payment)

    try:
        run(scenario)
    finally:
        sa.event.remove(sa.Engine, "commit", count)
        store.close()


def test_a_write_under_way_when_the_store_is_closed_has_its_outcome() -> None:
    """The batch is recorded, and its call has the result; a call that was waiting is not done, and fails at once."""
    release = threading.Event()
    run_calls: list[str] = []

    def write(calls: Sequence[Call]) -> list[Outcome]:
        release.wait(10)
        return [(call(), None) for call in calls]

    async def scenario() -> None:
        threads = ThreadPoolExecutor(1)
        batching = Batching(lambda calls: asyncio.get_running_loop().run_in_executor(threads, write, calls), unexpected)
        under_way, waiting = (batching.submit(partial(run_calls.append, name)) for name in ("first", "second"))
        threads.shutdown(wait=False, cancel_futures=True)
        release.set()
        await asyncio.wait_for(under_way, 5)
        with pytest.raises(StoreUnavailable, match="the store is closed"):
            await asyncio.wait_for(waiting, 5)
        assert run_calls == ["first"]

    def unexpected(_: Call) -> "asyncio.Future[Any]":
        raise AssertionError

    run(scenario)


def test_the_database_decides_races(database_url: str) -> None:
    """From three stores at once, one of thirty claims of a key, of thirty settlings and of thirty look-ups succeeds."""
    from storage.sql import Sql  # noqa: PLC0415

    stores = [Sql(database_url, connections=8, key_checks=[KEY_CHECK]) for _ in range(3)]
    with ThreadPoolExecutor(24) as pool:
        claims = list(pool.map(lambda n: stores[n % 3].claim(pending(), key(), 10), range(30)))
        (claimed_payment,) = [claim for claim in claims if isinstance(claim, Payment)]
        authorized = Change(
            payment_id=claimed_payment.id,
            changed_at=datetime.now(UTC),
            changed_by="someone",
            from_status=Status.PENDING,
            to_status=Status.AUTHORIZED,
            note="",
        )

        def settle(number: int) -> bool:
            try:
                stores[number % 3].change(authorized, "10000")
            except NotInStatus:
                return False
            return True

        assert {claim.payment for claim in claims if isinstance(claim, store.Claimed)} == {claimed_payment}
        assert list(pool.map(settle, range(30))).count(True) == 1
        stores[0].claim(pending(), None, 0)
        taken = list(pool.map(lambda n: len(stores[n % 3].take_due(10, lambda _: 60)), range(30)))
        assert sum(taken) == 1
    for opened in stores:
        opened.close()


def test_a_gateway_starts_while_another_one_makes_the_tables(tmp_path: Path) -> None:
    """The start succeeds although SQLite refuses to switch to WAL while another connection writes."""
    file = tmp_path / "payments.db"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE unrelated (x)")
    timer = threading.Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    store.configure(f"sqlite:///{file}", fingerprint_key=FINGERPRINT_KEY)
    timer.join()
    other.close()


def test_a_restart_finds_the_payments_again(database_url: str) -> None:
    """Two gateways can start on one empty database at the same time."""
    with ThreadPoolExecutor(2) as pool:
        from storage.sql import Sql  # noqa: PLC0415

        for opened in pool.map(lambda _: Sql(database_url, connections=2, key_checks=[KEY_CHECK]), range(2)):
            opened.close()

    async def scenario() -> None:
        payment = pending()
        store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
        await store.claim(payment, key(), 10)
        store.close()
        store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
        assert await store.find(payment.id) == payment

    run(scenario)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "memory",
        "redis://",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "mysql://user:secret@localhost/payments",
        "postgresql://user:secret@localhost/payments",
        "postgresql+psycopg://user:secret@localhost:port/payments",
    ],
)
def test_a_wrong_url_is_a_config_error(wrong: str) -> None:
    """The message says what is allowed and does not repeat the URL, which may hold a password."""
    with pytest.raises(ConfigError) as caught:
        store.configure(wrong, fingerprint_key=FINGERPRINT_KEY)
    assert str(caught.value) == (
        "STORE_URL is not a store; "
        "allowed: memory: or sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    )


def test_a_fingerprint_key_has_32_bytes() -> None:
    """With a shorter key, fingerprints could be reversed by trying every key and card number."""
    with pytest.raises(ValueError, match="32 bytes"):
        store.configure("memory:", fingerprint_key=b"short")


def test_digests_never_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases hold these digests; with other ones every retry would look like another payment."""
    store.configure("memory:", fingerprint_key=FINGERPRINT_KEY)
    monkeypatch.setattr(store._opened().backend, "salt", FINGERPRINT_KEY)
    monkeypatch.setattr(store._opened().backend, "has_older_digests", True, raising=False)
    assert idempotency.identify("order-1", {"amount": 1050, "currency": "GBP", "cvv": "123"}) == IdempotencyKey(
        digest="dd43e9c4d94bd01d4cd8f3e0039f8af98d131eae910401e40f136a9fc963a759",
        older_digests=("ee0f7e03e91159b913bbbe05d765151a89c596bd17507640aaaab8bd25905ebe",),
        fingerprint="c136583519e7b0c6271c119d8e9fd5fc8565092febfee9333206c594739fdcb8",
        fingerprint_key="2164625b",
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

    run(scenario)


def test_a_record_is_retried_until_the_store_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the call before it, ends with its first success, and `stop` ends what never succeeds."""
    monkeypatch.setattr(retries, "DELAYS_S", (0.001, 0.002))
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

    run(scenario)


def test_another_fingerprint_key_is_refused(database_url: str) -> None:
    """With it every retry would look like another payment."""
    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
    with pytest.raises(StoreMismatch, match=OTHER_KEY):
        store.configure(database_url, fingerprint_key=OTHER_FINGERPRINT_KEY)


def test_a_fingerprint_key_is_replaced_step_by_step(database_url: str) -> None:
    """While the old key is known, it verifies; once it is gone, what is kept of the card and the amount decide."""
    old, new = bytes([1] * 32), bytes([2] * 32)
    card, other_card = "2222405343248877", "4000000000008877"

    async def claim(card_number: str) -> Payment | store.Claimed:
        key = idempotency.identify("order-1", {"card_number": card_number, "cvv": "123"})
        return await store.claim(pending(), key, 10)

    async def is_same(card_number: str) -> bool:
        claimed = await claim(card_number)
        assert isinstance(claimed, store.Claimed)
        return claimed.same_payment

    async def first() -> None:
        assert isinstance(await claim(card), Payment)

    async def verified() -> None:
        assert await is_same(card)
        assert not await is_same(other_card)

    async def compared() -> None:
        assert await is_same(other_card)

    async def counted() -> None:
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        await store.claim(pending(), idempotency.identify("order-2", {}), 10)
        await store.claim(pending(), None, 10)
        assert await store.fingerprint_key_uses(hour_ago) == dict.fromkeys(store.fingerprint_key_ids(), 1)
        assert await store.fingerprint_key_uses(datetime.now(UTC)) == {}

    store.configure(database_url, fingerprint_key=old)
    run(first)
    store.configure(database_url, fingerprint_key=old, old_fingerprint_keys=[new])
    run(verified)
    store.configure(database_url, fingerprint_key=new, old_fingerprint_keys=[old])
    run(verified)
    run(counted)
    store.configure(database_url, fingerprint_key=new)
    run(compared)
    with pytest.raises(StoreMismatch, match=OTHER_KEY):
        store.configure(database_url, fingerprint_key=old)


def tables_of(url: str) -> set[str]:
    engine = sa.create_engine(url)
    found = set(sa.inspect(engine).get_table_names())
    engine.dispose()
    return found


def test_a_command_creates_no_database(tmp_path: Any, postgresql: Postgres) -> None:
    """With a typo in STORE_URL, an operator must not read that there are no unresolved payments."""
    url = postgresql.new_database()
    for empty, problem in ((f"sqlite:///{tmp_path}/typo.db", "does not exist"), (url, "has no tables")):
        with pytest.raises(StoreMismatch, match=rf"^{problem}; `run.py migrate` creates"):
            store.configure(empty, fingerprint_key=FINGERPRINT_KEY, migrate=False)
    assert not (tmp_path / "typo.db").exists()
    assert tables_of(url) == set()


def test_a_command_upgrades_no_database(database_url: str) -> None:
    """It says how to upgrade it; `store.migrate` does, once, and the command works afterwards."""
    with older_store.made(database_url, "0002"):
        pass
    older = tables_of(database_url)
    with pytest.raises(StoreMismatch) as caught:
        store.configure(database_url, fingerprint_key=FINGERPRINT_KEY, migrate=False)
    assert str(caught.value) == (
        f"has schema version 0002, and this command needs {VERSION}: run `run.py migrate` or start a gateway of this "
        "version, which both upgrade it"
    )
    assert tables_of(database_url) == older
    assert store.migrate(database_url, fingerprint_key=FINGERPRINT_KEY) == ("0002", VERSION)
    assert store.migrate(database_url, fingerprint_key=FINGERPRINT_KEY) == (VERSION, VERSION)
    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY, migrate=False)
    with pytest.raises(StoreMismatch, match=OTHER_KEY):
        store.configure(database_url, fingerprint_key=OTHER_FINGERPRINT_KEY, migrate=False)


@pytest.mark.parametrize("migrate", [True, False], ids=["gateway", "command"])
def test_a_newer_database_is_used_as_long_as_it_serves_this_version(database_url: str, migrate: bool) -> None:
    """Later a running gateway is told that it is too old, and one that starts or a command is refused."""
    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
    engine = sa.create_engine(database_url)
    with engine.begin() as newer:
        newer.exec_driver_sql("UPDATE alembic_version SET version_num = '9998'")
        newer.exec_driver_sql("CREATE TABLE refunds (id INTEGER)")
    run(store.ping)
    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY, migrate=migrate)
    with engine.begin() as newer:
        newer.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        newer.exec_driver_sql("UPDATE meta SET value = '9999' WHERE name = 'oldest_gateway'")
    with pytest.raises(store.GatewayTooOld):
        run(store.ping)
    before = tables_of(database_url)
    with pytest.raises(StoreMismatch) as caught:
        store.configure(database_url, fingerprint_key=FINGERPRINT_KEY, migrate=migrate)
    assert str(caught.value) == (
        f"serves gateways with schema version 9999 or newer, and this one has {VERSION}: run the newer gateway"
    )
    assert tables_of(database_url) == before
    with engine.connect() as newer:
        assert newer.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == ["9999"]
    engine.dispose()


def test_the_migrations_create_the_tables_that_are_used(database_url: str) -> None:
    """storage/migrations/ and storage/tables.py agree."""
    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    engine.dispose()


def test_a_database_without_migrations_is_upgraded(tmp_path: Any) -> None:
    """Its payments and keys stay; the gateways that created it refuse it afterwards, as they know no API keys."""
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
        assert store.has_older_digests()
        repeated = key("new", older_digests=("k" * 64,))
        for changes, same in (({"amount": 1050}, True), ({"amount": 1051}, False)):
            claimed = await store.claim(pending(merchant="default", **changes), repeated, 10)
            assert isinstance(claimed, store.Claimed)
            assert (claimed.payment, claimed.same_payment) == (payment, same)
        assert len(await store.history(payment.id)) == 1
        assert await store.list_api_keys() == []

    run(scenario)
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "payments.db")) as kept:
        assert kept.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchall() == [("2",)]


def api_key(digest: str = "a" * 64, **changes: Any) -> ApiKey:
    return replace(ApiKey(id=digest[:12], digest=digest, merchant="acme", created_at=MINUTE), **changes)


MINUTE = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)


@pytest.mark.usefixtures("url")
def test_api_keys_are_recorded_used_and_revoked() -> None:
    """A key is revoked once, and the time of its last use never decreases."""

    async def scenario() -> None:
        one, other = api_key(), api_key("b" * 64, merchant="other")
        await store.add_api_key(one, "someone")
        await store.add_api_key(other, "another")
        assert sorted(await store.list_api_keys(), key=lambda key: key.id) == [one, other]
        later = MINUTE + timedelta(minutes=1)
        for minute in (MINUTE, later, MINUTE):
            await store.record_api_key_uses({one.id: minute, "unknown": minute})
        assert {key.id: key.last_used_at for key in await store.list_api_keys()} == {one.id: later, other.id: None}
        revoked = await store.revoke_api_key(one.id, "another")
        assert revoked is not None
        assert await store.revoke_api_key(one.id, "a third") is None
        assert await store.revoke_api_key("unknown", "a third") is None
        assert {key.id: key.revoked_at for key in await store.list_api_keys()} == {
            one.id: revoked.changed_at,
            other.id: None,
        }
        assert [(line.key_id, line.merchant, line.changed_by, line.change) for line in await store.key_history()] == [
            (one.id, "acme", "someone", "created"),
            (other.id, "other", "another", "created"),
            (one.id, "acme", "another", "revoked"),
        ]

    run(scenario)


def test_the_audit_trail_can_only_grow(database_url: str) -> None:
    """The database refuses every statement that changes or deletes a line of it, whoever sends it."""

    async def scenario() -> None:
        payment = pending()
        await store.claim(payment, None, 10)
        await store.settle(payment, Status.DECLINED, "someone", "a note")
        await store.add_api_key(api_key(), "someone")
        await store.move_bank("https://old.example:443", "https://new.example:443", "someone")

    store.configure(database_url, fingerprint_key=FINGERPRINT_KEY)
    run(scenario)
    engine = sa.create_engine(database_url)
    statements = ["UPDATE {} SET id = id + 1", "DELETE FROM {}"]
    if engine.dialect.name == "sqlite":
        statements.append("INSERT OR REPLACE INTO {0} SELECT * FROM {0}")
    else:
        statements.append("TRUNCATE {}")
    for table in ("changes", "api_key_changes", "bank_moves"):
        for statement in statements:
            with pytest.raises(sa.exc.DBAPIError, match="the audit trail can only grow"), engine.begin() as connection:
                connection.exec_driver_sql(statement.format(table))
    engine.dispose()

    async def unchanged() -> None:
        (payment,) = await store.search()
        assert [line.changed_by for line in await store.history(payment.id)] == ["someone"]
        assert [line.changed_by for line in await store.key_history()] == ["someone"]
        assert await store.is_same_bank("https://old.example:443", "https://new.example:443")

    run(unchanged)


@pytest.mark.usefixtures("url")
def test_each_line_of_the_audit_trail_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is recorded, even when the caller no longer waits for that; what is refused is not logged."""
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr(logs, "audit", logged.append)
    payment, other = pending(), pending()

    async def scenario() -> None:
        await store.claim(payment, None, 10)
        await store.claim(other, None, 10)
        await store.settle(payment, Status.AUTHORIZED, "someone", "a note", code="C1")
        with pytest.raises(NotInStatus):
            await store.settle(payment, Status.DECLINED, "someone")
        with pytest.raises(NotInStatus):
            await store.correct(payment.id, "someone")
        impatient = asyncio.create_task(store.settle(other, Status.DECLINED, "someone"))
        await asyncio.sleep(0)
        impatient.cancel()
        async with asyncio.timeout(10):
            while await store.find(other.id) == other:  # noqa: ASYNC110  # another process may record it
                await asyncio.sleep(0.01)
        await store.correct(other.id, "someone", code="C2")
        await store.move_bank("https://old.example:443", "https://new.example:443", "someone")
        await store.add_api_key(api_key(), "someone")
        await store.revoke_api_key(api_key().id, "someone")
        await store.revoke_api_key(api_key().id, "someone")
        changes = [*await store.history(payment.id), *await store.history(other.id)]
        created, revoked = await store.key_history()
        assert [Change(**line) for line in logged[:3]] == changes
        assert [(change.to_status, change.authorization_code) for change in changes] == [
            (Status.AUTHORIZED, "C1"),
            (Status.DECLINED, ""),
            (Status.AUTHORIZED, "C2"),
        ]
        move = {"old": "https://old.example:443", "new": "https://new.example:443", "moved_by": "someone"}
        assert move.items() <= logged[3].items()
        assert [KeyChange(**line) for line in logged[4:]] == [created, revoked]

    run(scenario)


@pytest.mark.usefixtures("url")
def test_unresolved_payments_are_counted() -> None:
    """Payments with a running request do not count; the oldest one's time is known."""

    async def scenario() -> None:
        old = pending(created_at=datetime.now(UTC) - timedelta(hours=1))
        for payment, work_s in ((old, 0), (pending(), 0), (pending(), 60)):
            await store.claim(payment, None, work_s)
        stats = await store.unresolved_stats()
        assert stats == UnresolvedStats(count=2, oldest_created_at=old.created_at)
        await store.settle(old, Status.DECLINED, "test")
        assert (await store.unresolved_stats()).count == 1
        await store.ping()

    run(scenario)


def test_sqlite_files_belong_to_their_owner_alone(tmp_path: Any) -> None:
    """New files and those of earlier versions are made 0600, with the files that SQLite keeps beside them."""
    older = tmp_path / "older.db"
    with older_store.made(f"sqlite:///{older}", "0002"):
        pass
    older.chmod(0o644)
    umask = os.umask(0)
    try:
        for file in (older, tmp_path / "new.db"):
            store.configure(f"sqlite:///{file}", fingerprint_key=FINGERPRINT_KEY)
            run(store.ping)
            modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in tmp_path.glob(f"{file.name}*")}
            assert modes == dict.fromkeys((file.name, f"{file.name}-wal", f"{file.name}-shm"), 0o600)
            store.close()
    finally:
        os.umask(umask)


def test_a_backup_of_a_live_sqlite_is_consistent_and_can_be_restored(tmp_path: Any) -> None:
    """It has all that was committed when it began, is private, and replaces no file."""
    url, copy = f"sqlite:///{tmp_path}/payments.db", tmp_path / "copy.db"
    store.configure(url, fingerprint_key=FINGERPRINT_KEY)
    before, after = pending(), pending()

    async def write_during_the_backup() -> None:
        await store.claim(before, key(), 10)
        writes = [asyncio.create_task(store.claim(pending(), None, 10)) for _ in range(100)]
        await writes[0]
        assert await asyncio.to_thread(store.back_up, url, copy) is None
        await asyncio.gather(*writes)
        await store.claim(after, None, 10)

    run(write_during_the_backup)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.glob("copy*")] == ["copy.db"]
    with pytest.raises(store.BackupFailed, match="exists already"):
        store.back_up(url, copy)
    with pytest.raises(store.BackupFailed, match="can't be created"):
        store.back_up(url, tmp_path / "missing" / "copy.db")
    with pytest.raises(store.BackupFailed, match="can't be copied"):
        store.back_up(f"sqlite:///{tmp_path}/missing.db", tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()
    store.configure(f"sqlite:///{copy}", fingerprint_key=FINGERPRINT_KEY)

    async def restored() -> None:
        assert await store.find(before.id) == before
        assert await store.find(after.id) is None
        assert await store.claim(pending(), key(), 10) is not None, "the idempotency key is known"

    run(restored)


def test_a_dump_of_postgresql_can_be_restored(postgresql: Postgres, tmp_path: Any) -> None:
    """The commands that `backup` prints work; the restored audit trail can only grow, too."""
    url, restored_url = postgresql.new_database(), postgresql.new_database()
    store.configure(url, fingerprint_key=FINGERPRINT_KEY)
    payment = pending()

    async def pay() -> None:
        await store.claim(payment, key(), 10)
        await store.settle(payment, Status.AUTHORIZED, "someone")

    run(pay)
    commands = store.back_up(url.replace("postgres:", "postgres:secret"), tmp_path / "dump")
    assert commands is not None
    assert "secret" not in "".join(commands)
    for command in commands:
        program, *arguments = shlex.split(command.replace("NEW_DATABASE", str(sa.make_url(restored_url).database)))
        subprocess.run([postgresql.programs / program, *arguments], check=True, timeout=60)
    store.configure(restored_url, fingerprint_key=FINGERPRINT_KEY)

    async def restored() -> None:
        assert await store.find(payment.id) == replace(payment, status=Status.AUTHORIZED)
        assert len(await store.history(payment.id)) == 1

    run(restored)
    engine = sa.create_engine(restored_url)
    with pytest.raises(sa.exc.DBAPIError, match="can only grow"), engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM changes")
    engine.dispose()


def test_sqlite_commits_durably(tmp_path: Any) -> None:
    """SQLite uses a write-ahead log, calls fsync for every commit, and overwrites what is deleted."""
    from storage.sql import Sql  # noqa: PLC0415

    opened = Sql(f"sqlite:///{tmp_path}/payments.db", connections=1, key_checks=["c"])
    with opened._engine.connect() as connection:  # pragmas are a connection's own
        names = ("journal_mode", "synchronous", "secure_delete")
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]
    opened.close()
    assert pragmas == ["wal", 2, 1]


def test_a_locked_sqlite_is_unavailable_within_seconds(tmp_path: Any) -> None:
    """While another process keeps the lock, a claim raises StoreUnavailable after about 5 s."""
    url = f"sqlite:///{tmp_path}/payments.db"
    store.configure(url, fingerprint_key=FINGERPRINT_KEY)
    other = sqlite3.connect(tmp_path / "payments.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()

    async def scenario() -> None:
        with pytest.raises(StoreUnavailable):
            await store.claim(pending(), None, 10)

    run(scenario)
    assert time.monotonic() - started < 7
    other.rollback()
    other.close()


def test_a_postgresql_that_stops_is_unavailable_until_it_runs_again(own_postgresql: Postgres) -> None:
    """The first call afterwards succeeds: a stale connection is noticed before it is used."""
    store.configure(own_postgresql.new_database(), fingerprint_key=FINGERPRINT_KEY)

    async def claim() -> None:
        assert isinstance(await store.claim(pending(), None, 10), Payment)

    run(claim)
    own_postgresql.stop()
    try:
        with pytest.raises(StoreUnavailable) as caught:
            run(claim)
        assert "postgres" not in str(caught.value)
    finally:
        own_postgresql.start()
    run(claim)


def test_an_unreachable_database_stops_the_start() -> None:
    """The error comes within seconds, and not with the first payment."""
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.configure("postgresql+psycopg://nobody@127.0.0.1:1/none", fingerprint_key=FINGERPRINT_KEY)
    assert time.monotonic() - started < 5


def test_what_the_resolver_asks_memory_costs_by_the_unresolved_payments_only() -> None:
    """With a hundred times as many settled payments it takes about the same CPU time."""

    def cost(settled: int) -> float:
        """Return the CPU seconds of what the resolver asks each second, beside this many settled payments."""
        memory = Memory()
        payments = [pending() for _ in range(settled)]
        for payment in payments:
            memory.claim(payment, None, 10)
            memory.change(_settling(payment), "10000")
        memory.claim(pending(), None, -1)
        timings = []
        for _ in range(20):
            started = time.process_time()
            assert memory.unresolved_stats().count == 1
            assert len(memory.list_unresolved()) == 1
            assert len(memory.take_due(4, lambda _: -1, "unknown")) == 1
            timings.append(time.process_time() - started)
        return min(timings)

    assert cost(20_000) < 20 * cost(200)


def _settling(payment: Payment) -> Change:
    return Change(
        payment_id=payment.id,
        changed_at=payment.created_at,
        changed_by="someone",
        from_status=Status.PENDING,
        to_status=Status.AUTHORIZED,
        note="",
    )
