"""Interrupts the domain at one of its calls to the store or the bank, before, during or after the call's work."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

import bank
import store

# The domain's calls that change something, by what they are for.
CALLS: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "claim": (store, ("claim", "claim_action")),
    "ask": (bank, ("authorize", "act")),
    "act": (bank, ("act",)),
    "end": (
        store,
        (
            "settle",
            "settle_action",
            "mark_unresolved",
            "mark_action_unresolved",
            "release",
            "drop",
            "drop_action",
        ),
    ),
}


class Killed(BaseException):  # not an Exception: no code of the gateway runs after its process was killed
    """The process has ended."""


class Lie(bank.NotReached):
    """A proxy has answered 503 after the bank did its work."""


@dataclass(frozen=True)
class Interruption:
    """What happens at a call.

    call: a key of `CALLS`
    when: before, during or after the work; what was begun goes on, and ends
    error: what is raised
    """

    call: str
    when: str
    error: type[BaseException]


POINTS: Final = [
    Interruption("claim", "after", Killed),
    Interruption("claim", "before", store.StoreUnavailable),
    Interruption("claim", "after", store.StoreUnavailable),
    Interruption("claim", "during", asyncio.CancelledError),
    Interruption("claim", "after", asyncio.CancelledError),
    Interruption("ask", "before", Killed),
    Interruption("ask", "after", Killed),
    Interruption("ask", "during", asyncio.CancelledError),
    Interruption("ask", "after", asyncio.CancelledError),
    *[Interruption("act", "after", Lie)] * 2,
    Interruption("end", "before", Killed),
    Interruption("end", "after", Killed),
    Interruption("end", "before", store.StoreUnavailable),
    Interruption("end", "after", store.StoreUnavailable),
    Interruption("end", "before", asyncio.CancelledError),
    Interruption("end", "during", asyncio.CancelledError),
    Interruption("end", "after", asyncio.CancelledError),
]


class Interrupter:
    """Stands between the domain and the functions in `CALLS`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._planned: Interruption | None = None
        for call, (module, names) in CALLS.items():
            for name in names:
                monkeypatch.setattr(module, name, self._interruptible(call, getattr(module, name)))

    def plan(self, interruption: Interruption | None) -> None:
        """Interrupt the next of these calls; None interrupts none."""
        self._planned = interruption

    def _interruptible(self, call: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wrapped(*arguments: Any, **options: Any) -> Any:
            planned = self._planned
            if planned is None or planned.call != call:
                return await function(*arguments, **options)
            self._planned = None
            if planned.when != "before":
                work = asyncio.ensure_future(function(*arguments, **options))
                await asyncio.wait([work], timeout=0 if planned.when == "during" else None)
                work.add_done_callback(_retrieve)
            raise planned.error

        return wrapped


def _retrieve(work: "asyncio.Future[Any]") -> None:
    """Mark the exception as retrieved: its caller was interrupted."""
    if not work.cancelled():
        work.exception()
