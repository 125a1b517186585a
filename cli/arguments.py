"""How arguments of several commands are read, and how an error in one is said."""

import argparse
import re
from datetime import UTC, datetime
from typing import NoReturn
from uuid import UUID

from cli import free_text


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
    return _id(text, "a payment", "payments")


def pending_id(text: str) -> UUID:
    """Read the id of a payment or of an action."""
    return _id(text, "a payment or an action", "pending")


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


def amount(text: str) -> int:
    """Read an amount in minor units."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:19]) <= 10**18):
        raise argparse.ArgumentTypeError("not an amount; allowed: a whole number of minor units, like 1050 for 10.50")
    return int(text)


def note(text: str) -> str:
    """Read a note for the audit trail."""
    if not (1 <= len(text) <= 500 and text.isprintable()):
        raise argparse.ArgumentTypeError("not a note; allowed: 1 to 500 printable characters")
    return free_text.checked(text, "note")


def _id(text: str, what: str, command: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not the id of {what}; allowed: a UUID, as `{command}` shows it") from None
