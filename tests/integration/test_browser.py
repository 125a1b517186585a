"""The served UI, and calls from pages of other origins, in a real browser."""

import functools
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support import Gateway, valid_payment, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

# Sends a payment from the page's origin, and returns what the page can read of the response.
FETCH = """async ([url, key, payment]) => {
    const headers = {"Content-Type": "application/json", "Idempotency-Key": key};
    try {
        const answer = await fetch(url, {method: "POST", headers, body: JSON.stringify(payment)});
        return {
            status: answer.status, location: answer.headers.get("Location"),
            request_id: answer.headers.get("X-Request-ID"), body: await answer.json(),
        };
    } catch (error) {
        return {failed: error.name};
    }
}"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A Chromium without network traffic of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


@pytest.fixture
def other_port(tmp_path: Path) -> Iterator[int]:
    """The port of a server with an empty page, whose origin is not the gateway's."""
    (tmp_path / "index.html").write_text("<!doctype html><link rel=icon href=data:,>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def open_ui(browser: Browser, gateway: Gateway) -> tuple[Page, list[str]]:
    """Open POST /payments in the UI, ready to execute; return the page and the list that collects browser errors."""
    errors: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(request.url))
    page.goto(gateway.root)
    assert page.url == f"{gateway.api}/ui/", "/ leads to the UI"
    page.locator("#operations-payments-create_payment").click()
    page.get_by_role("button", name="Try it out").click()
    return page, errors


def execute(page: Page, expected: str) -> str:
    """Press Execute, wait for a response that contains the expected text, and return what the UI shows of it."""
    page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table .response", has_text=expected)
    answer.wait_for()
    return answer.inner_text()


def test_try_it_out_works_without_typing(browser: Browser, gateway: Gateway) -> None:
    """The page loads without an error, and each example gets the response that it is named for."""
    page, errors = open_ui(browser, gateway)
    assert page.get_by_role("button", name="Authorize").count() == 0, "no key is required"
    for example, status, expected in (
        (None, "201", '"status": "AUTHORIZED"'),
        ("declined", "201", '"status": "DECLINED"'),
        ("bank_unavailable", "503", '"code": "bank_unavailable"'),
        ("invalid", "400", '"code": "validation_failed"'),
    ):
        if example is not None:
            page.locator(".examples-select-element").first.select_option(example)
        assert status in execute(page, expected)
        if status == "201":  # Chromium reports the others as errors
            assert errors == []


def test_a_key_that_is_entered_under_authorize_is_sent(browser: Browser) -> None:
    """A payment is a 401 without the key and a 201 with it, and the page's security policy blocks neither."""
    key = f"pgw_test_{uuid4().hex}"
    with Gateway(API_KEYS=f"merchant:{hashlib.sha256(key.encode()).hexdigest()}") as gateway:
        page, errors = open_ui(browser, gateway)
        assert "401" in execute(page, '"code": "unauthorized"')
        page.locator(".scheme-container").get_by_role("button", name="Authorize").click()
        dialog = page.locator(".dialog-ux")
        dialog.get_by_role("textbox").fill(key)
        dialog.get_by_role("button", name="Authorize").click()
        dialog.get_by_role("button", name="Close").first.click()
        assert "201" in execute(page, '"status": "AUTHORIZED"')
        wait_until(lambda: "merchant=merchant" in gateway.log)
        [of_the_401] = errors
        assert of_the_401.startswith("Failed to load resource: the server responded with a status of 401")


def test_a_page_of_an_origin_in_cors_origins_can_pay_and_no_other(browser: Browser, other_port: int) -> None:
    """A page of that origin reads responses, errors and headers; the payment of any other page is not sent."""

    def fetch(origin: str, **changes: Any) -> Any:
        page.goto(origin)
        return page.evaluate(FETCH, [f"{gateway.api}/payments", str(uuid4()), valid_payment(**changes)])

    shop, stranger = f"http://127.0.0.1:{other_port}", f"http://localhost:{other_port}"
    with Gateway(CORS_ORIGINS=shop) as gateway:
        page = browser.new_page()
        paid = fetch(shop)
        assert (paid["status"], paid["body"]["status"]) == (201, "AUTHORIZED")
        assert paid["location"] == f"/api/v1/payments/{paid['body']['id']}"
        refused = fetch(shop, cvv="x")
        assert (refused["status"], refused["body"]["errors"][0]["field"]) == (400, "cvv")
        assert refused["request_id"] == refused["body"]["instance"] != paid["request_id"]
        assert fetch(stranger) == {"failed": "TypeError"}
        wait_until(lambda: "outcome=cors_refused" in gateway.log)
        assert gateway.log.count("operation=create_payment") == 2, "only the shop's payments were sent"
