"""What is left in doubt: PENDING payments are found and ended, never forgotten.

A payment stays PENDING when the bank's answer never came, when a gateway died while it was at work,
or when the store went down before the answer was recorded. Here the bank is asked what became of it,
at growing intervals and by one process at a time for each payment, until it says. A payment that the
bank never heard of ends as DECLINED, but only when no request for it can still be on its way. A bank
that can't be asked leaves it to a person: `run.py pending` and `run.py settle`.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

import bank
import store
from store import Payment, Status
from telemetry import metrics

log = logging.getLogger("gateway.resolver")

# Who settles, in the audit trail.
RESOLVER: Final = "resolver"

# How often to look for payments that are due, and how many to ask about at once: few, because each
# takes a place from payments that a shopper waits for.
EVERY_S: Final = 1.0
AT_ONCE: Final = 4

# Between two questions about the same payment: 2 s, 4 s, 8 s, ... up to 5 minutes.
FIRST_INTERVAL_S: Final = 2.0
LONGEST_INTERVAL_S: Final = 300.0

# A request for a payment can be on its way for `bank.longest_s()`; twice that and this, for clocks of
# several machines that differ, and surely nothing comes any more.
CLOCKS_S: Final = 3.0


def surely_over_s() -> float:
    """Return the age in seconds at which no request for a payment can still reach the bank."""
    return 2 * bank.longest_s() + CLOCKS_S


async def run() -> None:
    """Resolve what is due, until cancelled."""
    while True:
        found = 0
        try:
            await _measure()
            due = await store.take_due(AT_ONCE, _again_s)
            found = len(due)
            await asyncio.gather(*(_resolve(payment) for payment in due))
        except Exception as error:  # the store is down, or there is a bug: nothing may end this loop
            log.warning("payments in doubt can't be looked after: %s", type(error).__name__)
        if found < AT_ONCE:
            await asyncio.sleep(EVERY_S)


async def _measure() -> None:
    unresolved = await store.unresolved_stats()
    oldest = unresolved.oldest_created_at
    age_s = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0
    metrics.PENDING.set(unresolved.count)
    metrics.PENDING_AGE.set(age_s)


def _again_s(look_ups: int) -> float:
    return min(FIRST_INTERVAL_S * 2.0 ** min(look_ups, 30), LONGEST_INTERVAL_S)


async def _resolve(payment: Payment) -> None:
    try:
        authorized = await bank.look_up(payment.id)
    except bank.NoLookUp:
        log.warning("payment %s is PENDING and the bank can't be asked: find out, then `run.py settle`", payment.id)
        return
    except bank.BankError as error:
        log.warning("payment %s is PENDING, the bank did not say: %s", payment.id, error)
        return
    if authorized is None and payment.age_s() < surely_over_s():
        return
    status = Status.AUTHORIZED if authorized else Status.DECLINED
    note = "the bank never heard of it" if authorized is None else "the bank was asked"
    try:
        await store.settle(payment.id, status, RESOLVER, note, if_unresolved=True)
    except store.NotPending:  # the request that made it was faster
        return
    except store.StoreUnavailable as error:
        log.warning("payment %s is %s, which can't be recorded yet: %s", payment.id, status, error)
        return
    metrics.RESOLVED.labels(status).inc()
    log.info("payment %s %s: %s", payment.id, status, note)
