"""How the text of a setting is read: one function for each kind, which raises `ValueError` saying what is wrong.

Nothing that may hold a secret is repeated in what they say.
"""

import math
import re
import ssl
from collections.abc import Callable
from typing import Any, Final

import iso4217
import limits
import redis

MEMORY: Final = "memory:"

# What a merchant may be called.
MERCHANT_NAME: Final = r"[A-Za-z][A-Za-z0-9_.-]{0,63}"


def currencies(text: str) -> tuple[str, ...]:
    """ISO 4217 codes separated by commas."""
    known = iso4217.Currency.__members__
    codes = _list(text)
    for code in codes:
        if not re.fullmatch("[A-Z]{3}", code) or code not in known or known[code].exponent is None:
            raise ValueError(f"has {code!r}, which is no ISO 4217 code of money with a minor unit")
    if len(set(codes)) < len(codes):
        raise ValueError("has a code twice")
    return codes


def store_url(text: str) -> str:
    """The URL of a store, as SQLAlchemy writes it."""
    if text != MEMORY and not re.fullmatch(r"sqlite:///.+|postgresql\+psycopg://.+", text):
        raise ValueError("is not a store")
    return text


def fingerprint_key(text: str) -> bytes:
    """32 bytes in hexadecimal."""
    if text and not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("is not 64 hex digits")
    return bytes.fromhex(text)


def api_keys(text: str) -> dict[str, str]:
    """Merchants by the digests of their keys, written `merchant:digest` and separated by commas."""
    keys = {}
    for entry in _list(text):
        found = re.fullmatch(rf"({MERCHANT_NAME}):([0-9a-f]{{64}})", entry)
        if found is None:
            raise ValueError("has an entry that is not merchant:digest")
        keys[found[2]] = found[1]
    return keys


def origins(text: str) -> tuple[str, ...]:
    """Origins (RFC 6454) separated by commas, or a `*`."""
    for origin in _list(text):
        if not re.fullmatch(r"\*|https?://([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?", origin):
            raise ValueError(f"has {origin!r}, which is no origin")
    return _list(text)


def rate_limits(text: str) -> tuple[limits.RateLimitItem, ...]:
    """Rates as the library `limits` writes them."""
    if not text:
        return ()
    try:
        items = tuple(limits.parse_many(text))
    except ValueError:
        items = ()
    if not items or any(item.amount < 1 for item in items):
        raise ValueError(f"is {text!r}")
    if len({item.get_expiry() for item in items}) < len(items):
        raise ValueError("has a period twice")
    return items


def rate_limit_store(text: str) -> str:
    """This process's memory, or the URL of a Redis."""
    try:
        if text != MEMORY:
            redis.ConnectionPool.from_url(text)  # which connects to nothing yet
    except ValueError:
        text = ""
    if not text.startswith((MEMORY, "redis://", "rediss://")):
        raise ValueError("is neither memory nor a Redis")
    return text


def authorities_file(text: str) -> str | None:
    """A file of certificates of authorities, in PEM."""
    if text:
        try:
            ssl.create_default_context(cafile=text)
        except (OSError, ValueError):
            raise ValueError("can't be read as certificates") from None
    return text or None


def certificate_file(text: str) -> str | None:
    """A file with a certificate and its key, in PEM."""
    if text:
        check_certificate(text, None)
    return text or None


def check_certificate(certificate: str, key: str | None) -> None:
    """Raise `ValueError` unless the key is the certificate's, and neither needs a password."""
    try:
        # Without a password given, OpenSSL would ask for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError):
        raise ValueError("can't be read as a certificate and its key") from None


def unchecked(text: str) -> str | None:
    """A text that the package which uses it checks."""
    return text or None


def path(text: str) -> str | None:
    """A file's path."""
    return text or None


def host(text: str) -> str:
    """An address or a host name."""
    if not text.isprintable() or any(character.isspace() or character in "/[]" for character in text):
        raise ValueError(f"is {text!r}")
    return text


def one_of(*words: str) -> tuple[Callable[[str], str], str]:
    """One of these words, in upper or lower case."""

    def parse(text: str) -> str:
        for word in words:
            if word.casefold() == text.casefold():
                return word
        raise ValueError(f"is {text!r}")

    return parse, ", ".join(words)


def integer(low: int, high: int) -> tuple[Callable[[str], int], str]:
    """An integer within bounds."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"is {text!r}")
        return int(text)

    return parse, f"an integer from {low} to {high}"


def integer_or_unset(low: int, high: int) -> tuple[Callable[[str], int | None], str]:
    """An integer within bounds, or nothing."""
    parse, allowed = integer(low, high)
    return lambda text: parse(text) if text else None, allowed


def seconds(low: float, high: float) -> tuple[Callable[[str], float], str]:
    """Seconds within bounds."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"is {text!r}")
        return number

    return parse, f"seconds from {low:g} to {high:g}"


def _list(text: str) -> tuple[Any, ...]:
    return tuple(entry.strip() for entry in text.split(",")) if text else ()
