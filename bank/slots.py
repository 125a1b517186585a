"""Slots: how many calls to the bank may be in progress, and whose call is the next."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable


class RoundRobin:
    """Futures that wait for their turn. Merchants take turns; the futures of one merchant keep their order."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # the merchants in the order of their turns

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def count(self, merchant: str) -> int:
        """Return how many futures of this merchant wait."""
        return len(self._queues.get(merchant, ()))

    def add(self, merchant: str) -> "asyncio.Future[None]":
        """Return a new future of this merchant."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(merchant, deque()).append(future)
        return future

    def remove(self, merchant: str, future: "asyncio.Future[None]") -> None:
        """Remove a future that no longer waits."""
        queue = self._queues.get(merchant, deque())
        if future in queue:
            queue.remove(future)
        if not queue:
            self._queues.pop(merchant, None)

    def begin_next(self, may_begin: Callable[[str], bool] = lambda _: True) -> str | None:
        """Set the result of the next future; return its merchant, or None if there is none.

        may_begin: whether a merchant may have a turn now
        """
        while (merchant := next(filter(may_begin, self._queues), None)) is not None:
            queue = self._queues.pop(merchant)
            future = queue.popleft()
            if queue:
                self._queues[merchant] = queue
            if not future.done():  # else it was cancelled, and is not removed yet
                future.set_result(None)
                return merchant
        return None


class Slots:
    """Slots for calls, each held by a merchant.

    number: how many there are
    most_of: returns how many of a number of slots one merchant may hold; the answer may change with time
    """

    def __init__(self, number: int, most_of: Callable[[int], int]) -> None:
        self._number = self._free = number
        self._most_of = most_of
        self._held: Counter[str] = Counter()
        self._waiting = RoundRobin()

    def take(self, merchant: str) -> bool:
        """Take a slot if the merchant may have one now; return whether it did."""
        may = self._may_take(merchant)
        if may:
            self._free -= 1
            self._held[merchant] += 1
        return may

    async def wait(self, merchant: str) -> None:
        """Wait until the merchant may have a slot, and take it."""
        turn = self._waiting.add(merchant)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(merchant, turn)
            else:  # the slot was taken in the same turn of the event loop
                self.release(merchant)
            raise

    def release(self, merchant: str) -> None:
        """Give a slot back, to the next payment that waits and may have it."""
        self._free += 1
        self._held[merchant] -= 1
        while self._free and (next_merchant := self._waiting.begin_next(self._may_take)) is not None:
            self._free -= 1
            self._held[next_merchant] += 1

    def _may_take(self, merchant: str) -> bool:
        return self._free > 0 and self._held[merchant] < self._most_of(self._number)
