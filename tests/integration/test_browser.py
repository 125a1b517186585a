"""The served UI, and calls from pages of other origins, in a real browser."""

import contextlib
import functools
import hashlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Locator, Page

from tests import chromium, tools
from tests.support import Gateway, valid_payment, wait_until
from tests.swagger_ui import Ui

pytestmark = chromium.needed

# Returns the width of the page's icon, and fails if that is no image.
ICON_WIDTH = """async () => {
    const image = new Image();
    image.src = document.querySelector("link[rel=icon]").href;
    await image.decode();
    return image.width;
}"""

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
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a page of a new profile, with these options of Playwright."""
    with contextlib.ExitStack() as pages:

        def opened(**options: Any) -> Page:
            page = browser.new_page(**options)
            pages.callback(page.close)
            page.set_default_timeout(60_000)
            return page

        yield opened


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


def test_try_it_out_works_without_typing(new_page: Callable[..., Page], gateway: Gateway) -> None:
    """The page loads from the gateway only and without an error, and each example gets the answer it is named for."""
    ui = Ui(new_page(), gateway)
    post = ui.open("create_payment")
    assert "AUTHORIZED" in ui.execute(post, "201")
    assert "Request duration" in post.locator(".live-responses-table").inner_text()
    post.locator(".examples-select-element").first.select_option("declined")
    assert "201" in ui.execute(post, '"status": "DECLINED"')
    assert ui.errors == []
    assert all(url.startswith((f"{gateway.root}/", "data:")) for url in ui.asked)
    assert ui.page.get_by_role("button", name="Authorize").count() == 0, "no key is required"


def test_the_page_is_the_gateways_own(new_page: Callable[..., Page], gateway: Gateway) -> None:
    """It has the contract's title and an icon, and no bar to explore the contract of somebody else."""
    ui = Ui(new_page(), gateway)
    ui.open("get_payment")
    assert ui.page.title() == gateway.session.get(f"{gateway.api}/openapi.json").json()["info"]["title"]
    assert ui.page.locator(".topbar, .download-url-input, .download-url-button").count() == 0
    assert ui.page.evaluate(ICON_WIDTH) > 0


def test_a_payment_is_looked_up_by_the_id_that_is_entered(new_page: Callable[..., Page], gateway: Gateway) -> None:
    """The field for the id is empty at first, and nothing is sent until one is entered."""
    ui = Ui(new_page(), gateway)
    get = ui.open("get_payment")
    field = get.get_by_placeholder("payment_id")
    assert field.input_value() == ""
    get.get_by_role("button", name="Execute").click()
    get.locator("input.invalid").wait_for()
    payment_id = gateway.pay(amount=4711).json()["id"]
    field.fill(payment_id)
    assert '"amount": 4711' in ui.execute(get, "200")
    assert [url for url in ui.asked if "/payments/" in url] == [f"{gateway.api}/payments/{payment_id}"]
    assert ui.errors == []


def test_a_key_that_is_entered_under_authorize_is_sent_until_logout(new_page: Callable[..., Page]) -> None:
    """A payment is a 401 without the key and a 201 with it, also after the page is loaded again."""
    key = f"pgw_test_{uuid4().hex}"
    with Gateway(API_KEYS=f"merchant:{hashlib.sha256(key.encode()).hexdigest()}") as gateway:
        ui = Ui(new_page(), gateway)
        assert "401" in ui.execute(ui.open("create_payment"), '"code": "unauthorized"')
        ui.authorize("Apply credentials", key)
        assert "201" in ui.execute(ui.page.locator("#operations-payments-create_payment"), '"status": "AUTHORIZED"')
        ui.page.goto(gateway.root)
        assert "201" in ui.execute(ui.open("create_payment"), '"status": "AUTHORIZED"')
        wait_until(lambda: gateway.log.count("merchant=merchant") == 2)
        ui.authorize("Remove authorization")
        assert key not in str(ui.page.evaluate("Object.values(localStorage)"))
        assert "401" in ui.execute(ui.page.locator("#operations-payments-create_payment"), '"code": "unauthorized"')
        assert len(ui.errors) == 2
        assert all("the server responded with a status of 401" in error for error in ui.errors)


def test_the_ui_is_dark_or_light_as_the_system_is(new_page: Callable[..., Page], gateway: Gateway) -> None:
    """It follows the system, also while the page is open."""
    ui = Ui(new_page(color_scheme="dark"), gateway)
    ui.page.locator(".opblock").first.wait_for()

    def text_is_light() -> bool:
        colour = ui.page.locator(".info .title").evaluate("title => getComputedStyle(title).color")
        return sum(map(int, re.findall(r"\d+", colour))) > 3 * 128

    assert text_is_light()
    ui.page.emulate_media(color_scheme="light")
    wait_until(lambda: not text_is_light())
    ui.page.emulate_media(color_scheme="dark")
    wait_until(text_is_light)


@tools.needed
@pytest.mark.parametrize("color_scheme", ["dark", "light"])
def test_all_text_of_the_ui_has_enough_contrast(
    new_page: Callable[..., Page], gateway: Gateway, color_scheme: str
) -> None:
    """The WCAG's 4.5:1, of the documentation, of forms and answers, and of the schemas."""
    ui = Ui(new_page(color_scheme=color_scheme), gateway)
    ui.open("get_payment")
    ui.execute(ui.open("create_payment"), "201")
    ui.page.evaluate("document.querySelectorAll('section.models .model-toggle').forEach(toggle => toggle.click())")
    assert ui.faint() == []


def test_a_payment_lives_its_life_on_a_phone(new_page: Callable[..., Page], gateway: Gateway) -> None:
    """Its id and the examples as they are suffice, and nothing has to be scrolled sideways or is scaled down."""
    ui = Ui(new_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True), gateway)
    made = re.search(r'"id": "([0-9a-f-]{36})"', ui.execute(ui.open("create_payment"), "201"))
    assert made is not None

    def opened(operation: str) -> Locator:
        block = ui.open(operation)
        block.get_by_placeholder("payment_id").fill(made[1])
        return block

    for operation, examples in (("capture_payment", {"part": 400, "last": 600}), ("refund_payment", {"part": 400})):
        block = opened(operation)
        for example, amount in examples.items():
            block.locator(".examples-select-element").first.select_option(example)
            assert '"status": "APPROVED"' in ui.execute(block, f'"amount": {amount},')
    assert '"type": "REFUND"' in ui.execute(opened("list_actions"), "200")
    assert ui.errors == []
    assert ui.page.evaluate("[innerWidth, document.documentElement.scrollWidth, visualViewport.scale]") == [390, 390, 1]


def test_a_page_of_an_origin_in_cors_origins_can_pay_and_no_other(
    new_page: Callable[..., Page], other_port: int
) -> None:
    """A page of that origin reads responses, errors and headers; the payment of any other page is not sent."""

    def fetch(origin: str, **changes: Any) -> Any:
        page.goto(origin)
        return page.evaluate(FETCH, [f"{gateway.api}/payments", str(uuid4()), valid_payment(**changes)])

    shop, stranger = f"http://127.0.0.1:{other_port}", f"http://localhost:{other_port}"
    with Gateway(CORS_ORIGINS=shop) as gateway:
        page = new_page()
        paid = fetch(shop)
        assert (paid["status"], paid["body"]["status"]) == (201, "AUTHORIZED")
        assert paid["location"] == f"/api/v1/payments/{paid['body']['id']}"
        refused = fetch(shop, cvv="x")
        assert (refused["status"], refused["body"]["errors"][0]["field"]) == (400, "cvv")
        assert refused["request_id"] == refused["body"]["instance"] != paid["request_id"]
        assert fetch(stranger) == {"failed": "TypeError"}
        wait_until(lambda: "outcome=cors_refused" in gateway.log)
        assert gateway.log.count("operation=create_payment") == 2, "only the shop's payments were sent"
