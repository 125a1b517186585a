"""Conflicts: what happens when the bank's answer contradicts what is recorded.

A bank may break its promise never to authorize a payment, or contradict what an operator has recorded. Its own answer
counts: it turns DECLINED into AUTHORIZED, so that the merchant learns that money is reserved. Nothing turns AUTHORIZED
into DECLINED; a person has to find out.
"""

import logging
from uuid import UUID

import store
from store import Action, ActionStatus, Payment, Status
from telemetry import metrics

log = logging.getLogger("gateway.payments")


async def settle(payment_id: UUID, status: Status, changed_by: str, note: str, code: str) -> Payment | None:
    """Record the bank's answer about a payment that is settled, if that has to change; return the payment.

    status, code: the bank's answer
    Raises `store.StoreUnavailable`.
    """
    recorded = await store.find(payment_id)
    if recorded is None or recorded.status in {status, Status.PENDING}:
        return recorded
    if status is Status.AUTHORIZED:
        try:
            corrected = await store.correct(payment_id, changed_by, note, code)
        except store.NotInStatus:  # another process was faster
            return await store.find(payment_id)
    else:
        corrected = recorded
    metrics.CONFLICTS.inc()
    log.error(
        "payment %s was recorded as %s, but the bank's answer is %s with the authorization code %s: it is %s now",
        payment_id,
        recorded.status,
        status,
        code or "none",
        corrected.status,
    )
    return corrected


async def settle_action(
    action: Action, status: ActionStatus, changed_by: str, note: str, response_code: str
) -> Action | None:
    """Record the bank's answer about an action that is settled, if that has to change; return the action.

    status, response_code: the bank's answer
    Raises `store.StoreUnavailable`.
    """
    recorded = await store.find_action(action.id)
    if recorded is None or recorded.status in {status, ActionStatus.PENDING}:
        return recorded
    corrected = recorded
    if status is ActionStatus.APPROVED:
        try:
            corrected = await store.correct_action(recorded, changed_by, note, response_code=response_code)
        except store.NotAvailable:  # the amount was used otherwise since; a person has to find out
            pass
        except store.NotInStatus:  # another process was faster
            return await store.find_action(action.id)
    metrics.CONFLICTS.inc()
    log.error(
        "action %s of payment %s was recorded as %s, but the bank's answer is %s: it is %s now",
        action.id,
        action.payment_id,
        recorded.status,
        status,
        corrected.status,
    )
    return corrected
