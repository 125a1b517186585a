"""What happens to an action: claim it with its amount, ask the bank, settle it; or find it again.

The order is the guarantee, as for payments: the action is PENDING, and holds its amount, before the bank is asked.
payments/resolver.py settles what no request settles.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import bank
import store
from payments import asking, conflicts, idempotency, states
from payments.idempotency import KeyInUse, KeyReused
from store import Action, ActionKey, ActionStatus, ActionType, ClaimedAction, Payment
from telemetry import metrics, request_context

log = logging.getLogger("gateway.payments")

# How often an action is planned again after another request has changed the payment's amounts.
TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Acted:
    """An action, and whether an earlier request with the same idempotency key made it."""

    action: Action
    replayed: bool = False


async def act(
    payment: Payment,
    kind: ActionType,
    values: Mapping[str, Any],
    key: str | None = None,
    *,
    operator: str = "",
    note: str = "",
) -> Acted:
    """Capture, void or refund a payment, and return the action.

    values: amount in minor units, without one all that is left; final, for a capture; reason, reference, metadata
    key: the merchant's idempotency key; requests with the same key and values are one action
    operator, note: who asks for it in the merchant's place, and why, for the audit trail

    The action is APPROVED or DECLINED when the bank answered, and PENDING when money may have moved but no answer
    came. No action is kept when this raises: `states.ActionRefused`, `KeyInUse`, `KeyReused`, `bank.NotSupported` or
    `store.StoreUnavailable` before the bank is asked, and `bank.NotReached` or `bank.Refused` afterwards. Once the
    action is claimed nothing else is raised.
    """
    identity = None if key is None else idempotency.identify_action(key, payment.id, kind, values)
    if identity is not None:
        claimed = await store.find_action_key(payment.merchant, identity)
        if claimed is not None:
            return _replay(claimed)
    await _check_bank(payment, kind)
    answer_by = time.monotonic() + bank.longest_s() + asking.STORE_S / 2
    attempt = uuid4()
    try:
        recorded = await _claim(payment, kind, values, identity, attempt, operator=operator, note=note)
    except states.ActionRefused:
        # Perhaps because a request with the same key has made the action meanwhile.
        claimed = await store.find_action_key(payment.merchant, identity) if identity else None
        if claimed is None:
            raise
        return _replay(claimed)
    if isinstance(recorded, ClaimedAction):
        return _replay(recorded)
    done = await _ask(recorded, attempt, bool(values.get("final", False)), answer_by)
    _report(done)
    return Acted(done)


async def capture_at_once(payment: Payment) -> Payment:
    """Capture all of a payment that was just authorized, once however often it is called; return the payment.

    Never raises: if nothing is captured, the payment is AUTHORIZED.
    """
    try:
        await act(payment, ActionType.CAPTURE, {"final": True}, idempotency.key_of_sale(payment.id))
    except (Exception, asyncio.CancelledError) as error:
        log.warning("payment %s is authorized, but not captured: %s", payment.id, asking.reason(error))
    try:
        return await store.find(payment.id) or payment
    except (Exception, asyncio.CancelledError) as error:
        log.warning("payment %s can't be read again: %s", payment.id, asking.reason(error))
        return payment


async def _check_bank(payment: Payment, kind: ActionType) -> None:
    """Raise `bank.NotSupported` if the bank can't do the action, `bank.NotReached` if that is not known now."""
    known = payment.bank == store.UNKNOWN_BANK or await store.is_same_bank(payment.bank, bank.identity())
    if not known:
        raise bank.NotSupported("the payment was authorized by another bank than the one that is configured")
    await bank.check_supports(bank.ActionType(kind))


def _replay(claimed: ClaimedAction) -> Acted:
    if claimed.action is None or not claimed.same_action:
        raise KeyReused
    if claimed.in_progress:
        raise KeyInUse
    return Acted(claimed.action, replayed=True)


async def _claim(
    payment: Payment,
    kind: ActionType,
    values: Mapping[str, Any],
    key: ActionKey | None,
    attempt: UUID,
    **asked_by: str,
) -> Action | ClaimedAction:
    for _ in range(TRIES):
        action = _new(payment, kind, values)
        try:
            return await store.claim_action(action, key, attempt, bank.longest_s() + asking.STORE_S, **asked_by)
        except store.NotAvailable:  # another request was faster
            payment = await store.find(payment.id) or payment
        except (store.StoreUnavailable, asyncio.CancelledError) as error:
            log.error("action %s is not recorded, the bank was not asked: %s", action.id, asking.reason(error))
            # The claim may be recorded all the same, now or later: perhaps only the store's answer was lost.
            unfinished = error.unfinished if isinstance(error, store.StoreUnavailable) else None
            drop = partial(store.drop_action, action.id, attempt)
            store.keep_trying(payment.id, drop, what="that the bank was not asked", after=unfinished)
            raise store.StoreUnavailable from None
    raise states.InProgress


def _new(payment: Payment, kind: ActionType, values: Mapping[str, Any]) -> Action:
    """Return the action to claim. Raises `states.ActionRefused`."""
    amounts = states.plan(payment, kind, values.get("amount"), final=values.get("final", False))
    now = datetime.now(UTC)
    return Action(
        id=uuid4(),
        payment_id=payment.id,
        merchant=payment.merchant,
        type=kind,
        status=ActionStatus.PENDING,
        amount=amounts.amount,
        releases=amounts.releases,
        currency=payment.currency,
        reason=values.get("reason"),
        reference=values.get("reference"),
        metadata=values.get("metadata", {}),
        bank=bank.identity(),
        created_at=now,
        updated_at=now,
    )


async def _ask(action: Action, attempt: UUID, final: bool, answer_by: float) -> Action:  # noqa: FBT001
    """Ask the bank and record its answer.

    Raises `bank.NotReached`, `bank.Refused` and `bank.NotSupported`, and nothing else.
    """
    request = bank.ActionRequest(
        action_id=action.id,
        payment_id=action.payment_id,
        type=bank.ActionType(action.type),
        merchant=action.merchant,
        amount=action.amount,
        currency=action.currency,
        final=final,
        trace=request_context.now().trace(),
        answer_by=answer_by,
    )
    try:
        answer = await _answer(request)
    except asking.NOT_PROCESSED as error:
        log.warning("action %s is not kept, the bank did not process it: %s", action.id, error)
        await _drop(action, attempt)
        raise
    except (Exception, asyncio.CancelledError) as error:
        # `bank.NoAnswer`, a shutdown or a bug: in each case the bank may have got the request.
        log.error("action %s is PENDING, money may have moved: %s", action.id, asking.reason(error))
        await _mark_unresolved(action)
        return action
    try:
        return await _settle(action, attempt, answer)
    except (Exception, asyncio.CancelledError) as error:
        what = f"the bank's answer {_status(answer)} to action {action.id}"
        log.error("action %s is PENDING, %s is not recorded yet: %s", action.id, what, asking.reason(error))
        store.keep_trying(action.payment_id, partial(_settle, action, attempt, answer), what=what)
        return action


async def _answer(request: bank.ActionRequest) -> bank.ActionResult:
    """Return the bank's decision.

    A proxy may answer 503 after the bank did its work, and what another action takes meanwhile depends on that. So the
    bank is asked what became of the action, and only its promise never to do it makes a 503 of it.
    """
    try:
        return await bank.act(request)
    except bank.NotReached as error:
        if not error.sent:
            raise
        try:
            found = await bank.look_up_action(request.payment_id, request.action_id)
        except bank.BankError as failure:
            raise bank.NoAnswer(f"{error}, and the bank did not say what became of it: {failure}") from None
        if found.approved is not None:
            return bank.ActionResult(found.approved, found.response_code)
        if not found.final:
            raise bank.NoAnswer(f"{error}, and the bank may still do it") from None
        raise


async def _settle(action: Action, attempt: UUID, answer: bank.ActionResult) -> Action:
    status, code = _status(answer), answer.response_code
    try:
        return await store.settle_action(action, status, asking.GATEWAY, response_code=code, attempt=attempt)
    except store.NotInStatus:  # the resolver was faster, or only the answer to an earlier settling was lost
        settled = await conflicts.settle_action(action, status, asking.GATEWAY, "the bank's answer", code)
        return settled or action


def _status(answer: bank.ActionResult) -> ActionStatus:
    return ActionStatus.APPROVED if answer.approved else ActionStatus.DECLINED


async def _drop(action: Action, attempt: UUID) -> None:
    """Delete the record of an action that the bank did not process, now or in the background; never raises."""
    drop = partial(store.drop_action, action.id, attempt)
    try:
        await drop()
    except (Exception, asyncio.CancelledError) as failure:
        log.error("action %s was not processed and is still recorded: %s", action.id, asking.reason(failure))
        store.keep_trying(action.payment_id, drop, what=f"that action {action.id} was not processed")


async def _mark_unresolved(action: Action) -> None:
    """Let the resolver look the action up soon; never raises."""
    try:
        await store.mark_action_unresolved(action.id, asking.LOOK_UP_S)
    except (Exception, asyncio.CancelledError) as error:  # the resolver waits until the claim expires
        log.warning("action %s is not marked as unresolved: %s", action.id, asking.reason(error))


def _report(action: Action) -> None:
    """Count the action; never raises, because the action is recorded and must be answered."""
    try:
        metrics.ACTIONS.labels(action.type, action.status).inc()
    except Exception as error:
        log.error("action %s is %s, and is not counted: %s", action.id, action.status, asking.reason(error))
