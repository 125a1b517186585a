"""What happens to a payment: claim it, ask the bank, settle it; or find it again.

The order is the guarantee. PENDING is recorded before the bank is asked, so every authorization that
the bank gives has a record here; payments/resolver.py settles what no request settles. No lock,
transaction or connection is held while the bank is asked.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import bank
import store
from payments import actions, asking, card_schemes, conflicts, idempotency
from payments.idempotency import KeyInUse, KeyReused
from store import Payment, State, Status
from telemetry import metrics, request_context

__all__ = ["KeyInUse", "KeyReused", "Paid", "find", "pay"]

log = logging.getLogger("gateway.payments")


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment, and whether an earlier request with the same idempotency key made it.

    is_sale: the payment is captured at once
    """

    payment: Payment
    replayed: bool = False
    is_sale: bool = False

    def is_in_doubt(self) -> bool:
        """Return whether the outcome of the authorization, or of the capture of a sale, is not known yet."""
        return self.payment.status is Status.PENDING or (self.is_sale and self.payment.held > 0)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One request for a payment, which may be a retry.

    id: what the store knows it by
    keeps_id: the payment has an idempotency key, so a retry needs the payment's id
    is_sale: the payment is captured at once
    """

    id: UUID
    payment: Payment
    keeps_id: bool
    is_sale: bool


async def pay(merchant: str, values: dict[str, Any], key: str | None = None) -> Paid:
    """Charge a card for a merchant, and return the payment.

    values: card_number, expiry_month, expiry_year, currency, amount in minor units, cvv; if they were sent, reference,
        metadata, and capture, which is whether to capture at once
    key: the merchant's idempotency key; requests with the same key and values are one payment, whatever their CVV

    The payment is AUTHORIZED or DECLINED when the bank answered, and PENDING when money may have moved
    but no answer came. No payment is kept when this raises: `KeyInUse`, `KeyReused` or
    `store.StoreUnavailable` before the payment is claimed, and `bank.NotReached` (or its subclass
    `bank.Overloaded`) or `bank.Refused` afterwards. If the payment was sent to the bank, a retry with the same key
    and values has the same id there, because a proxy may answer 503 after the bank did its work; if another bank is
    configured by then, the retry is PENDING without being sent. Once the payment is
    claimed no other exception is raised, not even when the request is cancelled: it is logged, and the payment is
    returned as far as its outcome is recorded, AUTHORIZED, DECLINED or else PENDING.
    """
    values = {name: value for name, value in values.items() if (name, value) != ("capture", False)}
    idempotency_key = None if key is None else idempotency.identify(key, values)
    card_number, cvv, is_sale = values.pop("card_number"), values.pop("cvv"), values.pop("capture", False)
    payment = Payment(
        id=uuid4(),
        merchant=merchant,
        status=Status.PENDING,
        card_last4=card_number[-4:],
        card_scheme=card_schemes.scheme_of(card_number),
        created_at=datetime.now(UTC),
        bank=bank.identity(),
        **values,
    )
    answer_by = time.monotonic() + bank.longest_s() + asking.STORE_S / 2
    claimed = await _claim(payment, idempotency_key)
    if isinstance(claimed, store.Claimed):
        return await _completed(replace(_replay(claimed), is_sale=is_sale))
    request = bank.AuthorizationRequest(
        payment_id=claimed.id,
        merchant=merchant,
        card_number=card_number,
        cvv=cvv,
        trace=request_context.now().trace(),
        answer_by=answer_by,
        **{name: values[name] for name in ("expiry_month", "expiry_year", "currency", "amount")},
    )
    attempt = _Attempt(payment.id, claimed, keeps_id=idempotency_key is not None, is_sale=is_sale)
    charged = await _charge(attempt, request)
    _report(charged)
    paid = Paid(charged, is_sale=is_sale)
    return await _completed(paid) if is_sale else paid


async def find(merchant: str, payment_id: UUID) -> Payment | None:
    """Return a merchant's payment, or None when the merchant has none with this id, or it is erased."""
    payment = await store.find(payment_id)
    return payment if payment is not None and payment.merchant == merchant and payment.erased_at is None else None


async def _claim(payment: Payment, key: store.IdempotencyKey | None) -> Payment | store.Claimed:
    try:
        return await store.claim(payment, key, bank.longest_s() + asking.STORE_S)
    except (store.StoreUnavailable, asyncio.CancelledError) as error:
        log.error("payment %s is not recorded, the bank was not asked: %s", payment.id, asking.reason(error))
        # The claim may be recorded all the same, now or later: perhaps only the store's answer was lost.
        unfinished = error.unfinished if isinstance(error, store.StoreUnavailable) else None
        withdraw = partial(store.withdraw, payment, key)
        store.keep_trying(payment.id, withdraw, what="that the bank was not asked", after=unfinished)
        raise store.StoreUnavailable from None


def _replay(claimed: store.Claimed) -> Paid:
    if not claimed.same_payment:
        raise KeyReused
    if claimed.in_progress:
        raise KeyInUse
    return Paid(claimed.payment, replayed=True)


async def _completed(paid: Paid) -> Paid:
    """Capture a sale that is not captured yet, also after a gateway stopped between the two."""
    if not paid.is_sale or paid.payment.state() is not State.AUTHORIZED:
        return paid
    return replace(paid, payment=await actions.capture_at_once(paid.payment))


async def _charge(attempt: _Attempt, request: bank.AuthorizationRequest) -> Payment:
    """Ask the bank and record its answer.

    Raises `bank.NotReached`, `bank.Refused` and `bank.NotSupported`, and nothing else.
    """
    payment = attempt.payment
    try:
        if attempt.is_sale:
            await bank.check_supports(bank.ActionType.CAPTURE)
        answer = await _ask_bank(request)
    except asking.NOT_PROCESSED as error:
        await _give_up(attempt, error)
        raise
    except (Exception, asyncio.CancelledError) as error:
        # `bank.NoAnswer`, a shutdown or a bug: in each case the bank may have got the request.
        log.error("payment %s is PENDING, money may have moved: %s", payment.id, asking.reason(error))
        await _mark_unresolved(payment.id)
        return payment
    try:
        return await _settle(attempt, answer)
    except (Exception, asyncio.CancelledError) as error:
        what = _what(answer)
        log.error("payment %s is PENDING, %s is not recorded yet: %s", payment.id, what, asking.reason(error))
        store.keep_trying(payment.id, partial(_settle, attempt, answer), what=what)
        return payment


async def _ask_bank(request: bank.AuthorizationRequest) -> bank.Authorization:
    """Call `bank.authorize`, and note for the log how long it took."""
    started = time.perf_counter()
    try:
        return await bank.authorize(request)
    finally:
        request_context.now().bank_s = time.perf_counter() - started


async def _settle(attempt: _Attempt, answer: bank.Authorization) -> Payment:
    payment, status = attempt.payment, _status(answer)
    try:
        return await store.settle(
            payment,
            status,
            asking.GATEWAY,
            code=answer.code,
            response_code=answer.response_code,
            attempt=attempt.id,
        )
    except store.NotInStatus:  # the resolver was faster, or only the answer to an earlier settling was lost
        recorded = await conflicts.settle(payment.id, status, asking.GATEWAY, "the bank's answer", answer.code)
        if recorded is None or recorded.status is Status.PENDING:
            log.error("payment %s: another attempt has claimed it, and %s is not recorded", payment.id, _what(answer))
        return recorded or payment


def _status(answer: bank.Authorization) -> Status:
    return Status.AUTHORIZED if answer.authorized else Status.DECLINED


def _what(answer: bank.Authorization) -> str:
    return f"the bank's answer {_status(answer)} with the authorization code {answer.code or 'none'}"


async def _give_up(attempt: _Attempt, error: bank.BankError) -> None:
    """Hide or delete the record of a payment that the bank did not process, now or in the background; never raises.

    If the bank was sent the payment, its id is kept for a retry.
    """
    payment_id = attempt.payment.id
    end = store.release if error.sent and attempt.keeps_id else store.drop
    log.warning("payment %s is not kept, the bank did not process it: %s", payment_id, error)
    try:
        await end(payment_id, attempt.id)
    except (Exception, asyncio.CancelledError) as failure:
        log.error("payment %s was not processed and is still recorded: %s", payment_id, asking.reason(failure))
        store.keep_trying(payment_id, partial(end, payment_id, attempt.id), what="that it was not processed")


async def _mark_unresolved(payment_id: UUID) -> None:
    """Let the resolver look the payment up soon; never raises."""
    try:
        await store.mark_unresolved(payment_id, asking.LOOK_UP_S)
    except (Exception, asyncio.CancelledError) as error:  # the resolver waits until the claim expires
        log.warning("payment %s is not marked as unresolved: %s", payment_id, asking.reason(error))


def _report(payment: Payment) -> None:
    """Count the payment and log it; never raises, because the payment is recorded and must be answered."""
    try:
        metrics.PAYMENTS.labels(payment.status, payment.currency).inc()
        log.debug("payment %s is %s", payment.id, payment.status)
    except Exception as error:
        log.error("payment %s is %s, and is not counted: %s", payment.id, payment.status, asking.reason(error))
