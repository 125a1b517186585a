"""How arguments of several commands are read, and how an error in one is said."""

import argparse
import re
from datetime import UTC, datetime
from typing import NoReturn
from uuid import UUID


class Parser(argparse.ArgumentParser):
    """A parser that says in words which values it allows."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2. An invalid choice is not repeated, because it may hold anything."""
        found = re.fullmatch(r"argument (.+?): invalid choice: .* \(choose from (.+)\)", message, re.DOTALL)
        if found is not None:
            message = f"argument {found[1]}: not one of its values; allowed: {found[2].replace(chr(39), '')}"
        super().error(message)


def payment_id(text: str) -> UUID:
    """Read the id of a payment."""
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not the id of a payment; allowed: a UUID, as `payments` shows it") from None


def time(text: str) -> datetime:
    """Read a time, which is in UTC unless it says otherwise."""
    try:
        given = datetime.fromisoformat(text)
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("not a time; allowed: a time like 2026-11-22T10:15") from None


def limit(text: str) -> int:
    """Read the most rows to list."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10**6):
        raise argparse.ArgumentTypeError("not a limit; allowed: 1 to 1000000")
    return int(text)
