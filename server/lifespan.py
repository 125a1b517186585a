"""The lifespan of the app: background tasks that run while it serves, and a stop that loses no payment."""

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import AsyncIterator
from typing import Any

import bank
import store
from handlers.health import Health
from merchants import Merchants
from payments import resolver


@contextlib.asynccontextmanager
async def lifespan(merchants: Merchants, health: Health, drain_s: float, _app: object) -> AsyncIterator[None]:
    """Run the background tasks while the app serves, then close the bank and the store."""
    health.stopping = False
    _drain_on_sigterm(health, drain_s)
    await merchants.refresh()
    _collect_garbage_less_often()
    tasks = [
        asyncio.create_task(background) for background in (resolver.run(), merchants.run(), health.compare_clocks())
    ]
    yield
    health.stopping = True
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.stop()
    await asyncio.to_thread(bank.close)
    store.close()


def _collect_garbage_less_often() -> None:
    """Collect less often: payments leave hardly any cycles, and Python's default of 700 objects would take 7 % CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _drain_on_sigterm(health: Health, drain_s: float) -> None:
    """At SIGTERM become unready, and stop `drain_s` seconds later; uvicorn alone would stop at once."""
    if threading.current_thread() is not threading.main_thread():
        return  # a test that serves in a thread
    loop, stop = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    def drain(*caught: Any) -> None:
        health.stopping = True
        if callable(stop):
            loop.call_soon_threadsafe(loop.call_later, drain_s, stop, *caught)

    signal.signal(signal.SIGTERM, drain)
