"""Protection against DNS rebinding: a gateway without API keys answers only to the hosts that it is at.

A web page can make its own name resolve to 127.0.0.1 and then read what a gateway there answers, because to the browser
both are one origin. Its requests still have the page's name as their Host.
"""

import ipaddress
import re
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from handlers import problems
from handlers.problems import Code, Problem
from merchants import Merchants

# Host and port (RFC 9110, 7.2).
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]*)(?::\d*)?")


class Hosts:
    """ASGI middleware. A request without Host, which is possible in HTTP/1.0 only, comes from no browser.

    allowed: hosts in lower case, besides those of loopback
    """

    def __init__(self, app: ASGIApp, merchants: Merchants, allowed: AbstractSet[str]) -> None:
        self._app = app
        self._merchants = merchants
        self._allowed = allowed
        self._is_ours = lru_cache(maxsize=64)(self._find)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._merchants.is_open():
            host = next((value for name, value in scope["headers"] if name == b"host"), None)
            if host is not None and not self._is_ours(host):
                await problems.response(Problem(Code.MISDIRECTED_REQUEST))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _find(self, header: bytes) -> bool:
        found = _HOST.fullmatch(header.decode("latin-1").lower())
        host = found[1].removesuffix(".") if found else ""
        return host == "localhost" or host.endswith(".localhost") or host in self._allowed or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
