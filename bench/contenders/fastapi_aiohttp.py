"""FastAPI, pydantic and one aiohttp session: the fastest stack among the common ones."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from fastapi import FastAPI

from bench.contenders.payment import NewPayment, Payment, for_bank, reads, record

URL = f"{os.environ['BANK_URL']}/payments"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        app.state.session = session
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(reads)


@app.post("/api/v1/payments", status_code=201)
async def create_payment(new: NewPayment) -> Payment:
    async with app.state.session.post(URL, json=for_bank(new)) as answer:
        answer.raise_for_status()
        return record(new, authorized=(await answer.json())["authorized"])
