"""Which records in memory are due for a look-up: the same as storage/look_ups.py says for a database."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar


class Looked(Protocol):
    """When a look-up of a record is due, and how many there were."""

    look_up_at: datetime
    look_ups: int


R = TypeVar("R", bound=Looked)


def take_due(rows: Iterable[R], limit: int, interval_s: Callable[[int], float]) -> list[R]:
    """Return the rows that are due, those that were never looked up first; as `store.take_due`."""
    now = datetime.now(UTC)
    due = [row for row in rows if row.look_up_at <= now]
    taken = sorted(due, key=lambda row: (row.look_ups > 0, row.look_up_at))[:limit]
    for row in taken:
        row.look_up_at = now + timedelta(seconds=interval_s(row.look_ups))
        row.look_ups += 1
    return taken
