"""The lifespan of the app: background tasks that run while it serves, and a stop that loses no payment."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import FrameType

import bank
import store
from handlers.health import Health
from merchants import Merchants
from payments import resolver, retention
from server.middleware.rate_limit import RateLimiter
from telemetry import logs

log = logging.getLogger("gateway.lifespan")


@contextlib.asynccontextmanager
async def lifespan(
    merchants: Merchants, limiter: RateLimiter, health: Health, drain_s: float, retention_days: int | None, _app: object
) -> AsyncIterator[None]:
    """Run the background tasks while the app serves, then close the bank and the store."""
    health.stopping = False
    _stop_on_signals(health, drain_s)
    await merchants.refresh()
    await limiter.check_store()
    _collect_garbage_less_often()
    background = [resolver.run(), merchants.run(), health.compare_clocks()]
    if retention_days is not None:
        background.append(retention.run(retention_days))
    tasks = [asyncio.create_task(task) for task in background]
    yield
    health.stopping = True
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.stop()
    await asyncio.to_thread(bank.close)
    store.close()
    log.info("process %d has stopped", os.getpid())
    await asyncio.to_thread(logs.flush)  # SIGTERM ends a worker before it could write its last lines


def _collect_garbage_less_often() -> None:
    """Collect less often: payments leave hardly any cycles, and Python's default of 700 objects would take 7 % CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _stop_on_signals(health: Health, drain_s: float) -> None:
    """At SIGTERM become unready, and stop `drain_s` seconds later; at SIGINT stop at once, as uvicorn does."""
    if threading.current_thread() is not threading.main_thread():
        return  # a test that serves in a thread
    loop = asyncio.get_running_loop()

    def begin(stop: Callable[..., object], wait_s: float, caught: int, frame: FrameType | None) -> None:
        if not health.stopping:
            health.stopping = True
            loop.call_soon_threadsafe(_log_stop, caught, wait_s)
        if wait_s:
            loop.call_soon_threadsafe(loop.call_later, wait_s, stop, caught, frame)
        else:
            stop(caught, frame)

    for number, wait_s in ((signal.SIGTERM, drain_s), (signal.SIGINT, 0.0)):
        stop = signal.getsignal(number)
        if callable(stop):
            signal.signal(number, partial(begin, stop, wait_s))


def _log_stop(caught: int, wait_s: float) -> None:
    then = f"serves for {wait_s:g} s more and then " if wait_s else ""
    name = signal.Signals(caught).name
    log.info("process %d begins to stop at %s: it %sfinishes the requests in progress", os.getpid(), name, then)
