"""Health checks: whether the process runs, and whether it can take payments. They need no key and are not limited."""

import asyncio
import logging
from typing import Final, NamedTuple

from starlette.responses import JSONResponse, Response

import bank
import store
from config import VERSION
from handlers.contract import Endpoint
from telemetry import causes, metrics

log = logging.getLogger("gateway.health")

LIVE: Final = "/health/live"
READY: Final = "/health/ready"
PATHS: Final = frozenset({LIVE, READY})

# Seconds between two comparisons of the clocks, and the difference at which readiness, log and metric say so.
CLOCK_INTERVAL_S: Final = 60.0
CLOCK_LIMIT_S: Final = 5.0

# Seconds. A load balancer that asks every few seconds treats a slower store as down.
STORE_S: Final = 1.0

# What readiness says of the store and of the bank.
_OK: Final = "ok"
_UNREACHABLE: Final = "unreachable"
_UNWRITABLE: Final = "unwritable"
_TOO_OLD: Final = "gateway_too_old"


class _Store(NamedTuple):
    """What readiness says of the store, and why, in a few words; None if it is ok."""

    state: str
    cause: str | None = None


class Health:
    """The two health checks of one gateway. `stopping` is set once the gateway begins to stop.

    simulator: whether the bank is the built-in simulator
    """

    def __init__(self, *, simulator: bool) -> None:
        self._simulator = simulator
        self.stopping = False
        self._clock_ok = True
        self._asking: asyncio.Task[_Store] | None = None
        self._is_too_old = False

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
                log.warning("the clocks can't be compared now: %s", causes.of(error))
            else:
                metrics.CLOCK_OFFSET.set(offset_s)
                self._clock_ok = abs(offset_s) <= CLOCK_LIMIT_S
                if not self._clock_ok:
                    log.warning("the gateway's clock is %.1f s ahead of the database's", offset_s)
            await asyncio.sleep(CLOCK_INTERVAL_S)

    async def _live(self) -> Response:
        return JSONResponse({"status": "live", "version": VERSION})

    async def _ready(self) -> Response:
        found, circuit_open = await self._ask_store(), bank.circuit_open()
        self._report(found.state)
        ready = found.state == _OK and not self.stopping
        return JSONResponse(
            {
                "status": "unavailable" if not ready else "degraded" if circuit_open else "ready",
                "stopping": self.stopping,
                "store": found.state,
                "store_cause": found.cause,
                "bank": _UNREACHABLE if circuit_open else _OK,
                "clock": _OK if self._clock_ok else "differs",
                "simulator": self._simulator,
            },
            status_code=200 if ready else 503,
        )

    async def _ask_store(self) -> _Store:
        """Ask the store. One call at a time: calls to a store that hangs would otherwise pile up."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(_ask())
        await asyncio.wait([self._asking], timeout=STORE_S)
        return self._asking.result() if self._asking.done() else _Store(_UNREACHABLE, f"no answer within {STORE_S:g} s")

    def _report(self, store_state: str) -> None:
        if store_state == _TOO_OLD and not self._is_too_old:
            log.error("a newer gateway has changed the store: this gateway is not ready any more, replace it")
        self._is_too_old = store_state == _TOO_OLD


async def _ask() -> _Store:
    try:
        await store.ping()
    except store.GatewayTooOld:
        return _Store(_TOO_OLD, "schema too new")
    except store.StoreUnavailable as error:
        return _Store(_UNREACHABLE, str(error))
    try:
        await store.check_writing()
    except store.StoreUnavailable as error:
        return _Store(_UNWRITABLE, str(error))
    return _Store(_OK)
