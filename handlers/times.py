"""Times in requests (RFC 3339), any of which is read: what Python can't hold becomes the nearest time that it can."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import store

_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)


def parse(text: str) -> datetime:
    """Return the time in UTC, to the microsecond; a leap second counts as the second before it."""
    found = _TIME.fullmatch(text.upper())
    assert found is not None, "the contract's format has been checked"
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    if year == 0:
        return store.EARLIEST
    microsecond = int((found[7] or "0")[:6].ljust(6, "0"))
    written = datetime(year, month, day, hour, minute, min(second, 59), microsecond, tzinfo=UTC)
    offset = timedelta(hours=int(found[9] or 0), minutes=int(found[10] or 0))
    try:
        return written + offset if found[8] == "-" else written - offset
    except OverflowError:
        return store.LATEST if found[8] == "-" else store.EARLIEST
