"""An ASGI function with a constant answer: the cost of uvicorn alone."""

from typing import Any

BODY = (
    b'{"id": "6ab2b2a2-1b5c-4d3e-8f90-1a2b3c4d5e6f", "status": "AUTHORIZED", "card_last4": "8877", "expiry_month": 12,'
    b' "expiry_year": 2099, "currency": "GBP", "amount": 1050, "created_at": "2026-11-23T00:00:00.000000Z"}'
)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        if scope["method"] == "POST":
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.start", "status": 201, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})
