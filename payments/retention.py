"""Retention: how payments are erased once they are older than RETENTION_DAYS."""

import asyncio
import logging
from datetime import timedelta
from typing import Final

import store
from telemetry import causes

log = logging.getLogger("gateway.retention")

# Who erases, in the audit trail.
RETENTION: Final = "retention"

# The most payments that one transaction erases, and the seconds before the next one while there are more. It takes
# about 20 ms in SQLite, where other writers wait for it, and 90 ms in PostgreSQL, where none does.
BATCH: Final = 100
PAUSE_S: Final = 1.0

# Seconds between two searches when nothing is left to erase.
SEARCH_INTERVAL_S: Final = 60.0


async def run(days: int) -> None:
    """Erase payments that were created more than `days` days ago until cancelled."""
    while True:
        erased = 0
        try:
            erased = await store.erase_older(timedelta(days=days), BATCH, RETENTION, f"older than {days} days")
        except Exception as error:  # the store is unavailable, or there is a bug: neither may end this loop
            log.warning("payments older than %d days can't be erased now: %s", days, causes.of(error))
        if erased:
            log.info("%d payments older than %d days are erased", erased, days)
        await asyncio.sleep(PAUSE_S if erased == BATCH else SEARCH_INTERVAL_S)
