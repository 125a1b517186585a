"""Whether the store takes writes: what the last one says, and a write of its own when there was none for a while."""

import logging
import time
from typing import Final

from storage.records import StoreUnavailable

log = logging.getLogger("gateway.store")

# Seconds for which the last write says whether the store takes writes.
VALID_S: Final = 5.0


class Writing:
    """What the writes of this process say."""

    def __init__(self) -> None:
        self._cause: str | None = None
        self._valid_until = 0.0

    def succeeded(self) -> None:
        """Note that something was written."""
        if self._cause is not None:
            log.warning("the store takes writes again")
        self._note(None)

    def failed(self, cause: str) -> None:
        """Note that a write failed, and why."""
        if cause != self._cause:
            log.error("the store takes no writes: %s", cause)
        self._note(cause)

    def is_known(self) -> bool:
        """Return whether the last write is so recent that `check` tells the truth."""
        return time.monotonic() < self._valid_until

    def check(self) -> None:
        """Raise `StoreUnavailable` with the cause if the last write failed."""
        if self._cause is not None:
            raise StoreUnavailable(self._cause)

    def _note(self, cause: str | None) -> None:
        self._cause = cause
        self._valid_until = time.monotonic() + VALID_S
