"""The same key is the same payment (draft-ietf-httpapi-idempotency-key-header): keys and fingerprints.

A fingerprint tells whether a request that repeats a key repeats the payment too. It is keyed: card
numbers are few enough that a plain hash of one can be searched in minutes (PCI DSS 3.5.1.1). The CVV
takes part in it and is kept nowhere. The key, FINGERPRINT_KEY, is never kept in the store.
"""

import hashlib
import hmac
import json
import re
from typing import Any, Final

_secret = b""

_ESCAPED: Final = re.compile(r"\\(.)")


def configure(fingerprint_key: bytes) -> None:
    """Use this key, 32 bytes."""
    global _secret
    _secret = fingerprint_key


def key_of(header: str) -> str:
    """Return the key of an Idempotency-Key header that the contract allows: quoted or bare, the same key."""
    header = header.strip(" \t")
    if header.startswith('"'):
        return _ESCAPED.sub(r"\1", header[1:-1])
    return header


def digest(key: str) -> str:
    """Return what a key is kept as, 64 hex digits: a merchant may put anything into it, a card number too."""
    return _hmac(f"key {key}")


def fingerprint(values: dict[str, Any]) -> str:
    """Return the HMAC-SHA256 of a payment's values, as 64 hex digits; their order does not matter."""
    return _hmac(json.dumps(values, sort_keys=True, separators=(",", ":")))


def same(one: str, other: str) -> bool:
    """Compare two fingerprints in a time that says nothing about them."""
    return hmac.compare_digest(one.encode(), other.encode())


def key_check() -> str:
    """Return what tells gateways with different keys apart and says nothing about the key."""
    return _hmac("key check")


def _hmac(text: str) -> str:
    return hmac.new(_secret, text.encode(), hashlib.sha256).hexdigest()
