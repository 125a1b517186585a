"""The store: a payment is found as it was last recorded, and a dropped one is not."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

import store
from store import Payment, Status


def pending() -> Payment:
    return Payment(
        id=uuid4(),
        status=Status.PENDING,
        card_last4="8877",
        expiry_month=12,
        expiry_year=2099,
        currency="GBP",
        amount=1050,
        created_at=datetime.now(UTC),
    )


@pytest.mark.parametrize("status", [Status.AUTHORIZED, Status.DECLINED])
def test_a_settled_payment_is_found_settled(status: Status) -> None:
    """Only its status changes."""

    async def scenario() -> None:
        payment = pending()
        await store.claim(payment)
        assert await store.find(payment.id) == payment
        assert await store.settle(payment.id, status) == replace(payment, status=status)
        assert await store.find(payment.id) == replace(payment, status=status)

    asyncio.run(scenario())


def test_a_dropped_payment_is_gone() -> None:
    """As if it had never been."""

    async def scenario() -> None:
        payment = pending()
        await store.claim(payment)
        await store.drop(payment.id)
        assert await store.find(payment.id) is None

    asyncio.run(scenario())


def test_an_unknown_payment_is_not_found() -> None:
    """None, not an error."""
    assert asyncio.run(store.find(uuid4())) is None
