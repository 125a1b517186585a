"""The life of a payment: claim it, ask the bank, settle it; or find it again.

The order is the guarantee. PENDING is recorded before the bank is asked, so whatever happens
afterwards, an authorization that the bank gave has a record here. No lock and no transaction is
held while the bank is asked.
"""

import logging
from datetime import UTC, datetime
from uuid import UUID, uuid4

import bank
import store
from store import Payment, Status

log = logging.getLogger("gateway.payments")


async def pay(
    *, card_number: str, expiry_month: int, expiry_year: int, currency: str, amount: int, cvv: str
) -> Payment:
    """Charge `amount` minor units of `currency` to the card, and return the payment.

    It is AUTHORIZED or DECLINED when the bank answered, and PENDING when money may have moved but
    no answer came. Raises `bank.NotReached` or `bank.Refused` when money certainly has not moved;
    then nothing is recorded.
    """
    payment = Payment(
        id=uuid4(),
        status=Status.PENDING,
        card_last4=card_number[-4:],
        expiry_month=expiry_month,
        expiry_year=expiry_year,
        currency=currency,
        amount=amount,
        created_at=datetime.now(UTC),
    )
    request = bank.AuthorizationRequest(
        payment_id=payment.id,
        card_number=card_number,
        expiry_month=expiry_month,
        expiry_year=expiry_year,
        currency=currency,
        amount=amount,
        cvv=cvv,
    )
    await store.claim(payment)
    try:
        authorized = await bank.authorize(request)
    except (bank.NotReached, bank.Refused) as error:
        await store.drop(payment.id)
        log.warning("payment %s dropped, nothing was charged: %s", payment.id, error)
        raise
    except Exception as error:  # NoAnswer; or a bug of ours, and then too money may have moved
        reason = error if isinstance(error, bank.NoAnswer) else type(error).__name__
        log.error("payment %s is PENDING, money may have moved: %s", payment.id, reason)
        return payment
    payment = await store.settle(payment.id, Status.AUTHORIZED if authorized else Status.DECLINED)
    log.info("payment %s %s", payment.id, payment.status)
    return payment


async def find(payment_id: UUID) -> Payment | None:
    """Return the payment, or None when there is none with this id."""
    return await store.find(payment_id)
