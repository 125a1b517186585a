"""CORS: which pages may call the API from a browser. Starlette's middleware, with problem documents as refusals."""

from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from handlers import problems
from handlers.problems import Code, Problem

# The request headers that a page may set, and the response headers that it may read.
REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID", "traceparent")
RESPONSE_HEADERS = (
    "Idempotent-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)


def options(origins: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `Cors` for pages of these origins."""
    return {
        "allow_origins": origins,
        "allow_methods": ("GET", "POST"),
        "allow_headers": REQUEST_HEADERS,
        "expose_headers": RESPONSE_HEADERS,
    }


class Cors(CORSMiddleware):
    """ASGI middleware around all that may refuse a request, so that a page can read refusals, too."""

    def preflight_response(self, request_headers: Headers) -> Response:
        allowed = super().preflight_response(request_headers)
        if allowed.status_code < 400:
            return allowed
        for name in ("content-length", "content-type"):  # those of Starlette's own text
            del allowed.headers[name]
        return problems.response(Problem(Code.CORS_REFUSED, headers=dict(allowed.headers)))
