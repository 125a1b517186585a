"""What happened during a chaos run."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """What happened during the run, for the report."""

    requests: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    deaths: int = 0  # in a batch of writes
    moves: int = 0
    outages: int = 0
    drawn: Counter[str] = field(default_factory=Counter)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)  # the last answer, by idempotency key
    cards: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
