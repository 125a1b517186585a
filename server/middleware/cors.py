"""Which pages may call the API from a browser: Starlette's CORS, whose refusals are problem documents too."""

from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from handlers.problems import MEDIA_TYPE, PROBLEMS, Code, document
from telemetry import request_context

# Request headers that a page may set, and answer headers that it may read.
SENT = ("Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID", "traceparent")
SHOWN = (
    "Idempotent-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)


def options(origins: Sequence[str]) -> dict[str, Any]:
    """Return what `Cors` takes, for pages of these origins."""
    return {
        "allow_origins": origins,
        "allow_methods": ("GET", "POST"),
        "allow_headers": SENT,
        "expose_headers": SHOWN,
    }


class Cors(CORSMiddleware):
    """ASGI middleware around everything that can be refused."""

    def preflight_response(self, request_headers: Headers) -> Response:
        allowed = super().preflight_response(request_headers)
        if allowed.status_code < 400:
            return allowed
        code, serving = Code.CORS_REFUSED, request_context.now()
        serving.outcome = code
        for name in ("content-length", "content-type"):  # of the words that this replaces
            del allowed.headers[name]
        return Response(document(code, serving.id), PROBLEMS[code].status, allowed.headers, MEDIA_TYPE)
