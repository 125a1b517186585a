"""Which address is the client's when a request has X-Forwarded-For."""

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from server.middleware.forwarded import Forwarded

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::7")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("fd00::7", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7,10.1.1.1 , fd00::7"], "198.51.100.7"),
        ("10.0.0.1", ["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
        ("10.0.0.1", ["2222405343248877"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, unknown, 10.1.1.1"], "10.1.1.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
    ],
)
def test_only_what_trusted_proxies_say_counts(peer: str, forwarded: list[str], client: str) -> None:
    """From the right, the first address that is no proxy's; never what is no address."""
    scopes: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        scopes.append(scope)

    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope: Any = {"type": "http", "client": (peer, 1234), "headers": headers}
    asyncio.run(Forwarded(app, PROXIES)(scope, None, None))  # type: ignore[arg-type]
    assert scopes[0]["client"][0] == client
