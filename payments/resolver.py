"""The resolver: how unresolved payments are settled by looking them up at the bank.

A payment stays PENDING when the bank's answer does not come, when a gateway stops while a request is
running, or when the store becomes unavailable before the answer is recorded. The resolver asks the bank
about such a payment at growing intervals until the bank knows its outcome. Payments that were never looked
up come first, so look-ups that hang do not delay them for long. A payment that the bank does not know is
DECLINED only if the bank promises never to authorize it, and once no request for it can still be on its
way. Otherwise, and for a bank without a look-up, an operator settles payments: `run.py pending`,
`run.py settle`.
"""

import asyncio
import logging
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID

import bank
import store
from payments import conflicts
from store import Payment, Status
from telemetry import causes, metrics

log = logging.getLogger("gateway.resolver")

# Who settles, in the audit trail.
RESOLVER: Final = "resolver"

# Seconds between two searches for due payments while there are few.
SEARCH_INTERVAL_S: Final = 1.0

# Seconds between two look-ups of the same payment: 2, 4, 8, ... up to 5 minutes.
FIRST_INTERVAL_S: Final = 2.0
LONGEST_INTERVAL_S: Final = 300.0


def surely_over_s() -> float:
    """Return the seconds after its last claim at which no request for a payment can still reach the bank.

    A request can be on its way for `bank.longest_s()` seconds; twice that is certain.
    """
    return 2 * bank.longest_s()


async def run() -> None:
    """Look up due payments, and report on unresolved ones, until cancelled."""
    await asyncio.gather(_look_up_due(), _observe())


async def _look_up_due() -> None:
    """Look up as many payments at once as the bank allows; one that ends makes room for the next."""
    running: dict[UUID, asyncio.Task[None]] = {}
    try:
        while True:
            free, due = bank.LOOK_UPS - len(running), []
            try:
                due = await store.take_due(free, _interval_s, bank.identity()) if free else []
            except Exception as error:  # the store is unavailable, or there is a bug: neither may end this loop
                log.warning("unresolved payments can't be looked up now: %s", causes.of(error))
            for payment in due:
                if payment.id not in running:
                    running[payment.id] = asyncio.create_task(_resolve(payment))
                    running[payment.id].add_done_callback(partial(_ended, running, payment.id))
            if len(due) < free:
                await asyncio.sleep(SEARCH_INTERVAL_S)
            else:
                await asyncio.wait(running.values(), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in running.values():
            task.cancel()


def _ended(running: dict[UUID, "asyncio.Task[None]"], payment_id: UUID, task: "asyncio.Task[None]") -> None:
    del running[payment_id]
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("payment %s can't be looked up: %s", payment_id, type(error).__name__)


async def _observe() -> None:
    clock = asyncio.get_running_loop().time
    reports, report_at = 0, clock()
    while True:
        try:
            await _measure()
            if clock() >= report_at:
                report_at = clock() + _interval_s(reports)
                reports += 1
                await _report_payments_of_other_banks()
        except Exception as error:  # as above
            log.warning("unresolved payments can't be counted now: %s", causes.of(error))
        await asyncio.sleep(SEARCH_INTERVAL_S)


async def _measure() -> None:
    stats = await store.unresolved_stats()
    oldest = stats.oldest_created_at
    metrics.PENDING.set(stats.count)
    metrics.PENDING_AGE.set((datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0)


async def _report_payments_of_other_banks() -> None:
    """Say why this gateway asks nobody about them. A gateway whose BANK_URL is their bank's settles them."""
    for payment in await store.list_unresolved():
        if not await _is_of_configured_bank(payment) and payment.bank != store.UNKNOWN_BANK:
            log.warning("payment %s is PENDING, %s", payment.id, _sent_elsewhere(payment))


async def _is_of_configured_bank(payment: Payment) -> bool:
    return payment.bank == bank.identity() or await store.is_same_bank(payment.bank, bank.identity())


def _sent_elsewhere(payment: Payment) -> str:
    return f"it was sent to {payment.bank}, and the configured bank is {bank.identity()}"


def _interval_s(look_ups: int) -> float:
    return min(FIRST_INTERVAL_S * 2.0 ** min(look_ups, 30), LONGEST_INTERVAL_S)


class _StillPending(Exception):
    """The payment can't be settled now. The message is the reason."""


async def _resolve(payment: Payment) -> None:
    try:
        found = await _look_up(payment)
        status = Status.AUTHORIZED if found.authorized else Status.DECLINED
        note = "the bank does not know the payment" if found.authorized is None else "the bank's look-up"
        await store.settle(payment.id, status, RESOLVER, note, code=found.code, if_unresolved=True)
    except _StillPending as reason:
        log.warning("payment %s is PENDING, %s", payment.id, reason)
    except store.NotInStatus:  # a request or an operator was faster
        if found.authorized is not None:
            await conflicts.settle(payment.id, status, RESOLVER, note, found.code)
    except store.StoreUnavailable as error:
        log.warning("payment %s can't be settled yet: %s", payment.id, error)  # it is looked up again
    else:
        metrics.RESOLVED.labels(status).inc()
        log.info("payment %s is %s: %s", payment.id, status, note)


async def _look_up(payment: Payment) -> bank.LookUp:
    """Ask the payment's bank for its outcome. Raises `_StillPending` when the payment can't be settled by that."""
    same_bank = await _is_of_configured_bank(payment)
    if not same_bank and payment.bank != store.UNKNOWN_BANK:
        raise _StillPending(_sent_elsewhere(payment))
    try:
        found = await bank.look_up(payment.id)
    except bank.NoLookUp:
        raise _StillPending("the bank offers no look-up: use `run.py settle`") from None
    except bank.BankError as error:
        raise _StillPending(f"the bank did not say: {error}") from None
    if found.authorized is not None:
        return found
    if not same_bank:
        raise _StillPending("the configured bank does not know it, and which bank it was sent to is not recorded")
    if not found.final:
        raise _StillPending("the bank does not know it, but may still authorize it")
    if await store.claimed_s_ago(payment.id) < surely_over_s():
        raise _StillPending("the bank does not know it yet")
    return found
