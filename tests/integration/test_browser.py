"""The served UI, and pages of other origins, in a real browser."""

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

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

# Sends what it is given from the page's own origin, and returns all that the page can read of the answer.
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
    """A Chromium that calls nobody by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[int]:
    """The port of a server of another origin than the gateway's, with an empty page."""
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
    """Open POST /payments in the UI, ready to execute, and return all that the browser complains of besides."""
    complaints: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.goto(gateway.root)
    assert page.url == f"{gateway.api}/ui/", "/ leads to the UI"
    page.locator("#operations-payments-create_payment").click()
    page.get_by_role("button", name="Try it out").click()
    return page, complaints


def execute(page: Page, words: str) -> str:
    """Press Execute and return what the UI shows of the answer, which has these words in it."""
    page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table .response", has_text=words)
    answer.wait_for()
    return answer.inner_text()


def test_try_it_out_makes_a_payment_with_nothing_typed(browser: Browser, gateway: Gateway) -> None:
    """The page loads without a console error, and each example does what it says as it stands."""
    page, complaints = open_ui(browser, gateway)
    assert page.get_by_role("button", name="Authorize").count() == 0, "nobody needs a key here"
    for example, status, words in (
        (None, "201", '"status": "AUTHORIZED"'),
        ("declined", "201", '"status": "DECLINED"'),
        ("bank_unavailable", "503", '"code": "bank_unavailable"'),
        ("invalid", "400", '"code": "validation_failed"'),
    ):
        if example is not None:
            page.locator(".examples-select-element").first.select_option(example)
        assert status in execute(page, words)
        if status == "201":  # Chromium itself complains of the others
            assert complaints == []


def test_a_key_typed_into_authorize_opens_the_api(browser: Browser) -> None:
    """Without it a payment is a 401, with it a 201, and the page's own rules stop nothing of it."""
    key = f"pgw_test_{uuid4().hex}"
    with Gateway(API_KEYS=f"merchant:{hashlib.sha256(key.encode()).hexdigest()}") as gateway:
        page, complaints = open_ui(browser, gateway)
        assert "401" in execute(page, '"code": "unauthorized"')
        page.locator(".scheme-container").get_by_role("button", name="Authorize").click()
        dialog = page.locator(".dialog-ux")
        dialog.get_by_role("textbox").fill(key)
        dialog.get_by_role("button", name="Authorize").click()
        dialog.get_by_role("button", name="Close").first.click()
        assert "201" in execute(page, '"status": "AUTHORIZED"')
        wait_until(lambda: "merchant=merchant" in gateway.log)
        [of_the_401] = complaints
        assert of_the_401.startswith("Failed to load resource: the server responded with a status of 401")


def test_a_page_of_an_origin_in_cors_origins_can_pay_and_no_other(browser: Browser, elsewhere: int) -> None:
    """It reads answers, errors, and the headers that it needs; another's payment is not even sent."""

    def fetch(origin: str, **changes: Any) -> Any:
        page.goto(origin)
        return page.evaluate(FETCH, [f"{gateway.api}/payments", str(uuid4()), valid_payment(**changes)])

    shop, stranger = f"http://127.0.0.1:{elsewhere}", f"http://localhost:{elsewhere}"
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
        assert gateway.log.count("operation=create_payment") == 2, "the shop's"
