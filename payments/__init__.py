"""The life of a payment: claim it, ask the bank, settle it; or find it again.

The order is the guarantee. PENDING is recorded before the bank is asked, so whatever happens
afterwards, an authorization that the bank gave has a record here, which resolver.py ends when nobody
else does. No lock, transaction or connection is held while the bank is asked.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import bank
import store
from payments import idempotency
from store import Payment, Status
from telemetry import metrics, request_context

log = logging.getLogger("gateway.payments")

# Who settles, in the audit trail.
GATEWAY: Final = "gateway"

# What the store may take of a payment's time, half of it before the bank is asked. Until the bank's
# deadline and this have passed, the first request with a key counts as at work.
STORE_S: Final = 2.0

# When to ask the bank about a payment whose answer did not come: a bank that was too slow for us is
# likely to know the answer by then.
LOOK_UP_S: Final = 2.0


class KeyInUse(Exception):
    """The first request with this key is still at work."""


class KeyReused(Exception):
    """The key came before, with another payment."""


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment, and whether it was made now or by an earlier request with the same key."""

    payment: Payment
    replayed: bool = False


async def pay(merchant: str, values: dict[str, Any], key: str | None = None) -> Paid:
    """Charge a card for a merchant, and return the payment.

    values: card_number, expiry_month, expiry_year, currency, amount in minor units, cvv
    key: the merchant's; the same key with the same values is the same payment, however often it comes

    The payment is AUTHORIZED or DECLINED when the bank answered, and PENDING when money may have
    moved but no answer came. Raises `bank.Overloaded`, `bank.NotReached`, `bank.Refused` or
    `store.StoreUnavailable` when money certainly has not moved, and then nothing is kept; `KeyInUse` and `KeyReused`.
    """
    values = dict(values)
    idempotency_key = None
    if key is not None:
        idempotency_key = store.IdempotencyKey(
            digest=idempotency.digest(key), fingerprint=idempotency.fingerprint(values)
        )
    card_number, cvv = values.pop("card_number"), values.pop("cvv")
    payment = Payment(
        id=uuid4(),
        merchant=merchant,
        status=Status.PENDING,
        card_last4=card_number[-4:],
        created_at=datetime.now(UTC),
        **values,
    )
    answer_by = time.monotonic() + bank.longest_s() + STORE_S / 2
    request = bank.AuthorizationRequest(
        payment_id=payment.id,
        card_number=card_number,
        cvv=cvv,
        trace=request_context.now().trace(),
        answer_by=answer_by,
        **values,
    )
    with bank.room():
        claimed = await _claim(payment, idempotency_key)
        if claimed is not None and idempotency_key is not None:
            return _again(claimed, idempotency_key.fingerprint)
        paid = Paid(await _authorize(payment, request))
    metrics.PAYMENTS.labels(paid.payment.status, payment.currency).inc()
    return paid


async def find(merchant: str, payment_id: UUID) -> Payment | None:
    """Return a merchant's payment, or None when the merchant has none with this id."""
    payment = await store.find(payment_id)
    return payment if payment is not None and payment.merchant == merchant else None


async def _claim(payment: Payment, key: store.IdempotencyKey | None) -> store.Claimed | None:
    try:
        return await store.claim(payment, key, bank.longest_s() + STORE_S)
    except (store.StoreUnavailable, asyncio.CancelledError) as error:
        log.error("payment %s not recorded, the bank was not asked: %s", payment.id, _safe_text(error))
        # It may be recorded all the same, now or later, when only the answer was lost.
        unfinished = error.unfinished if isinstance(error, store.StoreUnavailable) else None
        store.keep_trying(payment.id, lambda: store.drop(payment.id), after=unfinished)
        raise store.StoreUnavailable from None


def _again(claimed: store.Claimed, fingerprint: str) -> Paid:
    if not idempotency.same(claimed.fingerprint, fingerprint):
        raise KeyReused
    if claimed.in_progress:
        raise KeyInUse
    return Paid(claimed.payment, replayed=claimed.payment.status is not Status.PENDING)


async def _authorize(payment: Payment, request: bank.AuthorizationRequest) -> Payment:
    try:
        authorized = await _ask(request)
    except (bank.NotReached, bank.Refused) as error:
        log.warning("payment %s dropped, nothing was charged: %s", payment.id, error)
        await _drop(payment.id)
        raise
    except (Exception, asyncio.CancelledError) as error:
        # NoAnswer; or the gateway is made to stop, or has a bug, and then too money may have moved.
        log.error("payment %s is PENDING, money may have moved: %s", payment.id, _safe_text(error))
        with contextlib.suppress(store.StoreUnavailable):  # then it counts as at work a little longer
            await store.mark_unresolved(payment.id, LOOK_UP_S)
        return payment
    status = Status.AUTHORIZED if authorized else Status.DECLINED
    try:
        return await _settle(payment, status)
    except (Exception, asyncio.CancelledError) as error:  # whatever it is, the money is what it is
        log.error(
            "payment %s is PENDING, its answer from the bank is not recorded yet: %s", payment.id, _safe_text(error)
        )
        store.keep_trying(payment.id, lambda: _settle(payment, status))
        return payment


async def _ask(request: bank.AuthorizationRequest) -> bool:
    started = time.perf_counter()
    try:
        return await bank.authorize(request)
    finally:
        request_context.now().bank_s = time.perf_counter() - started


async def _settle(payment: Payment, status: Status) -> Payment:
    try:
        settled = await store.settle(payment.id, status, GATEWAY)
    except store.NotPending:  # resolver.py was faster, or only the answer to our settling was lost
        settled = await store.find(payment.id) or payment
        if settled.status is not status:
            log.critical("payment %s is %s, but the bank answered %s", payment.id, settled.status, status)
    log.debug("payment %s %s", settled.id, settled.status)
    return settled


async def _drop(payment_id: UUID) -> None:
    try:
        await store.drop(payment_id)
    except store.StoreUnavailable as error:
        log.error("payment %s did not happen and is not dropped yet: %s", payment_id, error)
        store.keep_trying(payment_id, lambda: store.drop(payment_id))


def _safe_text(error: BaseException) -> str:
    """Say what went wrong without repeating words that are not our own."""
    return str(error) if isinstance(error, (bank.BankError, store.StoreUnavailable)) else type(error).__name__
