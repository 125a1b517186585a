"""What the bench reads about a server process: whether it answers, its CPU time, its memory."""

import contextlib
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_S = 30


def until_it_answers(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Wait until the server at `url` gives any answer; exit when it ends or needs more than START_S seconds."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310  # http on loopback
        except urllib.error.HTTPError as answer:
            answer.close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{process.args!r} does not start") from None
            time.sleep(0.005)
            continue
        return


def cpu_s(pid: int) -> float:
    """Return the user and system CPU time of a process and its workers, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S + sum(cpu_s(int(worker)) for worker in workers)


def tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a server whose processes come and go, in seconds: also that of its children that ended."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    running_s = 0.0
    for child in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends now, and counts as ended
            running_s += cpu_s(int(child))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return running_s + sum(map(int, fields[11:15])) / TICKS_PER_S


def memory_mib(pid: int) -> float:
    """Return the resident set size of a process, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
