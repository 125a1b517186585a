"""Comparison of two documents by rules: each says what it means to clients that a value became another.

A request may allow more than before, because clients send what was allowed. An answer may allow less, because clients
understand what was allowed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import Any


class Change(IntEnum):
    """The kinds of changes. A document has changed as its most severe difference has."""

    NONE = 0
    WIDENING = 1
    BREAKING = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `at` is its place with references resolved; None is the absence of a value."""

    change: Change
    at: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.change.name.lower()} at {self.at}: {self.before!s:.60} became {self.after!s:.60}"


# Compares two values of one place, which is named. The values are not equal.
Rule = Callable[[Any, Any, str], Iterator[Difference]]

# Returns whether the second value allows less (-1), the same (0), more (1) or something else (None).
Order = Callable[[Any, Any], int | None]


def exact(before: Any, after: Any, at: str) -> Iterator[Difference]:
    """Break when the value changes."""
    yield Difference(Change.BREAKING, at, before, after)


def tolerated(before: Any, after: Any, at: str) -> Iterator[Difference]:
    """Widen when the value changes."""
    yield Difference(Change.WIDENING, at, before, after)


def wording(_before: Any, _after: Any, _at: str) -> Iterator[Difference]:
    """Ignore the value."""
    yield from ()


def element(**rules: Rule) -> Rule:
    """Compare two mappings key by key; a key without a rule is exact. `-` in a key is `_` in the argument."""

    def rule(before: Any, after: Any, at: str) -> Iterator[Difference]:
        if not (isinstance(before, dict) and isinstance(after, dict)):
            yield from exact(before, after, at)
            return
        for key in before | after:
            if before.get(key) != after.get(key):
                compared = rules.get(key.replace("-", "_"), exact)
                yield from compared(before.get(key), after.get(key), f"{at} {key}".strip())

    return rule


def entries(rule: Rule, *, added: Change | Callable[[str, Any], Change]) -> Rule:
    """Compare two mappings with names that the contract chooses, such as properties; none may be removed."""

    def compared(before: Any, after: Any, at: str) -> Iterator[Difference]:
        before, after = before or {}, after or {}
        for name in before | after:
            if name not in after:
                yield Difference(Change.BREAKING, f"{at} {name}", "there", None)
            elif name not in before:
                change = added(name, after[name]) if callable(added) else added
                yield Difference(change, f"{at} {name}", None, "there")
            elif before[name] != after[name]:
                yield from rule(before[name], after[name], f"{at} {name}")

    return compared


def restriction(order: Order, *, request: bool) -> Rule:
    """Compare two restrictions of a request or of an answer."""

    def rule(before: Any, after: Any, at: str) -> Iterator[Difference]:
        step = order(before, after)
        if step != 0:
            compatible = step is not None and (step > 0) is request
            yield Difference(Change.WIDENING if compatible else Change.BREAKING, at, before, after)

    return rule


def upper(before: Any, after: Any) -> int:
    """Compare upper bounds; without one, everything is allowed."""
    before, after = (inf if bound is None else bound for bound in (before, after))
    return 1 if after > before else -1


def lower(before: Any, after: Any) -> int:
    """Compare lower bounds; without one, everything is allowed."""
    before, after = (-inf if bound is None else bound for bound in (before, after))
    return 1 if after < before else -1


def presence(before: Any, after: Any) -> int | None:
    """Compare rules of which only the absence is known to allow more."""
    return 1 if after is None else -1 if before is None else None


def permitting(before: Any, after: Any) -> int:
    """Compare switches that allow something."""
    return bool(after) - bool(before)


def restricting(before: Any, after: Any) -> int:
    """Compare switches that forbid something."""
    return permitting(after, before)


def allowed(before: Any, after: Any) -> int | None:
    """Compare lists of what is allowed, in any order; without one, everything is."""
    return _members(before, after) if before and after else presence(before or None, after or None)


def required(before: Any, after: Any) -> int | None:
    """Compare lists of what must be there, in any order."""
    return _members(after or [], before or [])


def _members(before: list[Any], after: list[Any]) -> int | None:
    more = any(member not in before for member in after)
    less = any(member not in after for member in before)
    return None if more and less else more - less
