"""The served UI in a real browser."""

import shutil

import pytest
from playwright.sync_api import sync_playwright

from tests.support import Gateway

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_try_it_out_makes_a_payment_with_nothing_typed(gateway: Gateway) -> None:
    """The page loads without a console error, and each example does what it says as it stands."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(gateway.api.removesuffix("/api/v1"))
        assert page.url == f"{gateway.api}/ui/", "/ leads to the UI"
        page.locator("#operations-payments-create_payment").click()
        page.get_by_role("button", name="Try it out").click()
        for example, status, words in (
            (None, "201", '"status": "AUTHORIZED"'),
            ("declined", "201", '"status": "DECLINED"'),
            ("bank_unavailable", "503", '"code": "bank_unavailable"'),
            ("invalid", "400", '"code": "validation_failed"'),
        ):
            if example is not None:
                page.locator(".examples-select-element").first.select_option(example)
            page.get_by_role("button", name="Execute").click()
            answer = page.locator(".live-responses-table .response", has_text=words)
            answer.wait_for()
            assert status in answer.inner_text()
            if status == "201":  # Chromium itself complains of the others
                assert complaints == []
        browser.close()
