"""The keys of fingerprints: FINGERPRINT_KEY makes digests, and FINGERPRINT_OLD_KEYS verify older ones."""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

# The text whose HMAC, the key check, identifies a key.
_CHECK: Final = "key check"

# How many hex digits of the key check are the id of the key.
_ID_LENGTH: Final = 8


class FingerprintKeys:
    """The fingerprint keys of a gateway, 32 bytes each. Raises `ValueError` for any other length.

    checks: the HMACs that identify the keys, 64 hex digits each; that of FINGERPRINT_KEY comes first
    """

    def __init__(self, current: bytes, old: Sequence[bytes] = ()) -> None:
        keys = (current, *old)
        if any(len(key) != 32 for key in keys):
            raise ValueError("a fingerprint key is not 32 bytes")
        self.checks = [_hmac(key, _CHECK) for key in keys]
        self._keys = {check[:_ID_LENGTH]: key for check, key in zip(self.checks, keys, strict=True)}

    def ids(self) -> list[str]:
        """Return the ids of FINGERPRINT_KEY and FINGERPRINT_OLD_KEYS, in this order."""
        return list(self._keys)

    def digests(self, text: str) -> dict[str, str]:
        """Return the HMAC-SHA256 of a text under each key, 64 hex digits, by the id of the key."""
        return {key_id: _hmac(key, text) for key_id, key in self._keys.items()}


def _hmac(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()
