"""`make bench`: what a payment costs here, and what it costs in what else one would build.

All contenders run at once, and take turns: in each round each is under load for a few seconds, so that a
machine that is slower for a while is so for all of them. The median of the rounds counts.
"""

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from bench import bank, contender, load, report
from bench.contender import AIOHTTP, CONNEXION, FLOOR, GATEWAY, HTTPX, HTTPX_NAIVE, LOGGING, Contender, Server
from bench.process import cpu_s, memory_mib
from tests import postgres

RESULTS = Path(__file__).parent / "results"

CONNECTIONS = (1, 16, 64, 256)
ROUNDS = 3
SECONDS = 2.0

# For the latency: a rate that every one of them can carry.
PER_S = 30
LATENCY_S = 25.0

# What is looked at is the memory: the fast ones that keep payments there get as many, the others would take an hour.
MANY, FEW = 100_000, 5_000


def main() -> None:
    """Measure everything, and write bench/results."""
    if missing := [name for name in ("wrk", "nginx") if not shutil.which(name)] or not bank.MODULE.exists():
        sys.exit(f"missing {missing}: apt-get install wrk libnginx-mod-http-echo")
    began = time.monotonic()
    with bank.running() as bank_url, stores() as (on_databases, workers):
        alone = [GATEWAY, LOGGING, CONNEXION, HTTPX_NAIVE, HTTPX, AIOHTTP, FLOOR]
        results: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": report.machine(), "posts": {}}
        for ms in (50, 0, 200):
            with all_running([*alone, *on_databases], f"{bank_url}/{ms}") as servers:
                if ms == 50:
                    results["starts"] = {name: server.started_s for name, server in servers.items()}
                    results["memory"] = {name: {"at rest": memory_mib(server.pid)} for name, server in servers.items()}
                    results["gets"] = in_turn(servers, post=False, connections=CONNECTIONS, what="GET")
                    results["latency"] = latencies(servers, ms)
                connections = CONNECTIONS if ms == 50 else (64,)
                results["posts"][ms] = in_turn(servers, post=True, connections=connections, what=f"POST, bank {ms} ms")
        remember(results["memory"], [*alone, *on_databases], f"{bank_url}/0")
        results["in flight"] = in_flight(f"{bank_url}/1000")
        with all_running(workers, f"{bank_url}/50") as servers:
            results["workers"] = in_turn(servers, post=True, connections=(64,), what="one worker and two")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report.write(RESULTS)
    say(f"bench/results written after {(time.monotonic() - began) / 60:.0f} minutes")


@contextlib.contextmanager
def stores() -> Iterator[tuple[list[Contender], list[Contender]]]:
    """The gateway on a SQLite file and on a PostgreSQL; and one worker and two of it on another PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder, postgres.running() as server:
        sqlite = contender.on("SQLite", f"sqlite:///{folder}/payments.db")
        another = server.new_database()
        workers = [contender.on(f"{number} workers", another, WORKERS=str(number)) for number in (1, 2)]
        yield [sqlite, contender.on("PostgreSQL", server.new_database())], workers


@contextlib.contextmanager
def all_running(contenders: Sequence[Contender], bank_url: str) -> Iterator[dict[str, Server]]:
    """Start them one after the other."""
    with contextlib.ExitStack() as stack:
        yield {each.name: stack.enter_context(contender.running(each, bank_url)) for each in contenders}


def in_turn(servers: dict[str, Server], *, post: bool, connections: Sequence[int], what: str) -> dict[str, Any]:
    """Return throughput and CPU per request of each server at each number of connections: medians over the rounds."""
    measured: dict[str, dict[int, list[tuple[float, float]]]] = {
        name: {number: [] for number in connections} for name in servers
    }
    for server in servers.values():  # nobody's first request counts
        load.run(server.payments if post else server.payment, post=post, connections=16, seconds=1)
    for round_ in range(ROUNDS):
        for number in connections:
            for name, server in servers.items():
                say(f"{what}, round {round_ + 1} of {ROUNDS}, {number} connections: {name}")
                measured[name][number].append(under_load(server, post=post, connections=number))
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


def under_load(server: Server, *, post: bool, connections: int) -> tuple[float, float]:
    """Return how many requests a second it carried, and the CPU of each in microseconds."""
    url, seconds = server.payments if post else server.payment, SECONDS
    while True:
        before = cpu_s(server.pid)
        seen = load.run(url, post=post, connections=connections, seconds=seconds)
        answered = seen.requests - seen.failed
        if answered > connections:
            return seen.per_s * answered / seen.requests, (cpu_s(server.pid) - before) / answered * 1e6
        seconds *= 3  # a client for each request takes so long


def latencies(servers: dict[str, Server], bank_ms: int) -> dict[str, Any]:
    """Return what each adds to the bank's latency, at the same moderate rate for all, in milliseconds."""
    added = {}
    for name, server in servers.items():
        say(f"latency at {PER_S} a second: {name}")
        seen = load.run(server.payments, post=True, connections=8, seconds=LATENCY_S, per_s=PER_S)
        without = 0 if name == FLOOR.name else bank_ms
        added[name] = {
            "p50": seen.p50_ms - without,
            "p99": seen.p99_ms - without,
            "p99.9": seen.p999_ms - without,
            "per_s": seen.per_s,
        }
    return added


def remember(memory: dict[str, Any], contenders: Sequence[Contender], bank_url: str) -> None:
    """Measure how much memory payments take, all at once: here no time is measured."""

    def fill(each: Contender) -> None:
        with contender.running(each, bank_url) as server:
            wanted, made = MANY if each in (GATEWAY, LOGGING, AIOHTTP, FLOOR) else FEW, 1
            before = memory_mib(server.pid)
            while made < wanted:
                made += load.run(server.payments, post=True, connections=16, seconds=5).requests
            memory[each.name] |= {"payments": made, "grown": memory_mib(server.pid) - before}
            say(f"memory after {made} payments: {each.name}")

    with ThreadPoolExecutor(len(contenders)) as pool:
        list(pool.map(fill, contenders))


def in_flight(bank_url: str) -> dict[str, float]:
    """500 payments at once at a bank that takes a second, in one process."""
    many = Contender(GATEWAY.name, settings={**GATEWAY.settings, "BANK_CONCURRENCY": "500"})
    with contender.running(many, bank_url) as server:
        say("500 in flight at a bank that takes a second")
        load.run(server.payments, post=True, connections=500, seconds=3)
        before = cpu_s(server.pid)
        seen = load.run(server.payments, post=True, connections=500, seconds=20)
        spent = cpu_s(server.pid) - before
    return {"per_s": seen.per_s, "failed": seen.failed, "p99_ms": seen.p99_ms, "cpu_us": spent / seen.requests * 1e6}


def say(what: str) -> None:
    """Show progress."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
