"""The other side: which banks there are, and how many threads may talk to one at once.

`bank.authorize(...)` is what payments.py calls. A bank's calls block, so they run in threads of
their own: when the bank hangs and all of them are taken, everything else answers as fast as ever.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from bank.client import AcquiringBank
from bank.errors import BankError, NoAnswer, NotReached, Refused
from bank.interface import AuthorizationRequest, Bank

__all__ = ["BANKS", "AuthorizationRequest", "Bank", "BankError", "NoAnswer", "NotReached", "Refused"]

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
    _connected = _Connected(bank, threads, asyncio.Semaphore(concurrency), connect_timeout_s)


def close() -> None:
    """Wait for the calls under way, each of which has a deadline, and let the bank go."""
    global _connected
    if _connected is not None:
        _connected.threads.shutdown(wait=True)
        _connected.bank.close()
        _connected = None


async def authorize(request: AuthorizationRequest) -> bool:
    """Ask the bank to authorize the payment; True when it did, False when it declined.

    Waits for a free place as long as it would wait for a connection, BANK_CONNECT_TIMEOUT_S:
    a payment that got none was never sent, and saying so beats queueing behind a bank that hangs.
    Raises `NotReached`, `Refused` or `NoAnswer`.
    """
    assert _connected is not None, "bank.configure() comes first"
    try:
        async with asyncio.timeout(_connected.wait_s):
            await _connected.places.acquire()
    except TimeoutError:
        raise NotReached("all BANK_CONCURRENCY calls are taken") from None
    try:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_connected.threads, _connected.bank.authorize, request)
    finally:
        _connected.places.release()
