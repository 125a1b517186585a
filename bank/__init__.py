"""The other side: which banks there are, how many payments may be at one, and when one is left alone.

`bank.authorize(...)` is what payments.py calls.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from bank.breaker import Breaker
from bank.client import AcquiringBank
from bank.errors import BankError, NoAnswer, NoLookUp, NotReached, Overloaded, Refused
from bank.interface import AuthorizationRequest, Bank
from config import ConfigError
from telemetry import metrics, request_context

__all__ = [
    "BANKS",
    "AuthorizationRequest",
    "Bank",
    "BankError",
    "NoAnswer",
    "NoLookUp",
    "NotReached",
    "Overloaded",
    "Refused",
]

# A further bank is one file and one line here; the scheme of BANK_URL selects it.
BANKS: Final[dict[str, Callable[..., Bank]]] = {
    "http": AcquiringBank,
    "https": AcquiringBank,
}


@dataclass(slots=True)
class _Connected:
    bank: Bank
    places: asyncio.Semaphore
    breaker: Breaker
    wait_s: float
    longest_s: float
    room: int  # for so many more payments


_connected: _Connected | None = None


def configure(
    url: str,
    *,
    connect_timeout_s: float,
    timeout_s: float,
    retries: int,
    concurrency: int,
    queue: int,
    breaker_failures: int,
    breaker_open_s: float,
    ca_file: str | None = None,
    client_cert: str | None = None,
) -> None:
    """Choose the bank at `url`, by its scheme.

    concurrency, queue: how many calls may be under way at once, and how many payments wait besides
    breaker_failures, breaker_open_s: after how many calls in a row that did not reach it, and for how
    many seconds, it is left alone
    ca_file, client_cert: PEM files for TLS, instead of the usual authorities, and to show to the bank

    Raises `ConfigError`.
    """
    global _connected
    check_url(url)
    close()
    bank = BANKS[urlsplit(url).scheme](
        url,
        connect_timeout_s=connect_timeout_s,
        timeout_s=timeout_s,
        retries=retries,
        concurrency=concurrency,
        ca_file=ca_file,
        client_cert=client_cert,
    )
    _connected = _Connected(
        bank=bank,
        places=asyncio.Semaphore(concurrency),
        breaker=Breaker(breaker_failures, breaker_open_s),
        wait_s=connect_timeout_s,
        longest_s=connect_timeout_s + timeout_s,
        room=concurrency + queue,
    )


def check_url(url: str) -> None:
    """Raise `ConfigError` unless `url` is the URL of a bank.

    The message does not repeat the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        is_bank = parts.scheme in BANKS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_bank = False
    wrong = None
    if not is_bank:
        wrong = "is not a URL of a bank"
    elif any(character in "?#@" or character.isspace() for character in url):
        wrong = "has credentials, a query, a fragment or white space"
    if wrong:
        allowed = " or ".join(f"{scheme}://HOST[:PORT][/PATH]" for scheme in BANKS)
        raise ConfigError(f"BANK_URL {wrong}; allowed: {allowed}")


def close() -> None:
    """Let the bank go."""
    global _connected
    if _connected is not None:
        _connected.bank.close()
        _connected = None


def longest_s() -> float:
    """Return how many seconds `authorize` may take: the wait for a free place and the bank's deadline."""
    return _bank().longest_s


def circuit_open() -> bool:
    """Return whether the circuit breaker refuses calls at the moment."""
    return _bank().breaker.is_open()


def room_left() -> int:
    """Return how many more payments may begin."""
    return _bank().room


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Make a payment one of the BANK_CONCURRENCY + BANK_QUEUE that may be under way; or raise `Overloaded`."""
    connected = _bank()
    if connected.room <= 0:
        metrics.SHED.inc()
        raise Overloaded("too many payments are under way")
    connected.room -= 1
    try:
        yield
    finally:
        connected.room += 1


async def authorize(request: AuthorizationRequest) -> bool:
    """Ask the bank to authorize the payment; True when it did, False when it declined.

    Waits for a free place as long as it would wait for a connection, BANK_CONNECT_TIMEOUT_S:
    a payment that got none was never sent, and saying so beats queueing behind a bank that hangs.
    Raises `NotReached`, `Refused` or `NoAnswer`.
    """
    async with _place() as connected:
        started = time.perf_counter()
        try:
            return await connected.bank.authorize(request)
        finally:
            request_context.now().bank_s = took_s = time.perf_counter() - started
            metrics.BANK_SECONDS.observe(took_s)


async def look_up(payment_id: UUID) -> bool | None:
    """Ask the bank what became of a payment: True authorized, False declined, None never heard of it.

    Raises `NoLookUp` when this bank can't be asked that, and another `BankError` when it should be
    asked again later.
    """
    async with _place() as connected:
        return await connected.bank.look_up(payment_id)


def _bank() -> _Connected:
    assert _connected is not None, "bank.configure() comes first"
    return _connected


@contextlib.asynccontextmanager
async def _place() -> AsyncIterator[_Connected]:
    """One of the BANK_CONCURRENCY places, and the breaker's leave."""
    connected = _bank()
    if connected.places.locked():
        await _queue(connected)
    else:
        await connected.places.acquire()
    try:
        with connected.breaker.guard(), metrics.BANK_IN_FLIGHT.track_inprogress():
            yield connected
    finally:
        connected.places.release()


async def _queue(connected: _Connected) -> None:
    with metrics.BANK_QUEUED.track_inprogress():
        try:
            async with asyncio.timeout(connected.wait_s):
                await connected.places.acquire()
        except TimeoutError:
            metrics.SHED.inc()
            raise Overloaded("all BANK_CONCURRENCY calls are taken") from None
