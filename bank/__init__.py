"""The other side: which banks there are, and how many threads may talk to one at once.

`bank.authorize(...)` is what payments.py calls. A bank's calls block, so they run in threads of
their own: when the bank hangs and all of them are taken, everything else answers as fast as ever.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar
from uuid import UUID

from bank.client import AcquiringBank
from bank.errors import BankError, NoAnswer, NoLookUp, NotReached, Refused
from bank.interface import AuthorizationRequest, Bank

__all__ = ["BANKS", "AuthorizationRequest", "Bank", "BankError", "NoAnswer", "NoLookUp", "NotReached", "Refused"]

P = ParamSpec("P")
R = TypeVar("R")


# A further bank is one file and one line here, chosen by the scheme of BANK_URL.
BANKS: Final[dict[str, Callable[..., Bank]]] = {
    "http": AcquiringBank,
    "https": AcquiringBank,
}


@dataclass(frozen=True, slots=True)
class _Connected:
    bank: Bank
    threads: ThreadPoolExecutor
    places: asyncio.Semaphore
    wait_s: float
    longest_s: float


_connected: _Connected | None = None


def configure(url: str, *, connect_timeout_s: float, timeout_s: float, retries: int, concurrency: int) -> None:
    """Choose the bank at `url`, by its scheme, and make room for `concurrency` calls at once."""
    global _connected
    close()
    bank = BANKS[url.partition(":")[0].lower()](
        url,
        connect_timeout_s=connect_timeout_s,
        timeout_s=timeout_s,
        retries=retries,
        concurrency=concurrency,
    )
    threads = ThreadPoolExecutor(concurrency, thread_name_prefix="bank")
    _connected = _Connected(
        bank, threads, asyncio.Semaphore(concurrency), connect_timeout_s, connect_timeout_s + timeout_s
    )


def close() -> None:
    """Wait for the calls under way, each of which has a deadline, and let the bank go."""
    global _connected
    if _connected is not None:
        _connected.threads.shutdown(wait=True)
        _connected.bank.close()
        _connected = None


def longest_s() -> float:
    """Return how many seconds `authorize` may take: the wait for a free place and the bank's deadline."""
    return _bank().longest_s


async def authorize(request: AuthorizationRequest) -> bool:
    """Ask the bank to authorize the payment; True when it did, False when it declined.

    Waits for a free place as long as it would wait for a connection, BANK_CONNECT_TIMEOUT_S:
    a payment that got none was never sent, and saying so beats queueing behind a bank that hangs.
    Raises `NotReached`, `Refused` or `NoAnswer`.
    """
    return await _ask(_bank().bank.authorize, request)


async def look_up(payment_id: UUID) -> bool | None:
    """Ask the bank what became of a payment: True authorized, False declined, None never heard of it.

    Raises `NoLookUp` when this bank can't be asked that, and another `BankError` when it should be
    asked again later.
    """
    return await _ask(_bank().bank.look_up, payment_id)


def _bank() -> _Connected:
    assert _connected is not None, "bank.configure() comes first"
    return _connected


async def _ask(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    connected = _bank()
    try:
        async with asyncio.timeout(connected.wait_s):
            await connected.places.acquire()
    except TimeoutError:
        raise NotReached("all BANK_CONCURRENCY calls are taken") from None
    try:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(connected.threads, lambda: call(*args, **kwargs))
    finally:
        connected.places.release()
