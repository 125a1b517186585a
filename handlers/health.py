"""Whether the gateway lives, and whether to send it payments. Nothing here asks for a key or is counted."""

import asyncio
from typing import Final

from connexion import AsyncApp
from starlette.requests import Request
from starlette.responses import JSONResponse

import bank
import store

LIVE: Final = "/health/live"
READY: Final = "/health/ready"
PATHS: Final = frozenset({LIVE, READY})

# A store that needs longer is down, as far as who asks every few seconds is concerned.
STORE_S: Final = 1.0

_stopping = False
_asking: "asyncio.Task[bool] | None" = None


def configure(*, stopping: bool) -> None:
    """Say whether the gateway is shutting down."""
    global _stopping
    _stopping = stopping


def serve(app: AsyncApp) -> None:
    """Serve both, beside the API."""
    app.add_url_rule(LIVE, "health_live", _live)
    app.add_url_rule(READY, "health_ready", _ready)


async def _live(_request: Request) -> JSONResponse:
    return JSONResponse({"status": "live"})


async def _ready(_request: Request) -> JSONResponse:
    reachable = await _store_answers()
    circuit_open = bank.circuit_open()
    ready = reachable and not _stopping
    return JSONResponse(
        {
            "status": "unavailable" if not ready else "degraded" if circuit_open else "ready",
            "stopping": _stopping,
            "store": "ok" if reachable else "unreachable",
            "bank": "unreachable" if circuit_open else "ok",
        },
        status_code=200 if ready else 503,
    )


async def _store_answers() -> bool:
    """Ask once at a time: a store that hangs would otherwise collect questions."""
    global _asking
    if _asking is None or _asking.done():
        _asking = asyncio.create_task(_is_reached())
    await asyncio.wait([_asking], timeout=STORE_S)
    return _asking.done() and _asking.result()


async def _is_reached() -> bool:
    try:
        await store.ping()
    except store.StoreUnavailable:
        return False
    return True
