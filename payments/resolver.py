"""The resolver: how unresolved payments and actions are settled by looking them up at the bank.

A payment stays PENDING when the bank's answer does not come, when a gateway stops while a request is
running, or when the store becomes unavailable before the answer is recorded. The resolver asks the bank
about such a payment at growing intervals until the bank knows its outcome. Payments that were never looked
up come first, so look-ups that hang do not delay them for long. A payment that the bank does not know is
DECLINED only if the bank promises never to authorize it, and once no request for it can still be on its
way. Otherwise, and for a bank without a look-up, an operator settles payments: `run.py pending`,
`run.py settle`. The same holds for actions.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import bank
import store
from payments import conflicts
from store import Action, ActionStatus, Payment, Status
from telemetry import causes, metrics

R = TypeVar("R", Payment, Action)

log = logging.getLogger("gateway.resolver")

# Who settles, in the audit trail.
RESOLVER: Final = "resolver"

# Seconds between two searches for due payments while there are few.
SEARCH_INTERVAL_S: Final = 1.0

# Seconds between two look-ups of the same payment: 2, 4, 8, ... up to 5 minutes.
FIRST_INTERVAL_S: Final = 2.0
LONGEST_INTERVAL_S: Final = 300.0

# The most payments, and actions, of other banks that one report names.
REPORTED: Final = 100

# Seconds after the end of a look-up in which others end as well, so that one search replaces several.
TOGETHER_S: Final = 0.02

# Counting may take this part of the time, so many unresolved payments are counted more rarely; but at least this often.
MEASURING: Final = 0.02
LONGEST_PAUSE_S: Final = 15.0


def surely_over_s() -> float:
    """Return the seconds after its last claim at which no request for a payment can still reach the bank.

    A request can be on its way for `bank.longest_s()` seconds; twice that is certain.
    """
    return 2 * bank.longest_s()


async def run() -> None:
    """Look up due payments and actions, and report on unresolved ones, until cancelled."""
    await asyncio.gather(
        _look_up_due(store.take_due, _resolve), _look_up_due(store.take_due_actions, _resolve_action), _observe()
    )


async def _look_up_due(take_due: Callable[..., Awaitable[list[R]]], resolve: Callable[[R], Awaitable[None]]) -> None:
    """Look up as many at once as the bank allows; one that ends makes room for the next."""
    running: dict[UUID, asyncio.Future[None]] = {}
    try:
        while True:
            free, due = bank.LOOK_UPS - len(running), []
            try:
                due = await take_due(free, _interval_s, bank.identity()) if free else []
            except Exception as error:  # the store is unavailable, or there is a bug: neither may end this loop
                log.warning("unresolved payments can't be looked up now: %s", causes.of(error))
            for record in due:
                if record.id not in running:
                    running[record.id] = asyncio.ensure_future(resolve(record))
                    running[record.id].add_done_callback(partial(_ended, running, record.id))
            if len(due) < free:
                await asyncio.sleep(SEARCH_INTERVAL_S)
            else:
                await asyncio.wait(running.values(), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(TOGETHER_S)
    finally:
        for task in running.values():
            task.cancel()


def _ended(running: dict[UUID, "asyncio.Future[None]"], record_id: UUID, task: "asyncio.Future[None]") -> None:
    del running[record_id]
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s can't be looked up: %s", record_id, type(error).__name__)


async def _observe() -> None:
    clock = asyncio.get_running_loop().time
    reports, report_at = 0, clock()
    while True:
        pause_s = SEARCH_INTERVAL_S
        try:
            began = clock()
            await _measure()
            pause_s = max(pause_s, min((clock() - began) / MEASURING, LONGEST_PAUSE_S))
            if clock() >= report_at:
                report_at = clock() + _interval_s(reports)
                reports += 1
                await _report_payments_of_other_banks()
        except Exception as error:  # as above
            log.warning("unresolved payments can't be counted now: %s", causes.of(error))
        await asyncio.sleep(pause_s)


async def _measure() -> None:
    stats = await store.unresolved_stats()
    oldest = stats.oldest_created_at
    metrics.PENDING.set(stats.count)
    metrics.PENDING_AGE.set((datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0)


async def _report_payments_of_other_banks() -> None:
    """Say why this gateway asks nobody about them. A gateway whose BANK_URL is their bank's settles them."""
    for payment in await store.list_unresolved(bank.identity(), REPORTED):
        log.warning("payment %s is PENDING, %s", payment.id, _sent_elsewhere(payment))
    for action in await store.list_unresolved_actions(bank.identity(), REPORTED):
        log.warning("action %s is PENDING, %s", action.id, _sent_elsewhere(action))


async def _is_of_configured_bank(record: Payment | Action) -> bool:
    return record.bank == bank.identity() or await store.is_same_bank(record.bank, bank.identity())


def _sent_elsewhere(record: Payment | Action) -> str:
    return f"it was sent to {record.bank}, and the configured bank is {bank.identity()}"


def _interval_s(look_ups: int) -> float:
    return min(FIRST_INTERVAL_S * 2.0 ** min(look_ups, 30), LONGEST_INTERVAL_S)


class _StillPending(Exception):
    """The payment or action can't be settled now. The message is the reason."""


async def _resolve(payment: Payment) -> None:
    try:
        found = await _look_up(payment)
        status = Status.AUTHORIZED if found.authorized else Status.DECLINED
        note = "the bank does not know the payment" if found.authorized is None else "the bank's look-up"
        await store.settle(payment, status, RESOLVER, note, code=found.code, if_unresolved=True)
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


async def _resolve_action(action: Action) -> None:
    try:
        found = await _look_up_action(action)
        status = ActionStatus.APPROVED if found.approved else ActionStatus.DECLINED
        code = found.response_code or bank.DO_NOT_HONOUR
        note = "the bank does not know the action" if found.approved is None else "the bank's look-up"
        await store.settle_action(action, status, RESOLVER, note, response_code=code, if_unresolved=True)
    except _StillPending as reason:
        log.warning("action %s is PENDING, %s", action.id, reason)
    except store.NotInStatus:  # a request or an operator was faster
        if found.approved is not None:
            await conflicts.settle_action(action, status, RESOLVER, note, code)
    except store.StoreUnavailable as error:
        log.warning("action %s can't be settled yet: %s", action.id, error)  # it is looked up again
    else:
        metrics.RESOLVED.labels(status).inc()
        log.info("action %s is %s: %s", action.id, status, note)


async def _look_up_action(action: Action) -> bank.ActionLookUp:
    """Ask the action's bank for its outcome. Raises `_StillPending` when the action can't be settled by that."""
    if not await _is_of_configured_bank(action):
        raise _StillPending(_sent_elsewhere(action))
    try:
        found = await bank.look_up_action(action.payment_id, action.id)
    except bank.BankError as error:
        raise _StillPending(f"the bank did not say: {error}") from None
    if found.approved is None:
        if not found.final:
            raise _StillPending("the bank does not know it, but may still do it")
        if await store.action_claimed_s_ago(action.id) < surely_over_s():
            raise _StillPending("the bank does not know it yet")
    return found
