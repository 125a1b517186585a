"""What the FastAPI contenders share: pydantic models of the contract, a dict of payments, and the read."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID, uuid4

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Digits = StringConstraints(pattern="^[0-9]+$")


class Currency(StrEnum):
    GBP = "GBP"
    USD = "USD"
    CNY = "CNY"


class NewPayment(BaseModel):
    model_config = ConfigDict(extra="forbid")

    card_number: Annotated[str, Digits, Field(min_length=14, max_length=19)]
    expiry_month: Annotated[int, Field(ge=1, le=12)]
    expiry_year: Annotated[int, Field(ge=1000, le=9999)]
    currency: Currency
    amount: Annotated[int, Field(ge=1, le=999_999_999_999)]
    cvv: Annotated[str, Digits, Field(min_length=3, max_length=4)]

    @model_validator(mode="after")
    def not_expired(self) -> Self:
        today = datetime.now(UTC)
        if (self.expiry_year, self.expiry_month) < (today.year, today.month):
            raise ValueError("expired")
        return self


class Payment(BaseModel):
    id: UUID
    status: str
    card_last4: str
    expiry_month: int
    expiry_year: int
    currency: Currency
    amount: int
    created_at: datetime


payments: dict[UUID, Payment] = {}
reads = APIRouter()


@reads.get("/api/v1/payments/{payment_id}")
async def get_payment(payment_id: UUID) -> Payment:
    if payment_id not in payments:
        raise HTTPException(404)
    return payments[payment_id]


def for_bank(new: NewPayment) -> dict[str, Any]:
    return {
        "card_number": new.card_number,
        "expiry_date": f"{new.expiry_month:02}/{new.expiry_year}",
        "currency": new.currency,
        "amount": new.amount,
        "cvv": new.cvv,
    }


def pending(new: NewPayment) -> Payment:
    return Payment(
        id=uuid4(),
        status="PENDING",
        card_last4=new.card_number[-4:],
        created_at=datetime.now(UTC),
        **new.model_dump(exclude={"card_number", "cvv"}),
    )


def record(new: NewPayment, *, authorized: bool) -> Payment:
    payment = pending(new)
    payment.status = "AUTHORIZED" if authorized else "DECLINED"
    payments[payment.id] = payment
    return payment
