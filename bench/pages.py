"""Measure what a page of payments costs in databases with 1,000 and with 1,000,000 payments of one merchant.

Run it as `python -m bench.pages`. It needs no load generator: it calls the store as a gateway does.
"""

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import sqlalchemy as sa

import store
from store import State, Status, Wanted
from tests import postgres
from tests.support import pending_payment

SIZES: Final = (1_000, 1_000_000)
PAGES: Final = 300
PAYMENTS_OF_A_REFERENCE: Final = 20
START: Final = datetime(2026, 1, 1, tzinfo=UTC)

# Copies of the first payment, a second apart.
_NUMBERS: Final = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)",
    "postgresql": "WITH numbers AS (SELECT n FROM generate_series(1, :count) AS n)",
}
_VALUES: Final = {
    "sqlite": {
        "id": "lower(hex(randomblob(16)))",
        "attempt": "lower(hex(randomblob(16)))",
        "created_at": "strftime('%Y-%m-%d %H:%M:%S.000000', :start, n || ' seconds')",
    },
    "postgresql": {
        "id": "gen_random_uuid()",
        "attempt": "gen_random_uuid()",
        "created_at": "CAST(:start AS timestamp) + n * interval '1 second'",
    },
}


def fill(url: str, first: UUID, count: int) -> None:
    """Copy the first payment `count` times."""
    engine = sa.create_engine(url)
    kind = engine.dialect.name
    references = max(1, count // PAYMENTS_OF_A_REFERENCE)
    changed = {**_VALUES[kind], "reference": f"'order ' || (n % {references})"}
    names = [column["name"] for column in sa.inspect(engine).get_columns("payments")]
    select = ", ".join(changed.get(name, f"p.{name}") for name in names)
    statement = f"INSERT INTO payments ({', '.join(names)}) {_NUMBERS[kind]} SELECT {select} FROM numbers, payments p WHERE p.id = :first"  # noqa: S608, E501
    columns = [sa.bindparam("first", first, sa.Uuid), sa.bindparam("start", START.replace(tzinfo=None).isoformat(" "))]
    with engine.begin() as connection:
        connection.execute(sa.text(statement).bindparams(*columns, count=count))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    engine.dispose()


def queries(count: int) -> dict[str, Callable[[], Wanted]]:
    """Return what is measured, by name: functions that return what one page is asked for."""
    chosen = random.Random(1)  # noqa: S311  # no secret

    def anywhere() -> tuple[datetime, UUID]:
        return START + timedelta(seconds=chosen.randrange(count // 2, count)), UUID(int=chosen.getrandbits(128))

    def reference() -> str:
        return f"order {chosen.randrange(max(1, count // PAYMENTS_OF_A_REFERENCE))}"

    return {
        "the newest 20": lambda: Wanted(merchant="acme", limit=20),
        "20 after a cursor": lambda: Wanted(merchant="acme", limit=20, after=anywhere()),
        "20 of a reference": lambda: Wanted(merchant="acme", limit=20, reference=reference()),
        "1,000 without the status": lambda: Wanted(merchant="acme", limit=20, state=State.REFUNDED),
    }


async def measure(url: str, count: int) -> dict[str, tuple[float, float]]:
    """Return the median time of a page and the CPU time of this process for one, in microseconds, by query."""
    store.configure(url, fingerprint_key=bytes(32))
    first = pending_payment(created_at=START)
    await store.claim(first, None, 10)
    await store.settle(first, Status.AUTHORIZED, "bench")
    fill(url, first.id, count - 1)
    results = {}
    for name, wanted in queries(count).items():
        for _ in range(PAGES // 10):
            await store.list_payments(wanted())
        times, cpu = [], time.process_time()
        for _ in range(PAGES):
            began = time.perf_counter()
            await store.list_payments(wanted())
            times.append(time.perf_counter() - began)
        results[name] = statistics.median(times) * 1e6, (time.process_time() - cpu) / PAGES * 1e6
    store.close()
    return results


def main() -> None:
    """Print the table of docs/performance.md."""
    print("| database | page | " + " | ".join(f"{count:,} payments | CPU" for count in SIZES) + " |")
    print("| --- | --- |" + " ---: |" * 2 * len(SIZES))
    with postgres.running() as server, tempfile.TemporaryDirectory() as folder:
        urls = {
            "SQLite": lambda count: f"sqlite:///{Path(folder, f'{count}.db')}",
            "PostgreSQL": lambda _: server.new_database(),
        }
        for database, url in urls.items():
            results = [asyncio.run(measure(url(count), count)) for count in SIZES]
            for name in results[0]:
                cells = [f"{figure:.0f} µs" for result in results for figure in result[name]]
                print(f"| {database} | {name} | {' | '.join(cells)} |", flush=True)
    print(f"{os.cpu_count()} cores, {PAGES} pages each")


if __name__ == "__main__":
    main()
