"""Write the results as a Markdown table and as plots. `python -m bench.report` does it again from results.json."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import growth, plot
from bench.contender import AIOHTTP, ASYNCPG, GATEWAY, SQLALCHEMY, on

SQLITE, POSTGRESQL = on("SQLite", "").name, on("PostgreSQL", "").name

RESULTS = Path(__file__).parent / "results"

PACKAGES = (
    "connexion",
    "uvicorn",
    "uvloop",
    "httptools",
    "requests",
    "urllib3",
    "fastapi",
    "pydantic",
    "httpx",
    "aiohttp",
    "psycopg",
    "SQLAlchemy",
    "asyncpg",
)

CONDITIONS = f"""\
The bank's latency is 50 ms, with 64 connections and one process for each stack. Request logs are off, except in
"logging on". CPU is the user and system time of the process for each answered request; relative is that divided by
the CPU of "{GATEWAY.name}". The added latencies come on top of the bank's own, at 30 payments per second. The load
generator and the bank share the cores."""


def machine() -> dict[str, Any]:
    """Return the processor, the Python version and the package versions of this run."""
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "cpu": model.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def write(folder: Path) -> None:
    """Read results.json in `folder`, and write results.md and the plots there."""
    results = json.loads((folder / "results.json").read_text())
    at_64 = {name: by["64"] for name, by in results["posts"]["50"].items()}
    gets = {name: by["64"] for name, by in results["gets"].items()}
    payments_per_s = {
        name: {int(connections): run["per_s"] for connections, run in by.items()}
        for name, by in results["posts"]["50"].items()
    }
    ours = GATEWAY.name
    plots = {
        "cpu-per-payment.svg": plot.bars(
            "CPU per payment in µs (bank latency 50 ms, 64 connections)", _column(at_64, "cpu_us"), ours
        ),
        "cpu-per-get.svg": plot.bars("CPU per GET in µs (64 connections)", _column(gets, "cpu_us"), ours),
        "throughput.svg": plot.lines("Payments per second (bank latency 50 ms)", "connections", payments_per_s, ours),
    }
    (folder / "results.md").write_text(_markdown(results, at_64, gets))
    for name, svg in plots.items():
        (folder / name).write_text(svg)


def _column(measured: Mapping[str, Mapping[str, float]], key: str) -> dict[str, float]:
    return {name: run[key] for name, run in measured.items()}


def _markdown(results: dict[str, Any], at_64: dict[str, Any], gets: dict[str, Any]) -> str:
    on = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in on["versions"].items())
    ours, our_get = at_64[GATEWAY.name]["cpu_us"], gets[GATEWAY.name]["cpu_us"]
    head = ["", "CPU/payment", "relative", "payments/s", "added p50", "p99", "p99.9", "CPU/GET", "relative", "GET/s"]
    head += ["start", "memory", "growth (payments)"]
    rows = []
    for name, post in at_64.items():
        get, added, memory = gets[name], results["latency"][name], results["memory"][name]
        rows.append(
            [
                name,
                f"{post['cpu_us']:.0f} µs",
                f"{post['cpu_us'] / ours:.2f}",
                f"{post['per_s']:.0f}",
                *(f"{added[which]:.1f} ms" for which in ("p50", "p99", "p99.9")),
                f"{get['cpu_us']:.0f} µs",
                f"{get['cpu_us'] / our_get:.2f}",
                f"{get['per_s']:.0f}",
                f"{results['starts'][name]:.2f} s",
                f"{memory['at rest']:.0f} MiB",
                f"+{memory['grown']:.0f} MiB ({memory['payments']:,})",
            ]
        )
    rows.sort(key=lambda row: float(row[2]))
    return "\n".join(
        [
            f"Measured on {results['date']}, {on['cores']} cores of an {on['cpu']}, Python {on['python']}; {versions}.",
            "",
            CONDITIONS,
            "",
            *_table(head, rows),
            "",
            "Stacks that keep payments, at 64 connections; on PostgreSQL with what its own processes do for a request:",
            "",
            *_durable(results, at_64, gets),
            "",
            "The same as ratios of CPU, PostgreSQL's processes not included:",
            "",
            *_ratios(at_64, gets),
            "",
            "Payments per second by number of connections (bank latency 50 ms) and by bank latency (64 connections):",
            "",
            *_throughput(results["posts"]),
            "",
            _in_flight(results["in flight"]),
            "",
            _workers(results["workers"]),
            "",
            "What grows with the number of payments in the database (CPU of the gateway + CPU of PostgreSQL):",
            "",
            *growth.tables(results["growth"]),
            "",
        ]
    )


def _durable(results: dict[str, Any], at_64: dict[str, Any], gets: dict[str, Any]) -> list[str]:
    head = ["", "CPU/payment", "CPU/GET", "PostgreSQL's CPU/payment", "its CPU/GET", "transactions/payment"]
    rows = []
    for name in (SQLITE, *results["postgresql"]):
        server = results["postgresql"].get(name)
        costs = [f"{server[what]['cpu_us']:.0f} µs" for what in ("POST", "GET")] if server else ["", ""]
        written = f"{server['POST']['transactions']:.2f}" if server else ""
        rows.append([name, f"{at_64[name]['cpu_us']:.0f} µs", f"{gets[name]['cpu_us']:.0f} µs", *costs, written])
    return _table(head, rows)


def _ratios(at_64: dict[str, Any], gets: dict[str, Any]) -> list[str]:
    pairs = (
        (POSTGRESQL, ASYNCPG),
        (POSTGRESQL, SQLALCHEMY),
        (POSTGRESQL, GATEWAY.name),
        (SQLITE, GATEWAY.name),
        (GATEWAY.name, AIOHTTP.name),
    )
    rows = [
        [each, other, *(f"{by[each]['cpu_us'] / by[other]['cpu_us']:.2f}" for by in (at_64, gets))]
        for each, other in pairs
    ]
    return _table(["CPU of", "against", "POST", "GET"], rows)


def _in_flight(seen: Mapping[str, float]) -> str:
    return (
        f"500 payments at once, in one process, with a bank latency of 1 s: {seen['per_s']:.0f} payments per second, "
        f"{seen['failed']} refused or failed, p99 {seen['p99_ms']:.0f} ms, {seen['cpu_us']:.0f} µs of CPU each."
    )


def _workers(seen: Mapping[str, Mapping[str, Any]]) -> str:
    one, two = (by["64"] for by in seen.values())
    return (
        f"On PostgreSQL, two workers carry {two['per_s'] / one['per_s']:.2f} times the payments of one: "
        f"{one['per_s']:.0f} and {two['per_s']:.0f} per second, at {one['cpu_us']:.0f} and {two['cpu_us']:.0f} µs of "
        "CPU each. The load generator, the bank and PostgreSQL share the cores, so throughput counts per CPU: "
        f"two workers do {2 * one['cpu_us'] / two['cpu_us']:.2f} times the payments of one with twice its CPU."
    )


def _throughput(posts: Mapping[str, Any]) -> list[str]:
    connections = list(posts["50"][GATEWAY.name])
    latencies = sorted(posts, key=int)
    rows = [
        [
            name,
            *(f"{by[number]['per_s']:.0f}" for number in connections),
            *(f"{posts[ms][name]['64']['per_s']:.0f}" for ms in latencies),
        ]
        for name, by in posts["50"].items()
    ]
    return _table(["", *connections, *(f"{ms} ms" for ms in latencies)], rows)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows)]


if __name__ == "__main__":
    write(RESULTS)
