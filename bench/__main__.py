"""`make bench`: measure what a payment costs in this gateway and in other stacks.

All contenders run at the same time and take turns under load: each has a few seconds in every round. A machine that
is slower for a while is therefore slower for all of them. The median of the rounds counts.
"""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import bank, contender, growth, load, report
from bench.contender import AIOHTTP, CONNEXION, FLOOR, GATEWAY, HTTPX, HTTPX_NAIVE, LOGGING, Contender, Server
from bench.process import cpu_s, memory_mib, tree_cpu_s
from tests import postgres

ALONE = [GATEWAY, LOGGING, CONNEXION, HTTPX_NAIVE, HTTPX, AIOHTTP, FLOOR]

# Those on PostgreSQL, in whose processes a part of the work is done.
ON_POSTGRESQL = [contender.on("PostgreSQL", "").name, contender.ASYNCPG, contender.SQLALCHEMY]

# For the latency: payments per second that every contender can carry.
LATENCY_RATE = 30


@dataclass(frozen=True, slots=True)
class Extent:
    """How much to measure.

    rounds, seconds, connections: of the throughput; latency_s: seconds at `LATENCY_RATE`; many, few: payments after
    which the growth of memory is read, for the fast contenders that keep payments in memory and for the others;
    sizes: of the databases in which growth is measured.
    """

    rounds: int
    seconds: int
    connections: tuple[int, ...]
    latency_s: int
    many: int
    few: int
    sizes: Mapping[str, Sequence[int]]


FULL = Extent(rounds=3, seconds=2, connections=(1, 64, 256), latency_s=15, many=50_000, few=2_000, sizes=growth.SIZES)
QUICK = Extent(rounds=1, seconds=1, connections=(16, 64), latency_s=1, many=500, few=50, sizes=growth.QUICK_SIZES)


def main() -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare what a payment costs.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="check in five minutes that the bench works; print the tables, write no file",
    )
    quick = parser.parse_args().quick
    if missing := [name for name in ("wrk", "nginx") if not shutil.which(name)] or not bank.MODULE.exists():
        sys.exit(f"missing {missing}: apt-get install wrk libnginx-mod-http-echo")
    began = time.monotonic()
    results = json.dumps(measure(QUICK if quick else FULL), indent=1) + "\n"
    if quick:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            (Path(folder) / "results.json").write_text(results)
            report.write(Path(folder))
            print((Path(folder) / "results.md").read_text())
    else:
        report.RESULTS.mkdir(exist_ok=True)
        (report.RESULTS / "results.json").write_text(results)
        report.write(report.RESULTS)
    show(f"finished after {(time.monotonic() - began) / 60:.1f} minutes")


def measure(extent: Extent) -> dict[str, Any]:
    """Return all results."""
    results: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": report.machine(), "posts": {}}
    with bank.running() as bank_url, postgres.running() as server, stores(server) as (on_databases, workers):
        contenders = [*ALONE, *on_databases]
        with all_running(contenders, f"{bank_url}/50") as servers:
            results["starts"] = {name: server.started_s for name, server in servers.items()}
            results["memory"] = {name: {"at rest": memory_mib(server.pid)} for name, server in servers.items()}
            results["gets"] = in_turn(servers, extent, post=False, connections=extent.connections, what="GET")
            results["latency"] = latencies(servers, extent, bank_ms=50)
            posts = results["posts"]
            posts[50] = in_turn(servers, extent, post=True, connections=extent.connections, what="POST, bank 50 ms")
            on_server = {name: each for name, each in servers.items() if name in ON_POSTGRESQL}
            results["postgresql"] = {
                name: {what: of_postgresql(each, extent, server, post=what == "POST") for what in ("POST", "GET")}
                for name, each in on_server.items()
            }
        for ms in (0, 200):
            with all_running(contenders, f"{bank_url}/{ms}") as servers:
                posts[ms] = in_turn(servers, extent, post=True, connections=(64,), what=f"POST, bank {ms} ms")
        measure_memory(results["memory"], contenders, extent, f"{bank_url}/0")
        results["in flight"] = in_flight(extent, f"{bank_url}/1000")
        with all_running(workers, f"{bank_url}/50") as servers:
            results["workers"] = in_turn(servers, extent, post=True, connections=(64,), what="one and two workers")
        show("growth")
        results["growth"] = growth.measure(extent.sizes, bank_url, extent.rounds)
    return results


@contextlib.contextmanager
def stores(server: postgres.Postgres) -> Iterator[tuple[list[Contender], list[Contender]]]:
    """Yield the stacks with a database; and the gateway with one and with two workers on PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
        sqlite = contender.on("SQLite", f"sqlite:///{folder}/payments.db")
        shared = server.new_database()
        workers = [contender.on(f"{number} workers", shared, WORKERS=str(number)) for number in (1, 2)]
        yield (
            [
                sqlite,
                contender.on("PostgreSQL", server.new_database()),
                *contender.durable_peers(server),
            ],
            workers,
        )


@contextlib.contextmanager
def all_running(contenders: Sequence[Contender], bank_url: str) -> Iterator[dict[str, Server]]:
    """Start the contenders one after the other."""
    with contextlib.ExitStack() as stack:
        yield {each.name: stack.enter_context(contender.running(each, bank_url)) for each in contenders}


def in_turn(
    servers: dict[str, Server], extent: Extent, *, post: bool, connections: Sequence[int], what: str
) -> dict[str, Any]:
    """Return each server's requests per second and CPU per request by number of connections: medians of the rounds."""
    measured: dict[str, dict[int, list[tuple[float, float]]]] = {
        name: {number: [] for number in connections} for name in servers
    }
    for server in servers.values():  # warm up: the first requests connect and fill caches
        load.run(server.payments if post else server.payment, post=post, connections=16, seconds=1)
    for round_ in range(extent.rounds):
        for number in connections:
            for name, server in servers.items():
                show(f"{what}, round {round_ + 1} of {extent.rounds}, {number} connections: {name}")
                measured[name][number].append(under_load(server, extent, post=post, connections=number))
    return {
        name: {
            number: {
                "per_s": median(per_s for per_s, _ in runs),
                "cpu_us": median(cpu_us for _, cpu_us in runs),
            }
            for number, runs in by_number.items()
        }
        for name, by_number in measured.items()
    }


def under_load(server: Server, extent: Extent, *, post: bool, connections: int) -> tuple[float, float]:
    """Return the answered requests per second, and the CPU of each in microseconds."""
    url, seconds = server.payments if post else server.payment, extent.seconds
    while True:
        before = cpu_s(server.pid)
        seen = load.run(url, post=post, connections=connections, seconds=seconds)
        answered = seen.requests - seen.failed
        if answered > connections:
            return seen.per_s * answered / seen.requests, (cpu_s(server.pid) - before) / answered * 1e6
        seconds *= 3  # the slowest contender answers too few requests in the usual time


def of_postgresql(server: Server, extent: Extent, database: postgres.Postgres, *, post: bool) -> dict[str, float]:
    """Return what a request costs PostgreSQL at 64 connections: its CPU in µs, and the transactions that write."""
    url, seconds = server.payments if post else server.payment, 3 * extent.seconds
    used_s, written = tree_cpu_s(database.pid), database.written_transactions()
    seen = load.run(url, post=post, connections=64, seconds=seconds)
    return {
        "cpu_us": (tree_cpu_s(database.pid) - used_s) / seen.requests * 1e6,
        "transactions": (database.written_transactions() - written) / seen.requests,
    }


def latencies(servers: dict[str, Server], extent: Extent, *, bank_ms: int) -> dict[str, Any]:
    """Return the milliseconds that each server adds to the bank's latency, at the same moderate rate for all."""
    added = {}
    for name, server in servers.items():
        show(f"latency at {LATENCY_RATE} per second: {name}")
        seen = load.run(server.payments, post=True, connections=8, seconds=extent.latency_s, per_s=LATENCY_RATE)
        without = 0 if name == FLOOR.name else bank_ms
        added[name] = {
            "p50": seen.p50_ms - without,
            "p99": seen.p99_ms - without,
            "p99.9": seen.p999_ms - without,
            "per_s": seen.per_s,
        }
    return added


def measure_memory(memory: dict[str, Any], contenders: Sequence[Contender], extent: Extent, bank_url: str) -> None:
    """Measure how much memory payments take. All run at the same time, because no time is measured."""

    def fill(each: Contender) -> None:
        with contender.running(each, bank_url) as server:
            wanted, made = extent.many if each in (GATEWAY, LOGGING, AIOHTTP, FLOOR) else extent.few, 1
            before = memory_mib(server.pid)
            while made < wanted:
                made += load.run(server.payments, post=True, connections=16, seconds=5).requests
            memory[each.name] |= {"payments": made, "grown": memory_mib(server.pid) - before}
            show(f"memory after {made} payments: {each.name}")

    with ThreadPoolExecutor(len(contenders)) as pool:
        list(pool.map(fill, contenders))


def in_flight(extent: Extent, bank_url: str) -> dict[str, float]:
    """Measure 500 payments at once in one process, at a bank that answers after a second."""
    many = Contender(GATEWAY.name, settings={**GATEWAY.settings, "BANK_CONCURRENCY": "500"})
    with contender.running(many, bank_url) as server:
        show("500 payments at once, bank 1000 ms")
        load.run(server.payments, post=True, connections=500, seconds=3)
        before = cpu_s(server.pid)
        seen = load.run(server.payments, post=True, connections=500, seconds=10 * extent.seconds)
        spent = cpu_s(server.pid) - before
    return {"per_s": seen.per_s, "failed": seen.failed, "p99_ms": seen.p99_ms, "cpu_us": spent / seen.requests * 1e6}


def show(what: str) -> None:
    """Show progress on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
