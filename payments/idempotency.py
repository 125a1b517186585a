"""Idempotency keys: how a key and a payment become the digests that the store keeps.

A repeated key with the same payment is the same payment (draft-ietf-httpapi-idempotency-key-header).
The fingerprint tells whether the payment is the same. It is an HMAC, because a plain hash of a card
number can be reversed in minutes by trying every number (PCI DSS 3.5.1.1); FINGERPRINT_KEY is not in
the store. The CVV takes part in nothing that is kept (PCI DSS 3.3.1). The digest of an idempotency key
needs no secret, because the contract accepts no key that looks like a card number.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import store


class KeyInUse(Exception):
    """The first request with this idempotency key is still running."""


class KeyReused(Exception):
    """The idempotency key belongs to something else, or to a payment that is erased and can't be compared any more."""


_ESCAPED: Final = re.compile(r"\\(.)")


def key_of(header: str) -> str:
    """Return the key in an Idempotency-Key header that the contract allows; `"k"` and `k` are the same key."""
    header = header.strip(" \t")
    if header.startswith('"'):
        return _ESCAPED.sub(r"\1", header[1:-1])
    return header


def identify(key: str, values: Mapping[str, Any]) -> store.IdempotencyKey:
    """Return what the store keeps of a key and of the payment that was sent with it.

    values: the payment's; their order does not matter, and neither does the CVV
    """
    kept = {name: value for name, value in values.items() if name != "cvv"}
    fingerprints = store.keyed_digests(json.dumps(kept, sort_keys=True, separators=(",", ":")))
    key_id = next(iter(fingerprints))
    return store.IdempotencyKey(
        digest=store.salted_digest(key),
        older_digests=tuple(store.keyed_digests(f"key {key}").values()) if store.has_older_digests() else (),
        fingerprint=fingerprints.pop(key_id),
        fingerprint_key=key_id,
        older_fingerprints=fingerprints,
    )


def identify_action(key: str, payment_id: UUID, kind: store.ActionType, values: Mapping[str, Any]) -> store.ActionKey:
    """Return what the store keeps of a key and of the action that was sent with it, which holds nothing of a card."""
    kept = {"payment_id": str(payment_id), "type": kind, **values}
    fingerprint = store.salted_digest(json.dumps(kept, sort_keys=True, separators=(",", ":")))
    return store.ActionKey(digest=store.salted_digest(key), fingerprint=fingerprint)


def key_of_sale(payment_id: UUID) -> str:
    """Return the key of the capture that follows an authorization at once. No merchant's key begins like it."""
    return f"\0sale {payment_id}"
