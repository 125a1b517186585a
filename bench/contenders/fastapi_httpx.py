"""FastAPI, pydantic and one httpx client, as httpx's documentation recommends."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from bench.contenders.payment import NewPayment, Payment, for_bank, reads, record

URL = f"{os.environ['BANK_URL']}/payments"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=30) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(reads)


@app.post("/api/v1/payments", status_code=201)
async def create_payment(new: NewPayment) -> Payment:
    answer = await app.state.client.post(URL, json=for_bank(new))
    answer.raise_for_status()
    return record(new, authorized=answer.json()["authorized"])
