"""A shop's server: it serves the checkout page, decides the price, and holds the API key that no page may have.

    API_KEY=pgw_test_... python3 examples/checkout/server.py

It keeps which browser made which payment. It reads GATEWAY_URL and PORT from the environment, too, and needs
Python 3.11 and no package.
"""

import base64
import contextlib
import email.message
import hashlib
import http.client
import http.cookies
import http.server
import json
import os
import re
import secrets
import urllib.parse
from pathlib import Path

API_KEY = os.environ["API_KEY"]
GATEWAY = urllib.parse.urlsplit(os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000"))
CONNECT = http.client.HTTPSConnection if GATEWAY.scheme == "https" else http.client.HTTPConnection
ORDER, PRICE = {"currency": "GBP", "amount": 1050}, "£10.50"  # never taken from the page, which anybody can change
PAGE = Path(__file__).with_name("index.html").read_text(encoding="utf-8").replace("{{price}}", PRICE)

# Each payment's session: no other browser sees the payment or acts on it. A real shop keeps the payment and its keys
# with the order in its database, and lets only its staff capture and refund.
SESSIONS: dict[str, str] = {}


def source(tag: str) -> str:
    """Return the hash by which the page's policy allows its one inline script or style, and nothing else."""
    text = PAGE.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; script-src {source('script')}; style-src {source('style')}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


def only(headers: email.message.Message, *names: str) -> dict[str, str]:
    """Return the headers with these names that are there."""
    return {name: headers[name] for name in names if name in headers}


class Checkout(http.server.BaseHTTPRequestHandler):
    """Answers GET / with the page, and passes the page's requests on to the gateway."""

    timeout = 10  # seconds for a request to arrive

    def do_GET(self) -> None:
        if self.path == "/":
            cookie = f"session={self.session() or secrets.token_urlsafe()}; HttpOnly; SameSite=Strict; Path=/"
            self.answer(200, {**PAGE_HEADERS, "Set-Cookie": cookie}, PAGE.encode())
        elif self.is_own_payment(r"/payments/([0-9a-f-]{36})"):
            self.pass_on("GET", {})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        try:
            sent = json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), 4096)))
            card = {**sent, **ORDER}
        except (TypeError, ValueError):
            self.send_error(400)
            return
        # The gateway wants application/json, which a browser does not send here from a page of another origin.
        headers = only(self.headers, "Content-Type", "Idempotency-Key")
        if self.path == "/payments" and self.session():
            self.pass_on("POST", headers, json.dumps(card).encode())
        elif self.is_own_payment(r"/payments/([0-9a-f-]{36})/(?:captures|voids|refunds)"):
            self.pass_on("POST", headers, b"{}")  # all of it, whatever the page has sent
        else:
            self.send_error(404)

    def session(self) -> str:
        """Return the browser's session, or an empty string."""
        cookie = http.cookies.SimpleCookie(self.headers["Cookie"]).get("session")
        return cookie.value if cookie else ""

    def is_own_payment(self, pattern: str) -> bool:
        """Return whether the path matches, and its payment was made in this session."""
        path = re.fullmatch(pattern, self.path)
        return path is not None and SESSIONS.get(path[1]) == self.session()

    def pass_on(self, method: str, headers: dict[str, str], body: bytes | None = None) -> None:
        """Send a request to the gateway with the API key, and pass its answer on; without one, answer 502."""
        gateway = CONNECT(GATEWAY.netloc, timeout=30)  # longer than the gateway waits for the bank
        try:
            gateway.request(method, f"/api/v1{self.path}", body, {**headers, "Authorization": f"Bearer {API_KEY}"})
            answer = gateway.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self.send_error(502)
        else:
            if self.path == "/payments" and answer.status in (201, 202):
                SESSIONS.setdefault(json.loads(content)["id"], self.session())
            self.answer(answer.status, only(answer.headers, "Content-Type", "Retry-After", "X-Request-ID"), content)
        finally:
            gateway.close()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Cache-Control": "no-store"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Checkout) as server:
        print(f"Checkout at http://127.0.0.1:{server.server_port}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
