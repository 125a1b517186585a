"""A server as a process of its own: started, watched and ended."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_S = 30


def until_it_answers(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Wait until there is any answer at all."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310  # it is http, and our own
        except urllib.error.HTTPError as answer:
            answer.close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{process.args!r} does not start") from None
            time.sleep(0.005)
            continue
        return


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process and its workers have used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S + sum(cpu_s(int(worker)) for worker in workers)


def memory_mib(pid: int) -> float:
    """Return a process's resident set."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
