"""Attacks: how much of one merchant's goodput is left while another caller misuses the gateway.

    python -m tests.chaos.attacks [--seconds 15] [--connections 300] [ATTACK ...]

For each attack a gateway is started with the keys of two merchants. A merchant pays over a few connections, first
alone and then while the attack runs over many, in a process of its own:

    silent       another merchant pays with a card that the bank never answers
    unavailable  another merchant pays with a card that the bank answers with 503
    no-key       somebody sends payments without a key
    pipelined    the same, 100 payments at a time on each connection
    closed       the same, and each connection is closed before the answer

The command prints payments per second, and ends with status 1 if less than 90 % is left.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import multiprocessing
import re
import sys
import time
from typing import Final
from urllib.parse import urlsplit

from bank.simulator import Simulator
from tests.support import SILENT, UNAVAILABLE_CARD, Gateway, valid_payment

KEYS: Final = {name: "pgw_test_" + letter * 43 for name, letter in (("shop", "s"), ("attacker", "a"))}
API_KEYS: Final = ",".join(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items())

# The card and the merchant of each attack.
ATTACKS: Final = {
    "silent": (SILENT, "attacker"),
    "unavailable": (UNAVAILABLE_CARD, "attacker"),
    "no-key": (SILENT, None),
    "pipelined": (SILENT, None),
    "closed": (SILENT, None),
}

# Requests that are sent before the first answer is read; without an entry, one.
PIPELINED: Final = {"pipelined": 100}

# The merchant's connections, and the seconds that the bank takes for a payment. Together they set the goodput alone, a
# sixth of what the CPU allows, so that the figures are comparable on a busy machine.
CONNECTIONS: Final = 8
LATENCY_S: Final = 0.2

# Seconds after which payments count: connections are open by then. A new one waits until those before it are accepted.
OPENING_S: Final = 1.0

# The least part of the goodput that must be left.
WANTED: Final = 0.9

_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")


def measure(attack: str, seconds: float, connections: int) -> tuple[float, float]:
    """Return a merchant's payments per second, alone and during the attack."""
    bank = Simulator(latency_s=LATENCY_S)
    bank.start()
    try:
        why = "the check of answers takes CPU, which is what is measured"
        with Gateway(unchecked=why, API_KEYS=API_KEYS, BANK_URL=bank.url) as gateway:
            card, name = ATTACKS[attack]
            asyncio.run(pay(gateway.api, request_of("shop"), 0.0, CONNECTIONS))  # both measurements find it warm
            alone = asyncio.run(pay(gateway.api, request_of("shop"), seconds, CONNECTIONS))
            request = request_of(name, card) * PIPELINED.get(attack, 1)
            attacking = multiprocessing.get_context("spawn").Process(
                target=_attack, args=(attack, gateway.api, request, seconds + 10, connections), daemon=True
            )
            attacking.start()
            try:
                time.sleep(1)
                attacked = asyncio.run(pay(gateway.api, request_of("shop"), seconds, CONNECTIONS))
                assert attacking.is_alive(), "the attack ended before the measurement"
            finally:
                attacking.kill()
                attacking.join()
    finally:
        bank.stop()
    return alone / seconds, attacked / seconds


def request_of(merchant: str | None, card: str | None = None) -> bytes:
    """Return the bytes of a payment; without a merchant it has no key."""
    body = json.dumps(valid_payment(**({"card_number": card} if card else {}))).encode()
    key = f"Authorization: Bearer {KEYS[merchant]}\r\n" if merchant else ""
    head = f"POST /api/v1/payments HTTP/1.1\r\nHost: 127.0.0.1\r\n{key}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def pay(api: str, request: bytes, seconds: float, connections: int) -> int:
    """Send the request again and again over connections; return how many were answered with 201 after OPENING_S."""
    since = time.monotonic() + OPENING_S
    return sum(await asyncio.gather(*(_pay_over_one(api, request, since, since + seconds) for _ in range(connections))))


async def _pay_over_one(api: str, request: bytes, since: float, until: float) -> int:
    paid = 0
    while time.monotonic() < until:
        try:
            async with asyncio.timeout(until - time.monotonic()):
                reader, writer = await asyncio.open_connection(urlsplit(api).hostname, urlsplit(api).port)
                try:
                    while True:
                        writer.write(request)
                        paid += await _status(reader) == 201 and time.monotonic() >= since
                finally:
                    writer.close()
        except (OSError, asyncio.IncompleteReadError):
            continue  # the gateway closed the connection
    return paid


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    await reader.readexactly(int(length[1]) if length else 0)
    return int(head.split(b" ", 2)[1])


def _attack(attack: str, api: str, request: bytes, seconds: float, connections: int) -> None:
    asyncio.run((_close if attack == "closed" else pay)(api, request, seconds, connections))


async def _close(api: str, request: bytes, seconds: float, connections: int) -> int:
    """Connect, send the request and close, again and again, over as many connections at once; return 0."""
    until = time.monotonic() + seconds

    async def over_one() -> None:
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(urlsplit(api).hostname, urlsplit(api).port)
                writer.write(request)
                writer.close()
                await writer.wait_closed()

    await asyncio.gather(*(over_one() for _ in range(connections)))
    return 0


def main() -> int:
    """Make the attacks, print what is left, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.attacks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "attacks", nargs="*", metavar="ATTACK", default=[], help=f"default: all of {', '.join(ATTACKS)}"
    )
    parser.add_argument("--seconds", type=float, default=15, help="the length of each measurement")
    parser.add_argument("--connections", type=int, default=300, help="the attacker's")
    options = parser.parse_args()
    print(f"{'attack':<12} {'alone':>8} {'attacked':>8}  left", flush=True)
    least = 1.0
    for attack in options.attacks or ATTACKS:
        alone, attacked = measure(attack, options.seconds, options.connections)
        least = min(least, attacked / alone)
        print(f"{attack:<12} {alone:>6.0f}/s {attacked:>6.0f}/s  {attacked / alone:.0%}", flush=True)
    return 0 if least >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
