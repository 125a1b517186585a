"""run.py on a machine whose clock is CLOCK_OFFSET_S seconds ahead, or behind if that is negative.

Only the time of day is changed: `time.time` and `datetime.now`, not the clock that measures durations. If
DIE_IN_BATCHES is set, the process dies in a batch of writes with that chance.
"""

import datetime as dt
import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1]))

OFFSET_S = float(os.environ["CLOCK_OFFSET_S"])
real_time = time.time


class Skewed(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Self:
        return cls.fromtimestamp(real_time() + OFFSET_S, tz)


time.time = lambda: real_time() + OFFSET_S
module: Any = dt
module.datetime = Skewed

if chance := os.environ.get("DIE_IN_BATCHES"):
    importlib.import_module("tests.dying_in_batches").die_by_chance(float(chance))
importlib.import_module("tests.contract.checked").main()  # imported now, so that every module takes the changed class
