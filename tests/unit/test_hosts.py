"""DNS rebinding: which hosts a gateway without API keys answers to."""

import asyncio
from typing import Any

import pytest
from starlette.responses import Response

from merchants import Merchants
from server.middleware.hosts import Hosts

OURS = (
    "localhost",
    "LOCALHOST:8000",
    "localhost.",
    "shop.localhost:1",
    "127.0.0.1",
    "127.255.0.9:65535",
    "[::1]",
    "[::1]:8000",
    "gateway.test",
    "Gateway.Test:443",
    "[fd00::1]:8000",
)
OTHERS = (
    "",
    "evil.example",
    "localhost.evil.example",
    "notlocalhost",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "evil.example:127.0.0.1",
    "128.0.0.1",
    "0.0.0.0",  # noqa: S104
    "[::2]",
    "[fd00::2]",
    "::1",
    "localhost:80:80",
    "localhost evil.example",
    "2130706433",
    "\xff",
)


def status(hosts: list[str], merchants: Merchants) -> int:
    """Return the status of a request with these headers Host."""
    sent: list[Any] = []
    headers = [(b"host", host.encode("latin-1")) for host in hosts]
    middleware = Hosts(Response(status_code=200), merchants, {"gateway.test", "[fd00::1]"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    asyncio.run(middleware({"type": "http", "method": "GET", "headers": headers}, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize("host", OURS)
def test_the_hosts_that_the_gateway_is_at_are_answered(host: str) -> None:
    """Names and addresses of loopback and those that are allowed, with any port and in any case."""
    assert status([host], Merchants({})) == 200


@pytest.mark.parametrize("host", OTHERS)
def test_every_other_host_is_misdirected(host: str) -> None:
    """Also what only begins or ends like one of ours."""
    assert status([host], Merchants({})) == 421


def test_a_gateway_with_keys_answers_to_every_host() -> None:
    """A page that reaches it has no key."""
    assert status(["evil.example"], Merchants({"a" * 64: "acme"})) == 200


def test_a_request_without_host_is_no_browsers() -> None:
    """HTTP/1.0 allows it, and health checks of load balancers use it."""
    assert status([], Merchants({})) == 200
