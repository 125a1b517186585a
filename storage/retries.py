"""Retries: how what a store would not take is tried again in the background, and logged if the gateway stops before."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

from storage.records import StoreUnavailable

log = logging.getLogger("gateway.store")

# Seconds between the attempts; the last one repeats.
DELAYS_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


class Retries:
    """What is being tried again."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(
        self,
        payment_id: UUID,
        record: Callable[[], Awaitable[object]],
        what: str,
        after: "asyncio.Future[Any] | None" = None,
    ) -> None:
        """Call `record` until the store takes it, or until `stop`; the parameters are those of `store.keep_trying`."""
        task = asyncio.create_task(_retry(payment_id, record, what, after))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancel what is still tried, and log it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _retry(
    payment_id: UUID, record: Callable[[], Awaitable[object]], what: str, after: "asyncio.Future[Any] | None"
) -> None:
    try:
        await _until_recorded(payment_id, record, what, after)
    except asyncio.CancelledError:
        log.error("payment %s: %s was not recorded before the gateway stopped", payment_id, what)
        raise


async def _until_recorded(
    payment_id: UUID, record: Callable[[], Awaitable[object]], what: str, after: "asyncio.Future[Any] | None"
) -> None:
    if after is not None:
        await asyncio.wait([after])
    for delay_s in itertools.chain(DELAYS_S, itertools.repeat(DELAYS_S[-1])):
        await asyncio.sleep(delay_s)
        try:
            await record()
        except Exception as error:
            reason = str(error) if isinstance(error, StoreUnavailable) else type(error).__name__
            log.warning("payment %s: %s is not recorded yet: %s", payment_id, what, reason)
        else:
            log.info("payment %s: %s is recorded now", payment_id, what)
            return
