"""FastAPI, pydantic, aiohttp and SQLAlchemy's asyncio ORM over asyncpg: what most teams would write.

As in the gateway, a payment takes two transactions: it is PENDING before the bank is asked, and settled afterwards with
a line of the audit trail.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import aiohttp
import sqlalchemy as sa
from fastapi import FastAPI, HTTPException
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench.contenders.payment import NewPayment, Payment, for_bank, pending

URL = f"{os.environ['BANK_URL']}/payments"
Time = sa.DateTime(timezone=True)


class Base(DeclarativeBase):
    pass


class Recorded(Base):
    __tablename__ = "payments"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    merchant: Mapped[str] = mapped_column(default="one")
    status: Mapped[str]
    card_last4: Mapped[str]
    expiry_month: Mapped[int]
    expiry_year: Mapped[int]
    currency: Mapped[str]
    amount: Mapped[int] = mapped_column(sa.BigInteger)
    created_at: Mapped[datetime] = mapped_column(Time, index=True)
    authorization_code: Mapped[str] = mapped_column(default="")


class Change(Base):
    __tablename__ = "changes"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Recorded.id), index=True)
    changed_at: Mapped[datetime] = mapped_column(Time)
    from_status: Mapped[str]
    to_status: Mapped[str]


engine = create_async_engine(
    os.environ["DATABASE"].replace("postgresql:", "postgresql+asyncpg:"), pool_size=8, max_overflow=0
)
transaction = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        app.state.session = session
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/api/v1/payments", status_code=201)
async def create_payment(new: NewPayment) -> Payment:
    payment = pending(new)
    async with transaction.begin() as session:
        session.add(Recorded(**payment.model_dump()))
    async with app.state.session.post(URL, json=for_bank(new)) as answer:
        answer.raise_for_status()
        answered = await answer.json()
    payment.status = "AUTHORIZED" if answered["authorized"] else "DECLINED"
    settled = {"status": payment.status, "authorization_code": answered["authorization_code"]}
    unsettled = sa.update(Recorded).where(Recorded.id == payment.id, Recorded.status == "PENDING")
    async with transaction.begin() as session:
        await session.execute(unsettled.values(settled))
        change = {"changed_at": datetime.now(UTC), "from_status": "PENDING", "to_status": payment.status}
        session.add(Change(payment_id=payment.id, **change))
    return payment


@app.get("/api/v1/payments/{payment_id}")
async def get_payment(payment_id: UUID) -> Payment:
    async with transaction() as session:
        recorded = await session.get(Recorded, payment_id)
    if recorded is None:
        raise HTTPException(404)
    return Payment.model_validate(recorded, from_attributes=True)
