"""Run run.py, which kills itself with SIGKILL at one step of a payment.

    CRASH_AT=STEP python crashing.py

The steps are before and after each call of payments.pay to the store and the bank: claim, authorize, settle and
release. The first payment of 666 minor units that reaches the step ends the process.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import bank
import store
from tests.contract import checked

CRASHING_AMOUNT = 666
MODULES: dict[str, Any] = {"claim": store, "authorize": bank, "settle": store, "release": store}

_crashing_payments: set[Any] = set()


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _crashing(function: Callable[..., Awaitable[Any]], when: str) -> Callable[..., Awaitable[Any]]:
    async def wrapped(subject: Any, *args: Any, **options: Any) -> Any:
        payment_id = getattr(subject, "payment_id", getattr(subject, "id", subject))
        if getattr(subject, "amount", None) == CRASHING_AMOUNT:
            _crashing_payments.add(payment_id)
        if when == "before" and payment_id in _crashing_payments:
            _crash()
        result = await function(subject, *args, **options)
        if when == "after" and payment_id in _crashing_payments:
            _crash()
        return result

    return wrapped


when, _, name = os.environ["CRASH_AT"].partition("-")
for known, module in MODULES.items():
    # All are wrapped, because the wrapper of `claim` notes the ids of the payments of 666 minor units.
    setattr(module, known, _crashing(getattr(module, known), when if known == name else "never"))
if name == "working":  # during the bank call, which takes 2 s
    asked = bank.authorize

    async def _authorize(request: Any) -> bank.Authorization:
        if request.amount == CRASHING_AMOUNT:
            signal.signal(signal.SIGALRM, lambda *_: _crash())
            signal.setitimer(signal.ITIMER_REAL, 0.5)
        return await asked(request)

    bank.authorize = _authorize
checked.main()
