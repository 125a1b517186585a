"""run.py that kills itself, as `kill -9` would, at one point in the life of a payment.

    CRASH_AT=POINT python crashing.py

The points are the borders that payments.py crosses: claim (store), authorize (bank), settle (store),
each before and after. The first payment of 666 minor units to reach the point takes the process along.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import bank
import run
import store

CRASHING_AMOUNT = 666
MODULES: dict[str, Any] = {"claim": store, "authorize": bank, "settle": store}

_doomed: set[Any] = set()


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _crashing(function: Callable[..., Awaitable[Any]], when: str) -> Callable[..., Awaitable[Any]]:
    async def wrapped(subject: Any, *args: Any) -> Any:
        payment_id = getattr(subject, "payment_id", getattr(subject, "id", subject))
        if getattr(subject, "amount", None) == CRASHING_AMOUNT:
            _doomed.add(payment_id)
        if when == "before" and payment_id in _doomed:
            _crash()
        result = await function(subject, *args)
        if when == "after" and payment_id in _doomed:
            _crash()
        return result

    return wrapped


when, _, name = os.environ["CRASH_AT"].partition("-")
for known, module in MODULES.items():
    # The others are wrapped too, only to learn which payments are doomed.
    setattr(module, known, _crashing(getattr(module, known), when if known == name else "never"))
if name == "working":  # while the bank works: it answers after 2 s
    asked = bank.authorize

    async def _authorize(request: Any) -> bool:
        if request.amount == CRASHING_AMOUNT:
            signal.signal(signal.SIGALRM, lambda *_: _crash())
            signal.setitimer(signal.ITIMER_REAL, 0.5)
        return await asked(request)

    bank.authorize = _authorize
run.main()
