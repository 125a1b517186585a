"""Merchants: who may call the gateway, and with which API keys.

A key is created once, shown once, and stored only as its SHA-256 digest. A fast hash is enough, because
a key holds 256 random bits. Keys live in the store and in API_KEYS. Each process holds all of them and
reads the store again every `REFRESH_S`, so a new key works and a revoked key fails within that time.

With no keys configured, the gateway accepts any caller, if it listens on loopback only. Once it has seen a
key it requires one until it stops, even if every key is revoked.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import store
from store import ApiKey
from telemetry import causes

log = logging.getLogger("gateway.merchants")

# The merchant of every payment while no key is required.
DEFAULT_MERCHANT: Final = "default"

REFRESH_S: Final = 2.0

# A key's prefix tells people and secret scanners which kind of bank the key is for.
LIVE_PREFIX: Final = "pgw_live_"
TEST_PREFIX: Final = "pgw_test_"

# How many hex digits of a key's digest are its id.
_ID_LENGTH: Final = 12

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Merchants:
    """The merchants of one process, by their API keys.

    api_keys: API_KEYS, merchants by the digests of their keys; the store may hold more
    may_be_open: accept any caller as long as there are no keys
    """

    def __init__(self, api_keys: Mapping[str, str], *, may_be_open: bool = True) -> None:
        now = datetime.now(UTC)
        keys = [_api_key(digest, merchant, now) for digest, merchant in api_keys.items()]
        self._configured = {key.id: key for key in keys}
        self._keys = dict(self._configured)
        self._several = _are_several(self._keys)
        self._used: dict[str, datetime] = {}
        self._open = may_be_open and not self._keys

    def is_open(self) -> bool:
        """Return whether no key is required."""
        return self._open

    def most_of(self, number: int, share: float) -> int:
        """Return how many of a number of places one merchant may take: a share of them if others have a key, too."""
        return min(number, max(1, int(number * share))) if self._several else number

    def authenticate(self, key: str) -> ApiKey | None:
        """Return the record of this key, which has its merchant, or None when the key is not valid."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        known = self._keys.get(digest[:_ID_LENGTH])
        # The id finds the key. The full digests are compared in constant time, so the time of an answer
        # says nothing about the digits after the id.
        if known is None or not hmac.compare_digest(known.digest, digest) or known.revoked_at is not None:
            return None
        self._used[known.id] = datetime.now(UTC).replace(second=0, microsecond=0)
        return known

    async def refresh(self) -> None:
        """Read the keys from the store, and record there which keys were used. Raises `store.StoreUnavailable`."""
        unrecorded = {
            key_id: at
            for key_id, at in self._used.items()
            if not self.is_configured(key_id) and at > self._last_use(key_id)
        }
        if unrecorded:
            await store.record_api_key_uses(unrecorded)
        self._keys = {**{key.id: key for key in await store.list_api_keys()}, **self._configured}
        self._several = _are_several(self._keys)
        self._open = self._open and not self._keys

    async def run(self) -> None:
        """Refresh every `REFRESH_S` until cancelled; while the store is unavailable the known keys stay valid."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except Exception as error:  # no error may end this loop or lock out merchants
                log.warning("API keys can't be refreshed: %s", causes.of(error))

    async def create_key(self, merchant: str, prefix: str, operator: str) -> tuple[str, ApiKey]:
        """Create a key for a merchant and store its digest; return the key, which is not stored, and the record.

        operator: who creates it, for the audit trail
        """
        key = prefix + secrets.token_urlsafe(32)
        record = _api_key(hashlib.sha256(key.encode()).hexdigest(), merchant, datetime.now(UTC))
        await store.add_api_key(record, operator)
        await self.refresh()
        return key, record

    async def revoke_key(self, key_id: str, operator: str) -> bool:
        """Revoke a key in the store; return False when no valid key there has this id."""
        revoked = await store.revoke_api_key(key_id, operator)
        await self.refresh()
        return revoked is not None

    async def list_keys(self) -> list[ApiKey]:
        """Return every key; for a key in API_KEYS, only uses in this process are known."""
        await self.refresh()
        return [
            replace(key, last_used_at=self._used.get(key.id)) if self.is_configured(key.id) else key
            for key in self._keys.values()
        ]

    def is_configured(self, key_id: str) -> bool:
        """Return whether the key is in API_KEYS."""
        return key_id in self._configured

    def _last_use(self, key_id: str) -> datetime:
        known = self._keys.get(key_id)
        return (known.last_used_at if known else None) or _NEVER


def _api_key(digest: str, merchant: str, created_at: datetime) -> ApiKey:
    return ApiKey(id=digest[:_ID_LENGTH], digest=digest, merchant=merchant, created_at=created_at)


def _are_several(keys: Mapping[str, ApiKey]) -> bool:
    """Return whether more than one merchant has a valid key."""
    return len({key.merchant for key in keys.values() if key.revoked_at is None}) > 1
