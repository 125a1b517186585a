"""Headers that tell browsers to be careful, on every answer."""

from secure import (
    CacheControl,
    ContentSecurityPolicy,
    CrossOriginResourcePolicy,
    ReferrerPolicy,
    Secure,
    StrictTransportSecurity,
    XContentTypeOptions,
    XFrameOptions,
)


class SecurityHeaders:
    """What goes with an answer: nothing of it may run, be framed or be kept; the UI may run its own scripts.

    ui: the path that the UI is under
    https: whether to tell browsers to come by https only; a proxy that serves https says so itself
    """

    def __init__(self, ui: str, *, https: bool) -> None:
        self._ui = ui
        nothing = ContentSecurityPolicy().default_src("'none'").frame_ancestors("'none'")
        # Swagger UI starts by an inline script, and styles elements one by one.
        own = ContentSecurityPolicy().default_src("'self'").script_src("'self'", "'unsafe-inline'")
        own = own.style_src("'self'", "'unsafe-inline'").img_src("'self'", "data:").frame_ancestors("'none'")
        self.of_api = _headers(nothing, CacheControl().no_store(), https=https)
        self._of_ui = _headers(own, CacheControl().no_cache(), https=https)

    def at(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return the headers for an answer at this path."""
        return self._of_ui if path.startswith(self._ui) else self.of_api


def _headers(policy: ContentSecurityPolicy, cache: CacheControl, *, https: bool) -> list[tuple[bytes, bytes]]:
    secure = Secure(
        csp=policy,
        cache=cache,
        corp=CrossOriginResourcePolicy().same_origin(),
        referrer=ReferrerPolicy().no_referrer(),
        xcto=XContentTypeOptions().nosniff(),
        xfo=XFrameOptions().deny(),
        hsts=StrictTransportSecurity().max_age(365 * 24 * 3600) if https else None,
    )
    return [(name.lower().encode(), value.encode()) for name, value in secure.header_items()]
