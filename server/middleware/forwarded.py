"""The client's address behind proxies: X-Forwarded-For counts only if a proxy of TRUSTED_PROXIES sent it."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from starlette.types import ASGIApp, Receive, Scope, Send

from server import addresses


class Forwarded:
    """ASGI middleware around all others; it puts the client's address into the scope, with the port 0.

    proxies: TRUSTED_PROXIES
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._app = app
        self._proxies = proxies
        self._is_proxy = lru_cache(maxsize=1024)(self._find)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        if scope["type"] == "http" and peer and self._is_proxy(peer[0]):
            sent = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
            if sent and (client := self._client(",".join(sent).split(","))):
                scope["client"] = (client, 0)
        await self._app(scope, receive, send)

    def _client(self, texts: Iterable[str]) -> str | None:
        """Return the right-most address that is no proxy's: a proxy has seen it itself, and clients may send any other.

        What is no address ends the search; None if it is the right-most.
        """
        client = None
        for text in reversed([text.strip() for text in texts]):
            address = _address(text)
            if address is None:
                return client
            client = str(address)
            if not self._is_proxy(client):
                return client
        return client

    def _find(self, text: str) -> bool:
        address = _address(text)
        return address is not None and addresses.is_in(address, self._proxies)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return addresses.read(text)
    except ValueError:
        return None
