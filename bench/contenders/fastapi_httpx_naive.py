"""FastAPI, pydantic and a new httpx client for each request: a common mistake in a first version."""

import os

import httpx
from fastapi import FastAPI

from bench.contenders.payment import NewPayment, Payment, for_bank, reads, record

URL = f"{os.environ['BANK_URL']}/payments"

app = FastAPI()
app.include_router(reads)


@app.post("/api/v1/payments", status_code=201)
async def create_payment(new: NewPayment) -> Payment:
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(URL, json=for_bank(new))
    answer.raise_for_status()
    return record(new, authorized=answer.json()["authorized"])
