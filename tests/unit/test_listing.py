"""Lists of a merchant's payments: memory, SQLite and PostgreSQL give the same pages."""

import asyncio
import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

import store
from storage import memory, tables
from storage.listing import LOOKED_AT
from store import IdempotencyKey, Page, Payment, State, Status, Wanted
from tests.support import pending_payment, store_url

START = datetime(2026, 11, 22, 10, 15, 30, 123456, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite", "postgresql"], autouse=True)
def url(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[str]:
    url = store_url(request.param, tmp_path, request)
    store.configure(url, fingerprint_key=bytes(32))
    yield url
    store.close()


async def record(count: int, **changes: Any) -> list[Payment]:
    """Record PENDING payments of acme, a second apart, and return them, newest first."""
    made = [
        pending_payment(**{"merchant": "acme", "created_at": START + timedelta(seconds=second), **changes})
        for second in range(count)
    ]
    for payment in made:
        await store.claim(payment, None, 10)
    return made[::-1]


async def all_pages(**changes: Any) -> list[list[Payment]]:
    """Return the pages of a list, one after another."""
    pages, wanted = [], Wanted(**{"merchant": "acme", "limit": 3, **changes})
    while True:
        page = await store.list_payments(wanted)
        pages.append(page.payments)
        if page.next is None:
            return pages
        wanted = replace(wanted, after=page.next)


def test_pages_are_newest_first_and_complete() -> None:
    """Payments of the same time are in the order of their ids. A page that ends the list has no next one."""

    async def scenario() -> None:
        assert await store.list_payments(Wanted(merchant="acme", limit=3)) == Page([], None)
        made = await record(4)
        same_time = [pending_payment(merchant="acme", created_at=START, id=UUID(int=number)) for number in range(2)]
        for payment in same_time:
            await store.claim(payment, None, 10)
        await record(3, merchant="other")
        oldest = sorted([made.pop(), *same_time], key=lambda payment: payment.id, reverse=True)
        assert await all_pages() == [made, oldest]
        assert [len(page) for page in await all_pages(limit=4)] == [4, 2]
        assert await all_pages(merchant="nobody") == [[]]

    asyncio.run(scenario())


def test_filters() -> None:
    """The first time is included, the last one is not."""

    async def scenario() -> None:
        made = await record(5)
        other = (await record(1, reference="order 7", created_at=START - timedelta(days=1)))[0]
        assert await all_pages(reference="order 7") == [[other]]
        assert await all_pages(reference="order 8") == [[]]
        from_second, to_fourth = START + timedelta(seconds=1), START + timedelta(seconds=3)
        assert await all_pages(created_from=from_second, created_to=to_fourth) == [made[2:4]]
        assert await all_pages(created_from=from_second, created_to=from_second) == [[]]
        settled = await store.settle(made[2], Status.DECLINED, "someone")
        assert await all_pages(state=State.DECLINED) == [[settled]]

    asyncio.run(scenario())


def test_any_place_is_one_to_go_on_from() -> None:
    async def scenario() -> None:
        made = await record(2)
        for after, expected in (
            ((datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1)), made),
            ((made[0].created_at, UUID(int=0)), made[1:]),
            ((made[0].created_at - timedelta(microseconds=1), uuid4()), made[1:]),
            ((datetime.min.replace(tzinfo=UTC), UUID(int=0)), []),
        ):
            assert await store.list_payments(Wanted(merchant="acme", limit=3, after=after)) == Page(expected, None)

    asyncio.run(scenario())


def test_what_is_released_dropped_or_erased_is_not_listed() -> None:
    """A payment that is claimed again is, once, at its new time."""

    async def scenario() -> None:
        released, dropped, erased, kept = await record(4)
        key = IdempotencyKey(digest="k", fingerprint="f")
        with_key = replace(released, id=uuid4())
        await store.claim(with_key, key, 10)
        await store.release(with_key.id, with_key.id)
        await store.release(released.id, released.id)
        await store.drop(dropped.id, dropped.id)
        await store.settle(erased, Status.DECLINED, "someone")
        await store.erase(erased.id, "someone")
        assert await all_pages() == [[kept]]
        again = replace(with_key, id=uuid4(), created_at=START + timedelta(days=1))
        claimed = await store.claim(again, key, 10)
        assert claimed == replace(again, id=with_key.id)
        assert await all_pages() == [[claimed, kept]]

    asyncio.run(scenario())


def test_a_state_looks_at_a_thousand_payments_and_then_returns_a_short_page(url: str) -> None:
    """Its place leads on, so nothing is missed."""

    async def scenario() -> None:
        await fill(url, LOOKED_AT * 2 + 500)
        oldest = await record(2, created_at=START - timedelta(days=1))
        for payment in oldest:
            await store.settle(payment, Status.DECLINED, "someone")
        pages = await all_pages(state=State.DECLINED, limit=1)
        assert [len(page) for page in pages] in ([0, 0, 1, 1], [0, 0, 1, 1, 0])
        assert {payment.id for page in pages for payment in page} == {payment.id for payment in oldest}
        assert [len(page) for page in await all_pages(state=State.AUTHORIZED)] == [0, 0, 0]

    assert memory.LOOKED_AT == LOOKED_AT
    asyncio.run(scenario())


async def fill(url: str, count: int, others: tuple[str, ...] = ()) -> None:
    """Record PENDING payments of acme, and of other merchants, in one transaction where there are any."""
    if url == "memory:":
        await record(count)
        return
    (first,) = await record(1)
    columns = [column for column in tables.payments.c if column.name not in {"id", "created_at"}]
    copied = sa.select(tables.payments).where(tables.payments.c.id == first.id)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        row = connection.execute(copied).one()
        values = {column.name: getattr(row, column.name) for column in columns}
        times = (START + timedelta(milliseconds=number) for number in range(1, count))
        rows = [
            {**values, "merchant": merchant, "id": uuid4(), "created_at": time, "attempt": uuid4()}
            for time in times
            for merchant in ("acme", *others)
        ]
        connection.execute(sa.insert(tables.payments), rows)
    engine.dispose()


def test_pages_while_payments_are_made_have_each_payment_that_was_there_once() -> None:
    async def scenario() -> None:
        there = {payment.id for payment in await record(100)}
        ended = threading.Event()

        async def insert() -> None:
            for number in itertools.count():
                if ended.is_set():
                    return
                await record(1, created_at=START + timedelta(seconds=number % 120, milliseconds=500))
                await asyncio.sleep(0)

        async def page_through() -> None:
            for state in (None, State.PENDING):
                seen = [payment.id for page in await all_pages(limit=7, state=state) for payment in page]
                assert len(seen) == len(set(seen))
                assert there <= set(seen)
            ended.set()

        await asyncio.gather(insert(), page_through())

    asyncio.run(scenario())


def test_each_state_is_found(url: str) -> None:
    """The condition in SQL is what `Payment.state` computes."""
    amounts = [
        values
        for values in itertools.product(range(4), repeat=3)
        if values[0] + values[1] <= 3 and values[2] <= values[0]
    ]

    async def scenario() -> None:
        for second, (captured, voided, refunded) in enumerate(amounts):
            payment = pending_payment(merchant="acme", amount=3, created_at=START + timedelta(seconds=second))
            await store.claim(payment, None, 10)
            await store.settle(payment, Status.AUTHORIZED, "someone")
            await set_amounts(url, payment.id, captured=captured, voided=voided, refunded=refunded)
        declined = (await record(1))[0]
        await store.settle(declined, Status.DECLINED, "someone")
        await record(1)
        found = {state: (await all_pages(state=state, limit=100))[0] for state in State}
        assert {state for state, payments in found.items() if payments} == set(State)
        assert sum(map(len, found.values())) == len(amounts) + 2
        assert all(payment.state() is state for state, payments in found.items() for payment in payments)
        assert {state: await store.search(state) for state in State} == found

    asyncio.run(scenario())


async def set_amounts(url: str, payment_id: UUID, **amounts: int) -> None:
    backend: Any = store._opened().backend
    if url == "memory:":
        backend.replace(replace(backend.find(payment_id), **amounts))
        return
    with backend._engine.begin() as connection:
        connection.execute(sa.update(tables.payments).where(tables.payments.c.id == payment_id).values(amounts))


def test_an_index_has_each_page_in_its_order(url: str) -> None:
    """Neither database sorts, or looks at another merchant's payments."""
    if url == "memory:":
        pytest.skip("memory has no indexes")
    backend: Any = store._opened().backend
    explained: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "payments" in statement:
            how = "EXPLAIN QUERY PLAN" if url.startswith("sqlite") else "EXPLAIN"
            cursor = connection.connection.cursor()
            cursor.execute(f"{how} {statement}", parameters)
            explained.append("\n".join(str(line[-1]) for line in cursor.fetchall()))
            cursor.close()

    async def scenario() -> None:
        await fill(url, LOOKED_AT + 100, ("b", "c", "d"))
        with backend._engine.begin() as connection:
            connection.execute(sa.text("ANALYZE"))
        sa.event.listen(backend._engine, "before_cursor_execute", explain)
        after = START + timedelta(seconds=1), uuid4()
        for wanted in (Wanted(merchant="acme", limit=20), Wanted(merchant="acme", limit=20, after=after)):
            await store.list_payments(wanted)
            await store.list_payments(replace(wanted, reference="order 7"))
            await store.list_payments(replace(wanted, state=State.CAPTURED))

    asyncio.run(scenario())
    assert len(explained) == 8
    for plan in explained:
        assert "payments_of_merchant" in plan or "payments_of_reference" in plan
        assert "SORT" not in plan.upper().replace("PRESORTED", "")
        assert "TEMP B-TREE" not in plan
