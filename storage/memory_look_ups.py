"""Which records in memory are due for a look-up: the same as storage/look_ups.py says for a database."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from storage.records import Action, Payment


class Looked(Protocol):
    """When a look-up of a record is due, and how many there were."""

    look_up_at: datetime
    look_ups: int


R = TypeVar("R", bound=Looked)
Recorded = TypeVar("Recorded", Payment, Action)


def take_due(rows: Iterable[R], limit: int, interval_s: Callable[[int], float]) -> list[R]:
    """Return the rows that are due, those that were never looked up first; as `store.take_due`."""
    now = datetime.now(UTC)
    due = [row for row in rows if row.look_up_at <= now]
    taken = sorted(due, key=lambda row: (row.look_ups > 0, row.look_up_at))[:limit]
    for row in taken:
        row.look_up_at = now + timedelta(seconds=interval_s(row.look_ups))
        row.look_ups += 1
    return taken


def list_unresolved(
    rows: Iterable[tuple[Recorded, datetime]], other_than: set[str] | None, limit: int | None
) -> list[Recorded]:
    """Return PENDING records whose time is over, oldest first; as `store.list_unresolved`.

    rows: PENDING records, each with the time until which its request may be running
    other_than: the names of a bank
    """
    now = datetime.now(UTC)
    unresolved = [record for record, working_until in rows if working_until <= now]
    if other_than is not None:
        unresolved = [record for record in unresolved if record.bank not in other_than]
    return sorted(unresolved, key=lambda record: record.created_at)[:limit]
