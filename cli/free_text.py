"""Text that an operator types and that is kept: it must not hold a card number (PCI DSS 3.3.1)."""

import argparse

from telemetry.masking import holds_card_number


def checked(text: str, name: str) -> str:
    """Return the text. Raises `argparse.ArgumentTypeError`, which does not show it, if it may hold a card number."""
    if holds_card_number(text):
        raise argparse.ArgumentTypeError(f"not a {name}; it holds what may be a card number: leave out its digits")
    return text
