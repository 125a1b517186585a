"""FastAPI, pydantic, aiohttp and a pool of bare asyncpg: the fastest durable stack among the common ones.

As in the gateway, a payment takes two transactions: it is PENDING before the bank is asked, and settled afterwards with
a line of the audit trail.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import aiohttp
import asyncpg
from fastapi import FastAPI, HTTPException

from bench.contenders.payment import NewPayment, Payment, for_bank, pending

URL = f"{os.environ['BANK_URL']}/payments"
TABLES = """
CREATE TABLE IF NOT EXISTS payments (
  id uuid PRIMARY KEY, merchant text NOT NULL, status text NOT NULL, card_last4 text NOT NULL,
  expiry_month integer NOT NULL, expiry_year integer NOT NULL, currency text NOT NULL, amount bigint NOT NULL,
  created_at timestamptz NOT NULL, authorization_code text NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS payments_created_at ON payments (created_at);
CREATE TABLE IF NOT EXISTS changes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payment_id uuid NOT NULL REFERENCES payments,
  changed_at timestamptz NOT NULL, from_status text NOT NULL, to_status text NOT NULL);
CREATE INDEX IF NOT EXISTS changes_payment ON changes (payment_id);
"""
COLUMNS = ", ".join(Payment.model_fields)
INSERT = f"INSERT INTO payments (merchant, {COLUMNS}) VALUES ('one', $1, $2, $3, $4, $5, $6, $7, $8)"  # noqa: S608
SETTLE = "UPDATE payments SET status = $2, authorization_code = $3 WHERE id = $1 AND status = 'PENDING'"
AUDIT = "INSERT INTO changes (payment_id, changed_at, from_status, to_status) VALUES ($1, $2, 'PENDING', $3)"
FIND = f"SELECT {COLUMNS} FROM payments WHERE id = $1"  # noqa: S608


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncpg.create_pool(os.environ["DATABASE"], min_size=8, max_size=8) as pool,
    ):
        await pool.execute(TABLES)
        app.state.session, app.state.pool = session, pool
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/api/v1/payments", status_code=201)
async def create_payment(new: NewPayment) -> Payment:
    payment = pending(new)
    await app.state.pool.execute(INSERT, *payment.model_dump().values())
    async with app.state.session.post(URL, json=for_bank(new)) as answer:
        answer.raise_for_status()
        answered = await answer.json()
    payment.status = "AUTHORIZED" if answered["authorized"] else "DECLINED"
    async with app.state.pool.acquire() as connection, connection.transaction():
        await connection.execute(SETTLE, payment.id, payment.status, answered["authorization_code"])
        await connection.execute(AUDIT, payment.id, datetime.now(UTC), payment.status)
    return payment


@app.get("/api/v1/payments/{payment_id}")
async def get_payment(payment_id: UUID) -> Payment:
    row = await app.state.pool.fetchrow(FIND, payment_id)
    if row is None:
        raise HTTPException(404)
    return Payment(**row)
