"""An event loop for tests whose clock stands still while anything is to do, and jumps to the next timer otherwise.

Waits of minutes take no time, and they take exactly as long as the code under test asks for.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Advances the time by as much as the loop would wait."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "the loop would wait forever"
        self.now_s += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does, with such a loop; its time begins near 0."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
