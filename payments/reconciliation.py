"""Reconciliation: how the bank's statement is read, and compared with what is recorded here.

A statement is a CSV file (RFC 4180) with a heading. It is read and looked up in batches; only the ids of its payments
stay in memory, to find out which of ours are not in it.
"""

import asyncio
import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import store
from store import Payment, Status

# The columns that a statement must have: what stands in them, as a pattern and in words.
_WANTED: Final = {
    "payment_id": (r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "a UUID"),
    "amount": (r"[0-9]{1,18}", "a whole number of minor units"),
    "currency": (r"[A-Z]{3}", "three capital letters"),
    "outcome": (r"authorized|declined", "authorized or declined"),
}
COLUMNS: Final = tuple(_WANTED)

# The columns that a statement may have besides: what the bank has captured and refunded of the payment.
_OPTIONAL: Final = dict.fromkeys(("captured", "refunded"), _WANTED["amount"])
OPTIONAL_COLUMNS: Final = tuple(_OPTIONAL)

# Lines that are looked up at once, and the most differences that a report keeps; it counts them all.
BATCH: Final = 500
KEPT: Final = 1000


class Finding(StrEnum):
    """How a payment of the statement and one of ours compare."""

    MATCHED = "matched"
    MISSING_HERE = "missing here"
    MISSING_THERE = "missing there"
    AMOUNT_DIFFERS = "amount differs"
    OUTCOME_DIFFERS = "outcome differs"
    CAPTURED_DIFFERS = "captured differs"
    REFUNDED_DIFFERS = "refunded differs"
    TWICE_THERE = "twice there"


class Malformed(Exception):
    """The statement can't be read. The message has the number of the line, and nothing that stands in it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the statement. Amounts are in minor units, None if the statement does not have them."""

    payment_id: UUID
    amount: int
    currency: str
    status: Status
    captured: int | None = None
    refunded: int | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A payment that differs: as it is recorded here, and as the statement has it; one of the two may be None."""

    finding: Finding
    here: Payment | None
    there: Line | None

    def payment_id(self) -> UUID:
        """Return the id of the payment."""
        if self.here is not None:
            return self.here.id
        assert self.there is not None
        return self.there.payment_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Which of our payments the statement must have: those created in a time, and sent to a bank. None: any."""

    since: datetime | None = None
    until: datetime | None = None
    bank: str | None = None


@dataclass(slots=True)
class Report:
    """The counts of all findings, and the first `KEPT` differences."""

    counts: Counter[Finding] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    def differing(self) -> int:
        """Return how many differences there are."""
        return self.counts.total() - self.counts[Finding.MATCHED]

    def add(self, finding: Finding, here: Payment | None, there: Line | None) -> None:
        """Count a finding, and keep a difference."""
        self.counts[finding] += 1
        if finding is not Finding.MATCHED and len(self.differences) < KEPT:
            self.differences.append(Difference(finding, here, there))


def read(text: Iterable[str]) -> Iterator[Line]:
    """Read a statement line by line. Columns may have any order, and further ones are ignored. Raises `Malformed`."""
    rows = csv.reader(text, strict=True)
    names: list[str] = []
    try:
        for row in rows:
            if names and row:
                yield _line(names, row)
            elif row:
                names = _heading(row)
    except csv.Error:
        raise Malformed(f"line {rows.line_num}: it is not valid CSV") from None
    except _Wrong as wrong:
        raise Malformed(f"line {rows.line_num}: {wrong}") from None
    if not names:
        raise Malformed("line 1: the heading is missing")


async def compare(statement: Iterator[Line], period: Period) -> Report:
    """Compare a statement with the records of the store. Raises `Malformed` and `store.StoreUnavailable`."""
    report, seen = Report(), set[bytes]()
    while batch := list(itertools.islice(statement, BATCH)):
        await _compare_lines(batch, seen, report)
        await asyncio.sleep(0)  # with payments in memory, this runs in the gateway
    after: Payment | None = None
    while page := await store.list_authorized(period.since, period.until, period.bank, after):
        after = page[-1]
        for payment in page:
            if payment.id.bytes not in seen:
                report.add(Finding.MISSING_THERE, payment, None)
    return report


async def _compare_lines(batch: Sequence[Line], seen: set[bytes], report: Report) -> None:
    found = await store.find_all([line.payment_id for line in batch])
    for line in batch:
        here = found.get(line.payment_id)
        if line.payment_id.bytes in seen:
            report.add(Finding.TWICE_THERE, here, line)
            continue
        seen.add(line.payment_id.bytes)
        for finding in _findings(here, line):
            report.add(finding, here, line)


def _findings(here: Payment | None, there: Line) -> list[Finding]:
    if here is None:
        return [Finding.MISSING_HERE]
    findings = []
    if (here.amount, here.currency) != (there.amount, there.currency):
        findings.append(Finding.AMOUNT_DIFFERS)
    if here.status is not there.status:
        findings.append(Finding.OUTCOME_DIFFERS)
    if there.captured not in {None, here.captured}:
        findings.append(Finding.CAPTURED_DIFFERS)
    if there.refunded not in {None, here.refunded}:
        findings.append(Finding.REFUNDED_DIFFERS)
    return findings or [Finding.MATCHED]


class _Wrong(Exception):
    """What is wrong with a line."""


def _heading(row: list[str]) -> list[str]:
    names = [name.strip() for name in row]
    if any(names.count(name) != 1 for name in COLUMNS):
        raise _Wrong(f"the heading must have each of {', '.join(COLUMNS)} once")
    if any(names.count(name) > 1 for name in OPTIONAL_COLUMNS):
        raise _Wrong(f"the heading must not have one of {', '.join(OPTIONAL_COLUMNS)} twice")
    return names


def _line(names: list[str], row: list[str]) -> Line:
    if len(row) != len(names):
        raise _Wrong("it has not as many fields as the heading")
    values = dict(zip(names, map(str.strip, row), strict=True))
    for name, (pattern, wanted) in (_WANTED | _OPTIONAL).items():
        if name in values and not re.fullmatch(pattern, values[name]):
            raise _Wrong(f"{name} must be {wanted}")
    payment_id, amount, currency, outcome = (values[name] for name in COLUMNS)
    done = {name: int(values[name]) for name in OPTIONAL_COLUMNS if name in values}
    return Line(UUID(payment_id), int(amount), currency, Status(outcome.upper()), **done)
