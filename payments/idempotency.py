"""Idempotency keys: how a key and a payment become the digests that the store keeps.

A repeated key with the same payment is the same payment (draft-ietf-httpapi-idempotency-key-header).
The fingerprint tells whether the payment is the same. It is an HMAC, because a plain hash of a card
number can be reversed in minutes by trying every number (PCI DSS 3.5.1.1). The CVV is part of the
fingerprint and is stored nowhere; FINGERPRINT_KEY is not in the store.
"""

import hmac
import json
import re
from typing import Any, Final

import store

_ESCAPED: Final = re.compile(r"\\(.)")


def key_of(header: str) -> str:
    """Return the key in an Idempotency-Key header that the contract allows; `"k"` and `k` are the same key."""
    header = header.strip(" \t")
    if header.startswith('"'):
        return _ESCAPED.sub(r"\1", header[1:-1])
    return header


def digest(key: str) -> str:
    """Return what the store keeps of a key, 64 hex digits; a merchant may put anything into it, even a card number."""
    return store.keyed_digest(f"key {key}")


def fingerprint(values: dict[str, Any]) -> str:
    """Return the fingerprint of a payment's values, 64 hex digits; their order does not matter."""
    return store.keyed_digest(json.dumps(values, sort_keys=True, separators=(",", ":")))


def same(one: str, other: str) -> bool:
    """Compare two fingerprints in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())
