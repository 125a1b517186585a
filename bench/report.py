"""The results as a Markdown table and as plots."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "bench"  # the same figures make the same file

from matplotlib import pyplot as plt  # noqa: E402  # the backend is chosen first

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
)


def machine() -> dict[str, Any]:
    """Return what it was measured on."""
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "cpu": model.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write results.md and the plots into `folder`."""
    at_64 = {name: by[64] for name, by in results["posts"][50].items()}
    gets = {name: by[64] for name, by in results["gets"].items()}
    (folder / "results.md").write_text(_markdown(results, at_64, gets))
    _bars(folder / "cpu-per-payment.svg", "CPU per payment, microseconds (bank 50 ms, 64 connections)", at_64)
    _bars(folder / "cpu-per-get.svg", "CPU per GET, microseconds (64 connections)", gets)
    _lines(folder / "throughput.svg", results["posts"][50])


def _markdown(results: dict[str, Any], at_64: dict[str, Any], gets: dict[str, Any]) -> str:
    on = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in on["versions"].items())
    ours, our_get = at_64["this gateway"]["cpu_us"], gets["this gateway"]["cpu_us"]
    head = ["", "CPU/payment", "of ours", "payments/s", "added p50", "p99", "p99.9", "CPU/GET", "of ours", "GET/s"]
    head += ["start", "memory", "after payments"]
    rows = []
    for name, post in at_64.items():
        get, late, memory = gets[name], results["latency"][name], results["memory"][name]
        rows.append(
            [
                name,
                f"{post['cpu_us']:.0f} µs",
                f"{post['cpu_us'] / ours:.2f}",
                f"{post['per_s']:.0f}",
                *(f"{late[which]:.1f} ms" for which in ("p50", "p99", "p99.9")),
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
            f"{results['date']}, {on['cores']} cores of an {on['cpu']}, Python {on['python']}; {versions}.",
            "Bank 50 ms, 64 connections, one process each, access log off unless it says otherwise; load generator and",
            "bank share the cores. Latency is what comes on top of the bank's, at 30 payments a second.",
            "",
            *_table(head, rows),
            "",
            "Payments a second by connections (bank 50 ms), and at 64 connections by the bank's latency:",
            "",
            *_table(["", "1", "16", "64", "256", "0 ms", "50 ms", "200 ms"], _throughput(results["posts"])),
            "",
            _in_flight(results["in flight"]),
            "",
            _workers(results["workers"]),
            "",
        ]
    )


def _in_flight(seen: Mapping[str, float]) -> str:
    return (
        f"500 payments at once at a bank that takes a second, in one process: {seen['per_s']:.0f} a second, "
        f"{seen['failed']} refused or failed, p99 {seen['p99_ms']:.0f} ms, {seen['cpu_us']:.0f} µs of CPU each."
    )


def _workers(seen: Mapping[str, Mapping[int, Any]]) -> str:
    one, two = (by[64] for by in seen.values())
    return (
        f"On PostgreSQL two workers carry {two['per_s'] / one['per_s']:.2f} times what one does ({one['per_s']:.0f} a "
        f"second to {two['per_s']:.0f}), at {one['cpu_us']:.0f} and {two['cpu_us']:.0f} µs of CPU each, with load "
        "generator, bank and PostgreSQL on the same cores."
    )


def _throughput(posts: Mapping[int, Any]) -> list[list[str]]:
    return [
        [
            name,
            *(f"{by[number]['per_s']:.0f}" for number in (1, 16, 64, 256)),
            *(f"{posts[ms][name][64]['per_s']:.0f}" for ms in (0, 50, 200)),
        ]
        for name, by in posts[50].items()
    ]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows)]


def _bars(file: Path, title: str, measured: dict[str, Any]) -> None:
    by_cost = sorted(measured.items(), key=lambda item: -item[1]["cpu_us"])
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(by_cost) + 1))
    colors = ["#1f6feb" if name.startswith("this gateway") else "#8b949e" for name, _ in by_cost]
    bars = axes.barh([name for name, _ in by_cost], [run["cpu_us"] for _, run in by_cost], color=colors)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, file)


def _lines(file: Path, measured: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for name, by in measured.items():
        mine = name.startswith("this gateway")
        axes.plot(list(by), [run["per_s"] for run in by.values()], marker="o", label=name, linewidth=2 if mine else 1)
    axes.set(xscale="log", xticks=list(next(iter(measured.values()))), xlabel="connections", yscale="log")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_title("Payments a second (bank 50 ms)", fontsize=10)
    axes.legend(fontsize=7)
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
