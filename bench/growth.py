"""Measure what grows with the number of payments in a database: CPU, memory and the database itself.

A database of each kind is filled from size to size. At each size a gateway process is started on it, and requests, the
resolver and `reconcile` are measured in it. `python -m bench.growth` runs it alone and prints the tables.
"""

import argparse
import contextlib
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from statistics import median
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from bench import bank, contender, load
from bench.contender import ROOT, Contender, Server
from bench.filling import START, Filled
from bench.process import cpu_s, memory_mib, tree_cpu_s
from handlers import shown
from tests import postgres

SIZES: Final = {"SQLite": (1_000, 100_000, 1_000_000), "PostgreSQL": (1_000, 100_000, 1_000_000, 10_000_000)}
QUICK_SIZES: Final = {"SQLite": (1_000, 5_000), "PostgreSQL": (1_000, 5_000)}

# Rounds of each measurement, of which the median counts; one in addition warms up.
ROUNDS: Final = 3

CONNECTIONS: Final = 16

# How many ids, cursors and references are asked for in turn.
IDS: Final = 2_000
PLACES: Final = 500

PENDING: Final = 300
STATEMENT: Final = 1_000

# Seconds after which the resolver has failed.
RESOLVED_S: Final = 60

# What is measured in CPU: its row in the tables, and the unit with its µs.
CPU: Final = {
    "payment": ("a payment", "µs", 1),
    "read": ("a read of any payment", "µs", 1),
    "newest": ("a page: the newest 20", "µs", 1),
    "cursor": ("a page: 20 after a cursor", "µs", 1),
    "reference": ("a page: 20 of a reference", "µs", 1),
    "status": ("a page: 1,000 looked at, none with the status", "µs", 1),
    "resolved": ("resolving a payment", "µs", 1),
    "reconcile": (f"`reconcile`, {STATEMENT:,} payments", "ms", 1000),
}
AMOUNTS: Final = {"memory_mib": "memory of the gateway", "database_mib": "size of the database"}

# A clock returns the CPU that a process has used, in seconds.
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Subject:
    """A gateway on a database that is filled. clocks: of the processes that are not the gateway's."""

    gateway: Contender
    filled: Filled
    bank_url: str
    clocks: Sequence[Clock]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="Measure what grows with the payments.")
    parser.add_argument("--quick", action="store_true", help="check in two minutes that it works, with few payments")
    sizes, rounds = (QUICK_SIZES, 1) if parser.parse_args().quick else (SIZES, ROUNDS)
    with bank.running() as bank_url:
        print("\n".join(tables(measure(sizes, bank_url, rounds))))


def measure(sizes: Mapping[str, Sequence[int]], bank_url: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return what was measured at each size of each database: its CPU in µs, the gateway's and then PostgreSQL's.

    sizes: numbers of payments, in ascending order, by database: SQLite or PostgreSQL
    """
    results = {}
    with postgres.running() as server, tempfile.TemporaryDirectory(prefix="bench-growth-") as folder:
        for database, counts in sizes.items():
            url, clocks = f"sqlite:///{folder}/payments.db", list[Clock]()
            if database == "PostgreSQL":
                url, clocks = server.new_database(), [partial(tree_cpu_s, server.pid)]
            gateway = contender.on(database, url)
            with contender.running(gateway, f"{bank_url}/50"):
                pass  # it creates the tables, and makes the payment that is copied
            with contextlib.closing(Filled(url)) as filled:
                subject = Subject(gateway, filled, f"{bank_url}/50", clocks)
                results[database] = {str(count): _at(subject, count, rounds) for count in counts}
    return results


def tables(results: Mapping[str, Any]) -> list[str]:
    """Return the lines of a Markdown table for each database."""
    lines = []
    for database, by_count in results.items():
        head = [database, *(f"{int(count):,}" for count in by_count)]
        rows = [
            [label, *(_cpu(seen[name], unit, us) for seen in by_count.values())]
            for name, (label, unit, us) in CPU.items()
        ]
        rows += [[label, *(f"{seen[name]:,.0f} MiB" for seen in by_count.values())] for name, label in AMOUNTS.items()]
        lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] + ["---:"] * len(by_count), *rows)]
        lines.append("")
    return lines[:-1]


def _cpu(used_us: Sequence[float], unit: str, us: int) -> str:
    return " + ".join(f"{each / us:.0f}" for each in used_us) + f" {unit}"


def _at(subject: Subject, count: int, rounds: int) -> dict[str, Any]:
    """Fill the database to this size, and measure there. Payments come last, because they make it larger."""
    filled, at = subject.filled, f"{subject.gateway.name}, {count:,} payments:"
    _show(f"{at} filling")
    began = time.monotonic()
    filled.fill(count)
    results: dict[str, Any] = {"fill_s": time.monotonic() - began}
    with contender.running(subject.gateway, subject.bank_url) as server:
        clocks: list[Clock] = [partial(cpu_s, server.pid), *subject.clocks]
        doing: dict[str, Callable[[], int]] = {
            **{name: partial(_get, server, paths) for name, paths in _paths(server, filled).items()},
            "resolved": partial(_resolve, filled),
            "payment": partial(_pay, server),
        }
        for name, do in doing.items():
            _show(f"{at} {CPU[name][0]}")
            results[name] = _cpu_us(clocks, do, rounds)
        results["memory_mib"] = memory_mib(server.pid)
    _show(f"{at} {CPU['reconcile'][0]}")
    results["reconcile"] = _reconcile(subject, rounds)
    results["database_mib"] = filled.size_mib()
    return results


def _cpu_us(clocks: Sequence[Clock], do: Callable[[], int], rounds: int) -> list[float]:
    """Return the CPU in µs, by each clock, of one of the things that `do` says it has done: medians of the rounds."""
    do()
    runs = []
    for _ in range(rounds):
        before = [clock() for clock in clocks]
        done = do()
        runs.append([(clock() - then) / done * 1e6 for clock, then in zip(clocks, before, strict=True)])
    return [median(run) for run in zip(*runs, strict=True)]


def _paths(server: Server, filled: Filled) -> dict[str, list[str]]:
    """Return what is read, by name: paths that are asked for in turn."""
    path = urlsplit(server.payments).path

    def page(**query: str) -> str:
        return f"{path}?{urlencode({'limit': 20, **query})}"

    middle = [START + timedelta(seconds=filled.count * part / 4) for part in (1, 3)]
    cursors = [shown.cursor(place) for place in filled.anywhere(2 * PLACES) if middle[0] < place[0] < middle[1]]
    return {
        "read": [f"{path}/{payment_id}" for _, payment_id in filled.anywhere(IDS)],
        "newest": [page()],
        "cursor": [page(cursor=cursor) for cursor in cursors],
        "reference": [page(reference=reference) for reference in filled.references(PLACES)],
        "status": [page(status="REFUNDED")],
    }


def _get(server: Server, paths: Sequence[str]) -> int:
    return _answered(load.run(server.payments, post=False, connections=CONNECTIONS, seconds=1, paths=paths))


def _pay(server: Server) -> int:
    return _answered(load.run(server.payments, post=True, connections=CONNECTIONS, seconds=2))


def _answered(seen: load.Load) -> int:
    if seen.failed or not seen.requests:
        raise SystemExit(f"{seen.failed} of {seen.requests} requests failed")
    return seen.requests


def _resolve(filled: Filled) -> int:
    """Let the resolver settle payments that are due."""
    filled.add_pending(PENDING)
    deadline = time.monotonic() + RESOLVED_S
    while filled.pending():
        if time.monotonic() > deadline:
            raise SystemExit(f"the resolver has not settled {PENDING} payments in {RESOLVED_S} s")
        time.sleep(0.05)
    return PENDING


def _reconcile(subject: Subject, rounds: int) -> list[float]:
    """Measure the command with a statement of payments from the middle of the time that is filled."""
    since = START + timedelta(seconds=max(0, subject.filled.count // 2 - STATEMENT))
    until = since + timedelta(seconds=STATEMENT)
    with tempfile.NamedTemporaryFile("w", suffix=".csv", newline="") as statement:
        writer = csv.writer(statement)
        writer.writerow(["payment_id", "amount", "currency", "outcome"])
        writer.writerows([*payment, "authorized"] for payment in subject.filled.between(since, until))
        statement.flush()
        command = [sys.executable, "run.py", "reconcile", statement.name]
        command += ["--since", since.isoformat(), "--until", until.isoformat()]
        environment = {"PATH": os.environ["PATH"], **subject.gateway.settings}

        def run() -> int:
            subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
            return 1

        return _cpu_us([_children_cpu_s, *subject.clocks], run, rounds)


def _children_cpu_s() -> float:
    """Return the CPU of the processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _show(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
