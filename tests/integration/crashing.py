"""Run run.py, which kills itself with SIGKILL at one step of a payment.

    CRASH_AT=STEP python crashing.py

The steps are before and after each call of payments.pay to the store and the bank: claim, authorize, settle and
release; and in the batch of a claim or a change, before its commit. The first payment of 666 minor units that reaches
the step ends the process.
"""

import operator
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import bank
import store
from tests import dying_in_batches
from tests.contract import checked

CRASHING_AMOUNT = 666
MODULES: dict[str, Any] = {"claim": store, "authorize": bank, "settle": store, "release": store}

_crashing_payments: set[Any] = set()


def _crashing(function: Callable[..., Awaitable[Any]], when: str) -> Callable[..., Awaitable[Any]]:
    async def wrapped(subject: Any, *args: Any, **options: Any) -> Any:
        payment_id = getattr(subject, "payment_id", getattr(subject, "id", subject))
        if getattr(subject, "amount", None) == CRASHING_AMOUNT:
            _crashing_payments.add(payment_id)
        if when == "before" and payment_id in _crashing_payments:
            dying_in_batches.die()
        result = await function(subject, *args, **options)
        if when == "after" and payment_id in _crashing_payments:
            dying_in_batches.die()
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
            signal.signal(signal.SIGALRM, lambda *_: dying_in_batches.die())
            signal.setitimer(signal.ITIMER_REAL, 0.5)
        return await asked(request)

    bank.authorize = _authorize
if when == "in":
    # The first argument of a claim is a payment, that of a change names one.
    ids = operator.attrgetter("id" if name == "claim" else "payment_id")
    dying_in_batches.die_in(name, lambda calls: any(ids(call.args[0]) in _crashing_payments for call in calls))
checked.main()
