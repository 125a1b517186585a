"""The acquiring banks: the registry, the slots for calls, and the circuit breakers.

`configure()` chooses the bank; `authorize()`, `act()` and the look-ups call it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import config
from bank.breaker import Breakers, Circuit, not_reached
from bank.client import AcquiringBank
from bank.errors import BankError, NoAnswer, NoLookUp, NotReached, NotSupported, Overloaded, Refused
from bank.interface import (
    APPROVED,
    DO_NOT_HONOUR,
    ActionLookUp,
    ActionRequest,
    ActionResult,
    ActionType,
    Authorization,
    AuthorizationRequest,
    Bank,
    LookUp,
)
from bank.slots import Slots
from telemetry import metrics

__all__ = [
    "APPROVED",
    "BANKS",
    "DO_NOT_HONOUR",
    "ActionLookUp",
    "ActionRequest",
    "ActionResult",
    "ActionType",
    "Authorization",
    "AuthorizationRequest",
    "Bank",
    "BankError",
    "LookUp",
    "NoAnswer",
    "NoLookUp",
    "NotReached",
    "NotSupported",
    "Overloaded",
    "Refused",
]

Q = TypeVar("Q")
R = TypeVar("R")

# A further bank is one file and one line here; the scheme of BANK_URL selects it.
BANKS: Final[dict[str, Callable[..., Bank]]] = {
    "http": AcquiringBank,
    "https": AcquiringBank,
}

# Look-ups that may be in progress at once. They take no slot from payments, for which a shopper waits.
LOOK_UPS: Final = 32

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(slots=True)
class _Configured:
    bank: Bank
    identity: str
    slots: Slots
    slot_timeout_s: float
    longest_s: float
    breakers: Breakers
    look_ups: asyncio.Semaphore
    look_up_circuit: Circuit


_configured: _Configured | None = None


def configure(
    url: str,
    *,
    connect_timeout_s: float,
    timeout_s: float,
    retries: int,
    concurrency: int,
    breaker_failures: int,
    breaker_open_s: float,
    most_of: Callable[[int], int] = lambda slots: slots,
    ca_file: str | None = None,
    client_cert: str | None = None,
) -> None:
    """Use the bank at `url`, whose scheme is one of `BANKS`, or a simulator at its `bank_url`.

    connect_timeout_s: for one attempt to connect, and for the wait for a slot
    timeout_s: for a whole call, retries included
    retries: further attempts after one that was certainly not processed
    concurrency: payments that may be at the bank at once (slots)
    breaker_failures: calls in a row that fail before a circuit opens (bank/breaker.py)
    breaker_open_s: seconds until an open circuit lets one call through
    most_of: returns how many of a number of slots one merchant may hold
    ca_file: PEM file of the authorities that may sign the bank's certificate, instead of the usual ones
    client_cert: PEM file with the certificate and key to present to the bank (mutual TLS)

    Raises `ConfigError` when the URL is wrong.
    """
    global _configured
    url, identity = _simulated(url) if url.startswith("simulator://") else (url, None)
    _check_url(url)
    close()
    bank = BANKS[urlsplit(url).scheme](
        url,
        connect_timeout_s=connect_timeout_s,
        timeout_s=timeout_s,
        retries=retries,
        concurrency=concurrency + LOOK_UPS,
        ca_file=ca_file,
        client_cert=client_cert,
    )
    _configured = _Configured(
        bank=bank,
        identity=identity or _identity(url),
        slots=Slots(concurrency, most_of),
        slot_timeout_s=connect_timeout_s,
        longest_s=connect_timeout_s + timeout_s,
        breakers=Breakers(breaker_failures, breaker_open_s),
        look_ups=asyncio.Semaphore(LOOK_UPS),
        look_up_circuit=Circuit("the bank's look-up", breaker_failures, breaker_open_s, not_reached),
    )


def close() -> None:
    """Close the bank's connections. Calls after this need `configure()` again."""
    global _configured
    if _configured is not None:
        _configured.bank.close()
        _configured = None


async def authorize(request: AuthorizationRequest) -> Authorization:
    """Ask the bank to authorize a payment.

    Waits up to BANK_CONNECT_TIMEOUT_S for a slot. A payment that gets none was never sent, and an early error is
    better for the merchant than a long wait for a bank that hangs.

    Raises `NotReached`, `Refused` or `NoAnswer`.
    """
    return await _call(request.merchant, _current().bank.authorize, request)


async def act(request: ActionRequest) -> ActionResult:
    """Ask the bank to capture, void or refund a payment; otherwise as `authorize`.

    Raises `NotSupported`, `NotReached`, `Refused` or `NoAnswer`.
    """
    await check_supports(request.type)
    bank = _current().bank
    methods = {ActionType.CAPTURE: bank.capture, ActionType.VOID: bank.void, ActionType.REFUND: bank.refund}
    return await _call(request.merchant, methods[request.type], request)


async def check_supports(action: ActionType) -> None:
    """Raise `NotSupported` if the bank can't do an action, or `NotReached` if that is not known now."""
    try:
        supported = await _current().bank.supports(action)
    except BankError as error:
        raise NotReached(f"what the bank can do is not known: {error}", sent=False) from None
    if not supported:
        raise NotSupported


async def look_up(payment_id: UUID) -> LookUp:
    """Ask the bank for the outcome of a payment.

    Raises `NoLookUp` when the bank offers no look-up, and another `BankError` when the caller should ask again later.
    """
    return await _look_up(lambda bank: bank.look_up(payment_id))


async def look_up_action(payment_id: UUID, action_id: UUID) -> ActionLookUp:
    """Ask the bank for the outcome of an action; otherwise as `look_up`."""
    return await _look_up(lambda bank: bank.look_up_action(payment_id, action_id))


def identity() -> str:
    """Return which bank is configured, to record with each payment that it is asked for.

    For a bank it is `scheme://host:port/path` with the port written out, without credentials; for a built-in simulator
    `simulator:` and the id of its start, because a simulator that starts again knows no payment of the one before.
    """
    return _current().identity


def longest_s() -> float:
    """Return the most seconds that `authorize` takes: the wait for a slot and the bank's timeout."""
    return _current().longest_s


def circuit_open() -> bool:
    """Return whether the circuit for payments is open or half-open."""
    return _current().breakers.is_open()


def _simulated(bank_url: str) -> tuple[str, str]:
    """Return the URL and the identity of the simulator that has this `bank_url`."""
    address, _, start_id = bank_url.removeprefix("simulator://").partition("/")
    return f"http://{address}", f"simulator:{start_id}"


def _identity(url: str) -> str:
    """Return the identity of the bank at a URL that `_check_url` accepts.

    Scheme and host are in lower case, the path is as given, because its case may count (RFC 3986, 6.2.2.1).
    """
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def _check_url(url: str) -> None:
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
        raise config.wrong("BANK_URL", wrong)


def _current() -> _Configured:
    assert _configured is not None, "call bank.configure() first"
    return _configured


async def _call(merchant: str, ask: Callable[[Q], Awaitable[R]], request: Q) -> R:
    """Make a call that may move money, in a slot and unless a circuit is open."""
    current = _current()
    if not current.slots.take(merchant):
        await _wait_for_slot(current, merchant)
    try:
        with current.breakers.guard(merchant), metrics.BANK_IN_FLIGHT.track_inprogress(), metrics.BANK_SECONDS.time():
            return await ask(request)
    finally:
        current.slots.release(merchant)


async def _look_up(ask: Callable[[Bank], Awaitable[R]]) -> R:
    current = _current()
    async with current.look_ups:
        current.look_up_circuit.check()
        with current.look_up_circuit.calling(), metrics.BANK_IN_FLIGHT.track_inprogress():
            return await ask(current.bank)


async def _wait_for_slot(current: _Configured, merchant: str) -> None:
    with metrics.BANK_QUEUED.track_inprogress():
        try:
            async with asyncio.timeout(current.slot_timeout_s):
                await current.slots.wait(merchant)
        except TimeoutError:
            metrics.SHED.inc()
            raise Overloaded("no slot for a call to the bank became free in time", sent=False) from None
