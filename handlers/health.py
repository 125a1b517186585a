"""Health checks: whether the process runs, and whether it can take payments. They need no key and are not limited."""

import asyncio
from typing import Final

from starlette.responses import JSONResponse, Response

import bank
import store
from handlers.contract import Endpoint

LIVE: Final = "/health/live"
READY: Final = "/health/ready"
PATHS: Final = frozenset({LIVE, READY})

# Seconds. A load balancer that asks every few seconds treats a slower store as down.
STORE_S: Final = 1.0


class Health:
    """The two health checks of one gateway. `stopping` is set once the gateway begins to stop.

    simulator: whether the bank is the built-in simulator
    """

    def __init__(self, *, simulator: bool) -> None:
        self._simulator = simulator
        self.stopping = False
        self._asking: asyncio.Task[bool] | None = None

    def endpoints(self) -> dict[str, Endpoint]:
        """Return the checks by path."""
        return {LIVE: self._live, READY: self._ready}

    async def _live(self) -> Response:
        return JSONResponse({"status": "live"})

    async def _ready(self) -> Response:
        store_ok, circuit_open = await self._store_answers(), bank.circuit_open()
        ready = store_ok and not self.stopping
        return JSONResponse(
            {
                "status": "unavailable" if not ready else "degraded" if circuit_open else "ready",
                "stopping": self.stopping,
                "store": "ok" if store_ok else "unreachable",
                "bank": "unreachable" if circuit_open else "ok",
                "simulator": self._simulator,
            },
            status_code=200 if ready else 503,
        )

    async def _store_answers(self) -> bool:
        """Return whether the store answers. One call at a time: calls to a store that hangs would otherwise pile up."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(_ping())
        await asyncio.wait([self._asking], timeout=STORE_S)
        return self._asking.done() and self._asking.result()


async def _ping() -> bool:
    try:
        await store.ping()
    except store.StoreUnavailable:
        return False
    return True
