"""Health checks: whether the process runs, and whether it can take payments. They need no key and are not limited."""

import asyncio
import logging
from typing import Final

from starlette.responses import JSONResponse, Response

import bank
import store
from handlers.contract import Endpoint
from telemetry import metrics

log = logging.getLogger("gateway.health")

LIVE: Final = "/health/live"
READY: Final = "/health/ready"
PATHS: Final = frozenset({LIVE, READY})

# Seconds between two comparisons of the clocks, and the difference at which readiness, log and metric say so.
CLOCK_INTERVAL_S: Final = 60.0
CLOCK_LIMIT_S: Final = 5.0

# Seconds. A load balancer that asks every few seconds treats a slower store as down.
STORE_S: Final = 1.0


class Health:
    """The two health checks of one gateway. `stopping` is set once the gateway begins to stop.

    simulator: whether the bank is the built-in simulator
    """

    def __init__(self, *, simulator: bool) -> None:
        self._simulator = simulator
        self.stopping = False
        self._clock_ok = True
        self._asking: asyncio.Task[bool] | None = None

    def endpoints(self) -> dict[str, Endpoint]:
        """Return the checks by path."""
        return {LIVE: self._live, READY: self._ready}

    async def compare_clocks(self) -> None:
        """Compare the gateway's clock with the database's every minute until cancelled.

        The difference does not make the gateway unready: the times that decide about payments are the database's.
        """
        while True:
            try:
                offset_s = await store.clock_offset_s()
            except Exception as error:  # the store is unavailable; a bug must not end this loop
                log.warning("the clocks can't be compared now: %s", type(error).__name__)
            else:
                metrics.CLOCK_OFFSET.set(offset_s)
                self._clock_ok = abs(offset_s) <= CLOCK_LIMIT_S
                if not self._clock_ok:
                    log.warning("the gateway's clock is %.1f s ahead of the database's", offset_s)
            await asyncio.sleep(CLOCK_INTERVAL_S)

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
                "clock": "ok" if self._clock_ok else "differs",
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
