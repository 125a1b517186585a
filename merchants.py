"""Who may call: merchants by their API keys.

A key is made once, shown once, and kept as its SHA-256 digest only: it has 256 random bits, so there
is nothing to guess and nothing to slow down. Keys live in the store or in API_KEYS. Each process holds
them all, and asks the store again every `REFRESH_S`: so soon a new key works and a revoked one does not.

Without any key the gateway is open, to whom it can be open: those on the same machine. From the first
key on it is closed until it stops, whatever becomes of the keys.
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

log = logging.getLogger("gateway.access_keys")

# What a merchant may be called: it stands in logs and on the command line.
MERCHANT_PATTERN: Final = r"[A-Za-z][A-Za-z0-9_.-]{0,63}"

# Whose payments those of an open gateway are.
NOBODY_IN_PARTICULAR: Final = "default"

REFRESH_S: Final = 2.0

# The prefix says which kind of bank a key was made for, to people and to scanners for leaked secrets.
LIVE: Final = "pgw_live_"
TEST: Final = "pgw_test_"

# How much of a digest names a key.
ID_LENGTH: Final = 12

_configured: dict[str, ApiKey] = {}
_keys: dict[str, ApiKey] = {}
_used: dict[str, datetime] = {}
_may_be_open = True
_closed = False


def configure(keys: Mapping[str, str], *, may_be_open: bool = True) -> None:
    """Let in the merchants with these keys, by digest, besides those in the store.

    may_be_open: whether everybody is let in as long as there is no key
    """
    global _may_be_open, _closed
    now = datetime.now(UTC)
    _configured.clear()
    for digest, merchant in keys.items():
        _configured[digest[:ID_LENGTH]] = _api_key(digest, merchant, now)
    _may_be_open, _closed = may_be_open, False
    _used.clear()
    _take([])


def is_open() -> bool:
    """Whether no key is needed."""
    return _may_be_open and not _closed


def merchant_of(key: str) -> str | None:
    """Return whose key this is, None when it is no good one."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    known = _keys.get(digest[:ID_LENGTH])
    # The first 12 digits find the key; whether it is the key takes the same time for every wrong one.
    if known is None or not hmac.compare_digest(known.digest, digest) or known.revoked_at is not None:
        return None
    _used[known.id] = datetime.now(UTC).replace(second=0, microsecond=0)
    return known.merchant


async def refresh() -> None:
    """Take the keys as they stand in the store now, and record which were used. Raises `store.StoreUnavailable`."""
    news = {key_id: at for key_id, at in _used.items() if key_id not in _configured and at > _last_use(key_id)}
    if news:
        await store.record_api_key_uses(news)
    _take(await store.list_api_keys())


async def run() -> None:
    """Refresh again and again, until cancelled. While the store is down the keys are those known last."""
    while True:
        await asyncio.sleep(REFRESH_S)
        try:
            await refresh()
        except Exception as error:  # whatever it is: who was let in before is let in
            log.warning("API keys can't be refreshed: %s", type(error).__name__)


async def create(merchant: str, prefix: str) -> tuple[str, ApiKey]:
    """Make a key and keep its digest in the store; returns the key itself, for the only time."""
    key, kept = new(merchant, prefix)
    await store.add_api_key(kept)
    await refresh()
    return key, kept


def new(merchant: str, prefix: str) -> tuple[str, ApiKey]:
    """Make a key; returns it and what may be kept of it."""
    key = prefix + secrets.token_urlsafe(32)
    return key, _api_key(hashlib.sha256(key.encode()).hexdigest(), merchant, datetime.now(UTC))


async def revoke(key_id: str) -> bool:
    """Let nobody in with this key any more; False when the store has no such key that is still good."""
    revoked = await store.revoke_api_key(key_id)
    await refresh()
    return revoked is not None


async def known() -> list[ApiKey]:
    """Return every key. Of those in API_KEYS this process knows only its own uses."""
    await refresh()
    return [replace(key, last_used_at=_used.get(key.id)) if key.id in _configured else key for key in _keys.values()]


def is_configured(key_id: str) -> bool:
    """Whether the key stands in API_KEYS."""
    return key_id in _configured


def _last_use(key_id: str) -> datetime:
    known = _keys.get(key_id)
    return (known.last_used_at if known else None) or datetime.min.replace(tzinfo=UTC)


def _take(stored: list[ApiKey]) -> None:
    global _keys, _closed
    _keys = {**{key.id: key for key in stored}, **_configured}
    _closed = _closed or bool(_keys)


def _api_key(digest: str, merchant: str, created_at: datetime) -> ApiKey:
    return ApiKey(id=digest[:ID_LENGTH], digest=digest, merchant=merchant, created_at=created_at)
