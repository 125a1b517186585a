"""The headers of every response that restrict what browsers do with it."""

from typing import Final

_COMMON: Final = {
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
_API: Final = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
_UI: Final = {
    "content-security-policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self'; style-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
}
_HTTPS: Final = {"strict-transport-security": "max-age=31536000"}


class SecurityHeaders:
    """The headers by path: a response of the API may not run, be framed or be cached; the UI may run its own scripts.

    ui: the path prefix of the UI
    https: whether browsers must use https; a proxy that serves https adds that header itself
    """

    def __init__(self, ui: str, *, https: bool) -> None:
        self._ui = ui
        more = _HTTPS if https else {}
        self.of_api = _raw({**_COMMON, **_API, **more})
        self._of_ui = _raw({**_COMMON, **_UI, **more})

    def at(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return the headers of a response at this path, as ASGI represents them."""
        return self._of_ui if path.startswith(self._ui) else self.of_api


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
