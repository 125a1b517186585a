"""Card schemes: which scheme issued a card, by the first digits of its number (ISO/IEC 7812)."""

from typing import Final

# Prefixes, as ranges of numbers with the same count of digits. The longest prefix that fits counts.
_RANGES: Final = {
    "visa": [("4", "4")],
    "mastercard": [("51", "55"), ("2221", "2720")],
    "amex": [("34", "34"), ("37", "37")],
    "discover": [("6011", "6011"), ("644", "649"), ("65", "65")],
    "diners": [("300", "305"), ("3095", "3095"), ("36", "36"), ("38", "39")],
    "jcb": [("3528", "3589")],
    "unionpay": [("62", "62"), ("81", "81")],
    "maestro": [("50", "50"), ("56", "58"), ("6304", "6304"), ("6759", "6759"), ("6761", "6763")],
}


def scheme_of(card_number: str) -> str | None:
    """Return the scheme of a card number in lower case, None if it is not known."""
    fitting = {
        len(first): scheme
        for scheme, ranges in _RANGES.items()
        for first, last in ranges
        if first <= card_number[: len(first)] <= last
    }
    return fitting[max(fitting)] if fitting else None
