"""Migrations: a store of each earlier schema is upgraded with its payments, their keys and their audit trail."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import sqlalchemy as sa

import store
from store import Claimed, IdempotencyKey, Payment, Status
from tests import older_store

AT = "2026-11-22 10:15:30.123456"
KEY = IdempotencyKey(digest="n" * 64, older_digests=("k" * 64,), fingerprint="f" * 64)
PAYMENT = Payment(
    id=UUID("3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c"),
    merchant="acme",
    status=Status.AUTHORIZED,
    card_last4="8877",
    expiry_month=12,
    expiry_year=2099,
    currency="GBP",
    amount=1050,
    created_at=datetime(2026, 11, 22, 10, 15, 30, 123456, tzinfo=UTC),
)


def fill(connection: sa.Connection) -> None:
    """Record one payment, its key and a line of its audit trail, as a gateway of revision 0002 did."""
    payment_id = sa.bindparam("id", type_=sa.Uuid)
    connection.execute(
        sa.text(
            "INSERT INTO payments (id, merchant, idempotency_key, fingerprint, status, card_last4, expiry_month,"
            " expiry_year, currency, amount, created_at, working_until, look_up_at, look_ups) VALUES (:id, 'acme',"
            " :digest, :fingerprint, 'AUTHORIZED', '8877', 12, 2099, 'GBP', 1050, :at, :at, :at, 0)"
        ).bindparams(payment_id),
        {"id": PAYMENT.id, "digest": KEY.older_digests[0], "fingerprint": KEY.fingerprint, "at": AT},
    )
    connection.execute(
        sa.text(
            "INSERT INTO changes (payment_id, changed_at, changed_by, from_status, to_status, note)"
            " VALUES (:id, :at, 'gateway', 'PENDING', 'AUTHORIZED', '')"
        ).bindparams(payment_id),
        {"id": PAYMENT.id, "at": AT},
    )


def test_a_store_without_released_claims_is_upgraded(database_url: str) -> None:
    """Its keys still belong to their payments, and its audit trail still refers to them."""
    with older_store.made(database_url, "0002") as connection:
        fill(connection)
    store.configure(database_url, fingerprint_key=bytes(32))

    async def scenario() -> None:
        assert await store.search() == [PAYMENT]
        assert PAYMENT.bank == store.UNKNOWN_BANK
        (change,) = await store.history(PAYMENT.id)
        assert (change.changed_by, change.to_status) == ("gateway", Status.AUTHORIZED)
        new = replace(PAYMENT, id=uuid4(), status=Status.PENDING)
        assert await store.claim(new, KEY, 60) == Claimed(payment=PAYMENT, same_payment=True, in_progress=False)
        other = IdempotencyKey(digest="o" * 64, fingerprint="f" * 64)
        assert await store.claim(new, other, 60) == new
        await store.release(new.id, new.id)
        assert await store.claim(replace(new, id=uuid4()), other, 60) == new
        await store.settle(new, Status.DECLINED, "someone")
        assert len(await store.history(new.id)) == 1

    asyncio.run(scenario())
