"""The UI of a gateway in a real browser."""

from playwright.sync_api import Locator, Page

from tests import tools
from tests.support import Gateway


class Ui:
    """The UI of a gateway in a page.

    errors: what the browser reports: errors of scripts, violations of the page's policy, failed requests
    asked: the addresses of all requests
    """

    def __init__(self, page: Page, gateway: Gateway) -> None:
        self.page = page
        self.errors: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfailed", lambda request: self.errors.append(request.url))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(gateway.root)
        assert page.url == f"{gateway.api}/ui/", "/ leads to the UI"

    def open(self, operation: str) -> Locator:
        """Open an operation, and return its part of the page."""
        block = self.page.locator(f".opblock[id$='-{operation}']")
        block.locator(".opblock-summary-control").click()
        return block

    def execute(self, block: Locator, expected: str) -> str:
        """Press Execute, wait for a response that contains the expected text, and return what the UI shows of it."""
        block.get_by_role("button", name="Execute").click()
        answer = block.locator(".live-responses-table .response", has_text=expected)
        answer.wait_for()
        return answer.inner_text()

    def authorize(self, button: str, key: str | None = None) -> None:
        """Enter a key under Authorize, and press a button there."""
        self.page.locator(".scheme-container").get_by_role("button", name="Authorize").click()
        dialog = self.page.locator(".dialog-ux")
        if key is not None:
            dialog.get_by_role("textbox").fill(key)
        dialog.get_by_role("button", name=button).click()
        dialog.get_by_role("button", name="Close").first.click()

    def faint(self) -> list[str]:
        """Return the elements with text of too little contrast (WCAG 2.2, 1.4.3)."""
        self.page.evaluate((tools.MODULES / "axe-core" / "axe.min.js").read_text())
        found = self.page.evaluate("axe.run({runOnly: ['color-contrast']})")
        assert len(found["passes"][0]["nodes"]) > 50
        return [
            f"{node['html']}: {node['any'][0]['message']}" for each in found["violations"] for node in each["nodes"]
        ]
