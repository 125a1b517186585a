"""Which identities belong to one bank: a bank may move to another URL, and an operator records that."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from storage.records import UNKNOWN_BANK


@dataclass(frozen=True, slots=True, kw_only=True)
class BankMove:
    """What an operator said: the bank that had the identity `old` has the identity `new` now."""

    old: str
    new: str
    moved_at: datetime
    moved_by: str


def is_same_bank(recorded: str, now: str, moves: Iterable[BankMove]) -> bool:
    """Return whether the bank with the identity `recorded` has the identity `now`, after any number of moves."""
    moves, reached = list(moves), {recorded}
    for _ in moves:
        reached |= {move.new for move in moves if move.old in reached}
    return now in reached


def names_of_bank(identity: str, moves: Iterable[BankMove]) -> set[str]:
    """Return the identities that a bank has and had, and the one of payments whose bank is not recorded."""
    moves = list(moves)
    return {identity, UNKNOWN_BANK, *(move.old for move in moves if is_same_bank(move.old, identity, moves))}
