"""Card schemes: which scheme issued a card, by the first digits of its number (ISO/IEC 7812)."""

from typing import Final

# The first and the last of prefixes with the same number of digits.
_RANGES: Final = {
    "visa": [(4, 4)],
    "mastercard": [(51, 55), (2221, 2720)],
    "amex": [(34, 34), (37, 37)],
    "discover": [(6011, 6011), (644, 649), (65, 65)],
    "diners": [(300, 305), (3095, 3095), (36, 36), (38, 39)],
    "jcb": [(3528, 3589)],
    "unionpay": [(62, 62), (81, 81)],
    "maestro": [(50, 50), (56, 58), (6304, 6304), (6759, 6759), (6761, 6763)],
}
_SCHEMES: Final = {
    str(prefix): scheme
    for scheme, ranges in _RANGES.items()
    for first, last in ranges
    for prefix in range(first, last + 1)
}


def scheme_of(card_number: str) -> str | None:
    """Return the scheme of a card number in lower case, None if it is not known. The longest prefix counts."""
    for length in (4, 3, 2, 1):
        if (scheme := _SCHEMES.get(card_number[:length])) is not None:
            return scheme
    return None
