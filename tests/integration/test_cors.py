"""The headers for browsers: which pages may call the API, and what no page may do with a response."""

import hashlib
from collections.abc import Iterator

import pytest
import requests

from tests.support import UNAVAILABLE_CARD, Gateway, valid_payment

SHOP = "https://shop.example.com"
SENT = {"authorization", "content-type", "idempotency-key"}
READ = {"Idempotent-Replayed", "Location", "Retry-After", "X-Request-ID"}
UNKNOWN = "00000000-0000-4000-8000-000000000000"
KEY = "pgw_test_0123456789"
KEYS = f"merchant:{hashlib.sha256(KEY.encode()).hexdigest()}"


@pytest.fixture(scope="module")
def shop_gateway() -> Iterator[Gateway]:
    """A gateway that allows calls from pages of the shop."""
    with Gateway(CORS_ORIGINS=SHOP, API_KEYS=KEYS, key=KEY) as running:
        yield running


def preflight(
    gateway: Gateway, origin: str, method: str = "POST", header: str = ", ".join(sorted(SENT))
) -> requests.Response:
    """Send the preflight request that a browser sends before a page's request."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
    return requests.options(f"{gateway.api}/payments", headers=asked, timeout=10)


def cors_headers(answer: requests.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower().startswith("access-control-")}


def words(header: str) -> set[str]:
    return {word.strip().lower() for word in header.split(",")}


def test_a_page_of_the_shop_may_send_a_payment_with_its_key(shop_gateway: Gateway) -> None:
    """The preflight, which a browser sends without the key, allows the method and the headers of a payment."""
    allowed = preflight(shop_gateway, SHOP)
    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == SHOP
    assert "post" in words(allowed.headers["Access-Control-Allow-Methods"])
    assert words(allowed.headers["Access-Control-Allow-Headers"]) >= SENT
    assert "origin" in words(allowed.headers["Vary"]), "a cache must not reuse it for another origin"


@pytest.mark.parametrize(
    ("origin", "method", "header"),
    [
        ("https://evil.example.com", "POST", "Content-Type"),
        (f"{SHOP}.evil.example.com", "POST", "Content-Type"),
        ("http://shop.example.com", "POST", "Content-Type"),
        ("null", "POST", "Content-Type"),
        (SHOP, "DELETE", "Content-Type"),
        (SHOP, "POST", "X-Surprise"),
    ],
)
def test_other_origins_methods_and_headers_are_refused(
    shop_gateway: Gateway, origin: str, method: str, header: str
) -> None:
    """The refusal is a problem document, which repeats nothing and allows no other origin."""
    refused = preflight(shop_gateway, origin, method, header)
    problem = refused.json()
    assert (refused.status_code, problem["status"], problem["code"]) == (403, 403, "cors_refused")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["X-Request-ID"] == problem["instance"]
    assert refused.headers.get("Access-Control-Allow-Origin") == (SHOP if origin == SHOP else None)
    assert "evil" not in refused.text
    assert "Surprise" not in refused.text


@pytest.mark.parametrize(
    ("status", "path", "payment", "key"),
    [
        (201, "/payments", valid_payment(), KEY),
        (400, "/payments", valid_payment(cvv="x"), KEY),
        (401, "/payments", valid_payment(), "wrong"),
        (404, "/nothing", valid_payment(), KEY),
        (405, f"/payments/{UNKNOWN}", valid_payment(), KEY),
        (503, "/payments", valid_payment(card_number=UNAVAILABLE_CARD), KEY),
    ],
)
def test_pages_of_the_shop_read_every_response_and_other_pages_none(
    shop_gateway: Gateway, status: int, path: str, payment: dict[str, object], key: str
) -> None:
    """Responses of every status, errors too, are readable by the shop, with the headers that it needs."""
    for origin in (SHOP, "https://evil.example.com", None):
        sent = {"Authorization": f"Bearer {key}"} | ({"Origin": origin} if origin else {})
        answer = requests.post(shop_gateway.api + path, json=payment, headers=sent, timeout=10)
        assert answer.status_code == status
        assert answer.headers.get("Access-Control-Allow-Origin") == (SHOP if origin == SHOP else None)
        assert "Access-Control-Allow-Credentials" not in answer.headers
        if origin == SHOP:
            assert words(answer.headers["Access-Control-Expose-Headers"]) >= {name.lower() for name in READ}
            assert "origin" in words(answer.headers["Vary"])


def test_without_cors_origins_no_cors_header_is_sent(gateway: Gateway) -> None:
    """OPTIONS is then an unsupported method, and a request with an Origin is served as one without."""
    refused = preflight(gateway, SHOP)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD, POST")
    made = requests.post(f"{gateway.api}/payments", json=valid_payment(), headers={"Origin": SHOP}, timeout=10)
    assert made.status_code == 201
    assert cors_headers(refused) == cors_headers(made) == {}


@pytest.mark.parametrize(
    ("status", "method", "path", "body"),
    [
        (201, "POST", "/api/v1/payments", valid_payment()),
        (400, "POST", "/api/v1/payments", {}),
        (404, "GET", f"/api/v1/payments/{UNKNOWN}", None),
        (404, "GET", "/nothing", None),
        (400, "NO_METHOD", "/", None),  # not HTTP: answered by server/protocol.py
        (200, "GET", "/health/live", None),
        (200, "GET", "/api/v1/ui/", None),
        (200, "GET", "/api/v1/ui/swagger-ui-bundle.js", None),
    ],
)
def test_every_response_has_the_security_headers(
    gateway: Gateway, status: int, method: str, path: str, body: object
) -> None:
    """No response may be framed, sniffed or named in a Referer; only the UI may be cached and run scripts."""
    answer = requests.request(method, gateway.root + path, json=body, timeout=10)
    assert answer.status_code == status
    headers, policy = answer.headers, words(answer.headers["Content-Security-Policy"].replace(";", ","))
    assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in policy
    is_ui = path.startswith("/api/v1/ui/")
    assert "default-src 'none'" in policy
    assert ("script-src 'self'" in policy) is is_ui
    assert (headers["Cache-Control"] == "no-store") is not is_ui
