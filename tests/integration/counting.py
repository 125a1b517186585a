"""Run run.py, count its Python calls in all threads, and print the count to standard error on SIGUSR1."""

import signal
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import app  # noqa: F401  # before the count: it takes long
import run

_calls = 0


def _count(_frame: Any, event: str, _argument: Any) -> None:
    global _calls
    _calls += event in {"call", "c_call"}


signal.signal(signal.SIGUSR1, lambda *_: print(f"CALLS {_calls}", file=sys.stderr, flush=True))
sys.setprofile(_count)
threading.setprofile(_count)  # those that start from now on
run.main()
