"""Which payments are due for a look-up, and which were sent to other banks, among many that are in doubt."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

import store
from store import Payment
from tests.support import pending_payment, store_url

HERE, ELSEWHERE = "http://here.example", "http://elsewhere.example"


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    url = store_url(request.param, tmp_path, request)
    store.configure(url, fingerprint_key=bytes(32))
    yield url
    store.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


async def unresolved(count: int, bank: str = HERE) -> list[Payment]:
    """Record payments in doubt, a second apart, the oldest first."""
    start = datetime.now(UTC) - timedelta(hours=1)
    payments = [pending_payment(bank=bank, created_at=start + timedelta(seconds=number)) for number in range(count)]
    await asyncio.gather(*(store.claim(payment, None, 60) for payment in payments))
    for payment in payments:
        await store.mark_unresolved(payment.id, 0)
    return payments


@pytest.mark.usefixtures("url")
def test_payments_of_other_banks_are_listed_up_to_a_limit() -> None:
    """Those of the configured bank are not, and neither are those whose bank is not recorded."""

    async def scenario() -> None:
        here, there = await unresolved(3), await unresolved(4, ELSEWHERE)
        await unresolved(2, store.UNKNOWN_BANK)
        assert await store.list_unresolved(HERE) == there
        assert await store.list_unresolved(HERE, 2) == there[:2]
        assert await store.list_unresolved(ELSEWHERE) == here
        assert len(await store.list_unresolved()) == 9
        await store.move_bank(ELSEWHERE, HERE, "operator")
        assert await store.list_unresolved(HERE) == []

    run(scenario)


@pytest.mark.usefixtures("url")
def test_those_that_were_never_looked_up_are_taken_first() -> None:
    """Although others have been due for longer."""

    async def scenario() -> None:
        looked_up = await unresolved(20)
        assert len(await store.take_due(20, lambda _: 0.0)) == 20
        new = await unresolved(3)
        taken = await store.take_due(5, lambda _: 60.0)
        assert {payment.id for payment in taken[:3]} == {payment.id for payment in new}
        assert {payment.id for payment in taken[3:]} <= {payment.id for payment in looked_up}
        assert len(taken) == 5
        assert len(await store.take_due(50, lambda _: 60.0)) == 18

    run(scenario)


def test_two_gateways_take_different_payments(database_url: str) -> None:
    """At once, from two processes' stores, each due payment is taken by one of them."""
    from storage.sql import Sql  # noqa: PLC0415

    store.configure(database_url, fingerprint_key=bytes(32))
    payments = asyncio.run(unresolved(30))
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        check = connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'key_check'").scalar_one()
    engine.dispose()
    opened = [Sql(database_url, connections=2, key_checks=[check], migrate=False) for _ in range(2)]

    async def scenario() -> None:
        taking = [asyncio.to_thread(each.take_due, 8, lambda _: 60.0) for each in opened * 4]
        taken = [payment.id for found in await asyncio.gather(*taking) for payment in found]
        assert len(taken) == len(set(taken))
        while found := await store.take_due(8, lambda _: 60.0):
            taken += [payment.id for payment in found]
        assert sorted(taken) == sorted(payment.id for payment in payments)

    run(scenario)
    for each in opened:
        each.close()
    store.close()
