"""The example of a checkout in a real browser: what the page shows for each answer, and that a card is charged once."""

import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Self

import pytest
import requests
from playwright.sync_api import APIResponse, Browser, BrowserContext, Request, Route, expect

from bank.simulator import Simulator
from tests import chromium
from tests.support import (
    AUTHORIZED_CARD,
    DECLINED_CARD,
    DROPPED,
    ROOT,
    UNKNOWN_ID,
    Gateway,
    reply,
    scripted_bank,
    wait_until,
)

pytestmark = chromium.needed

expect.set_options(timeout=30_000)  # milliseconds; the machine may be busy

Script = Callable[[socket.socket], None]

KEY = "pgw_test_" + "c" * 43
CVV = "987"
PAID = f"Paid with the card ending in {AUTHORIZED_CARD[-4:]}"
LATER_S = 100_000  # a wait that only a clock under control ends

# Counts what the page sends, before the browser sends it, and notes how long the page waits, in milliseconds.
OBSERVE = """
window.sent = 0;
window.waits = [];
const [send, wait] = [window.fetch, window.setTimeout];
window.fetch = (...options) => { window.sent += 1; return send(...options); };
window.setTimeout = (then, delay) => { window.waits.push(delay); return wait(then, delay); };
"""


class Shop:
    """A process that runs examples/checkout/server.py for the gateway at `gateway_url`, on a free port.

    url: the page's address
    log: what the process has written
    """

    def __init__(self, gateway_url: str, *command: str) -> None:
        self._process = subprocess.Popen(
            command or [sys.executable, "examples/checkout/server.py"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "API_KEY": KEY, "GATEWAY_URL": gateway_url, "PORT": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]
        self.log = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._reader.join(20)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.log += line


class Visit:
    """A customer's tab with the checkout page.

    keys, bodies: of each payment that the page has sent, in their order
    errors: what the browser has reported
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.keys: list[str] = []
        self.bodies: list[str | None] = []
        self.errors: list[str] = []
        self.page = context.new_page()
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.goto(url)
        self.message = self.page.get_by_role("status")
        self.button = self.page.locator("#pay")

    def fill(self, card_number: str, expiry: str = "12/99", cvv: str = CVV) -> None:
        self.page.get_by_label("Card number").fill(card_number)
        self.page.get_by_label("Expiry").fill(expiry)
        self.page.get_by_label("Security code").fill(cvv)

    def pay(self, card_number: str = AUTHORIZED_CARD) -> None:
        self.fill(card_number)
        self.button.click()

    def shows(self, text: str) -> None:
        expect(self.message).to_contain_text(text)

    def _note(self, request: Request) -> None:
        if request.method == "POST":
            self.keys.append(request.headers["idempotency-key"])
            self.bodies.append(request.post_data)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser in which nobody has been to the shop before."""
    with browser.new_context() as context:
        context.set_default_timeout(30_000)
        yield context


@pytest.fixture(scope="module")
def shop_gateway(simulator: Simulator) -> Iterator[Gateway]:
    """A gateway that requires the shop's key, and logs as much as it can."""
    keys = f"shop:{hashlib.sha256(KEY.encode()).hexdigest()}"
    with Gateway(key=KEY, API_KEYS=keys, BANK_URL=simulator.url, LOG_LEVEL="DEBUG") as running:
        yield running


@pytest.fixture(scope="module")
def shop(shop_gateway: Gateway) -> Iterator[Shop]:
    """The shop's server in front of that gateway, started as docs/frontends.md says."""
    [command] = re.findall(r"^API_KEY=\S+ python3 (\S+)", (ROOT / "docs/frontends.md").read_text(), re.MULTILINE)
    with Shop(shop_gateway.root, sys.executable, command) as running:
        yield running


@pytest.fixture
def visit(context: BrowserContext, shop: Shop) -> Visit:
    return Visit(context, shop.url)


@pytest.fixture
def charged(simulator: Simulator) -> Callable[[], int]:
    """Return how many payments the bank has authorized since the test began."""

    def authorized() -> int:
        ledger = requests.get(f"{simulator.url}/ledger", timeout=20).json()
        return sum(entry["authorized"] for entry in ledger.values())

    before = authorized()
    return lambda: authorized() - before


def test_a_card_is_charged_and_kept_nowhere(
    visit: Visit, shop: Shop, shop_gateway: Gateway, charged: Callable[[], int]
) -> None:
    """The page shows the payment, also when it is loaded again; no card number, CVV or API key is left anywhere."""
    page = visit.page
    expect(visit.button).to_have_text("Pay £10.50")
    visit.pay()
    visit.shows(PAID)
    assert charged() == 1
    assert page.locator("input").evaluate_all("inputs => inputs.map((input) => input.value)") == ["", "", ""]
    page.reload()
    visit.shows(PAID)
    expect(visit.button).to_be_hidden()
    kept, *others = page.evaluate("[{...sessionStorage}, {...localStorage}, document.cookie, location.href]")
    assert shop_gateway.find(kept["payment-id"]).json()["status"] == "AUTHORIZED"
    assert kept == {"payment-key": visit.keys[0], "payment-id": kept["payment-id"]}
    assert others == [{}, "", shop.url]
    wait_until(lambda: "POST /payments" in shop.log and kept["payment-id"] in shop_gateway.log)
    for text in (page.content(), shop.log, shop_gateway.log):
        assert AUTHORIZED_CARD not in text
        assert KEY not in text
    assert visit.errors == []
    page.get_by_role("button", name="Start a new order").click()
    visit.pay()
    visit.shows(PAID)
    assert charged() == 2


def test_an_order_is_shipped_and_given_back(context: BrowserContext, shop: Shop, simulator: Simulator) -> None:
    """The bank captures and refunds all of it, and the page shows the amounts, on a phone too."""
    visit = Visit(context, shop.url)
    page = visit.page
    page.set_viewport_size({"width": 390, "height": 844})
    ship, cancel, refund = (page.get_by_role("button", name=name) for name in ("Ship and capture", "Cancel", "Refund"))
    visit.pay()
    order = page.get_by_role("region", name="The order")
    expect(order).to_contain_text(re.compile(r"AUTHORIZED\s*Authorized\s*£10.50\s*Captured\s*£0.00"))
    expect(cancel).to_be_visible()
    expect(refund).to_be_hidden()
    ship.evaluate("button => { button.click(); button.click(); }")
    visit.shows("The order is shipped and charged to the card ending in 8877.")
    expect(order).to_contain_text(re.compile(r"CAPTURED.*Captured\s*£10.50\s*Refunded\s*£0.00", re.DOTALL))
    expect(ship.or_(cancel)).to_be_hidden()
    page.reload()
    refund.click()
    visit.shows("The money goes back to the card ending in 8877.")
    expect(order).to_contain_text(re.compile(r"REFUNDED.*Refunded\s*£10.50", re.DOTALL))
    expect(order.get_by_role("button")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    entry = requests.get(f"{simulator.url}/ledger", timeout=20).json()[page.evaluate("sessionStorage['payment-id']")]
    assert (entry["captured"], entry["refunded"]) == (1050, 1050)
    assert len(set(visit.keys)) == len(visit.keys) == 3
    assert visit.errors == []


def test_an_order_that_cannot_be_shipped_is_cancelled(visit: Visit) -> None:
    """The bank declines to capture it, which moves no money, and it is released."""
    visit.pay("4000000000000259")
    for _ in range(2):  # the second time it is another capture
        visit.page.get_by_role("button", name="Ship and capture").click()
        visit.shows("The bank declined it. No money was moved.")
    visit.page.get_by_role("button", name="Cancel").click()
    visit.shows("The order is cancelled. Nothing is charged to the card ending in 0259.")
    assert len(set(visit.keys)) == len(visit.keys) == 4
    assert visit.errors == []


def test_an_order_is_of_the_browser_that_made_it(
    visit: Visit, browser: Browser, shop: Shop, shop_gateway: Gateway
) -> None:
    """Nobody else can see its payment or capture it, and its own page can't say how much is captured."""
    visit.pay()
    visit.shows(PAID)
    payment_id = visit.page.evaluate("sessionStorage['payment-id']")
    path = f"{shop.url}payments/{payment_id}"
    headers = {"Content-Type": "application/json", "Idempotency-Key": payment_id}
    with browser.new_context() as stranger:
        assert stranger.request.post(f"{shop.url}payments", headers=headers, data={}).status == 404, "no session yet"
        for _ in range(2):
            assert stranger.request.get(path).status == 404
            assert stranger.request.post(f"{path}/captures", headers=headers, data={}).status == 404
            stranger.request.get(shop.url)
    assert shop_gateway.find(payment_id).json()["status"] == "AUTHORIZED"
    form = visit.page.request.post(f"{path}/captures", data="{}", headers={**headers, "Content-Type": "text/plain"})
    assert form.status == 415, "what a page of another origin can send"
    visit.page.request.post(f"{path}/captures", headers=headers, data={"amount": 1, "final": False})
    assert shop_gateway.find(payment_id).json()["balances"]["total_captured"] == 1050


def test_the_price_is_the_servers(visit: Visit, shop_gateway: Gateway) -> None:
    """A page that sends an amount of its own is charged the shop's."""
    sent = {"card_number": AUTHORIZED_CARD, "expiry_month": 12, "expiry_year": 2099, "cvv": "123", "amount": 1}
    payment_id = visit.page.evaluate(
        """async (payment) => {
            const headers = {"Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID()};
            const answer = await fetch("/payments", {method: "POST", headers, body: JSON.stringify(payment)});
            return (await answer.json()).id;
        }""",
        sent,
    )
    payment = shop_gateway.find(payment_id).json()
    assert (payment["amount"], payment["currency"]) == (1050, "GBP")


def test_no_other_script_runs(visit: Visit) -> None:
    """A script or a handler that is put into the page does not run, and the page can send a card to no other server."""
    visit.page.evaluate(
        """async () => {
            document.body.append(Object.assign(document.createElement("script"), {textContent: "window.ran = 1"}));
            document.body.insertAdjacentHTML("beforeend", "<button id=inline onclick='window.ran = 2'>x</button>");
            document.getElementById("inline").click();
            await fetch("http://127.0.0.2:9/").catch(() => {});
        }"""
    )
    assert visit.page.evaluate("window.ran") is None
    assert any("connect-src" in error for error in visit.errors)


def test_another_card_can_pay_after_a_decline(visit: Visit, charged: Callable[[], int]) -> None:
    """The second card is another payment, with a key of its own."""
    visit.pay(DECLINED_CARD)
    visit.shows("declined the card ending in 8878. Please pay with another card")
    expect(visit.page.get_by_label("Card number")).to_be_focused()
    expect(visit.page.get_by_label("Card number")).to_have_value("")
    visit.pay()
    visit.shows(PAID)
    assert len(set(visit.keys)) == 2
    assert charged() == 1


def test_errors_are_beside_their_fields(visit: Visit, charged: Callable[[], int]) -> None:
    """Each error describes its input, on a phone too. Corrected by keyboard, the form is sent with another key."""
    page = visit.page
    page.set_viewport_size({"width": 390, "height": 844})
    visit.fill("42", "13/2020", "x")
    visit.button.press("Enter")
    for label, description in (
        ("Card number", "Card number must be a string of 14 to 19 ASCII digits."),
        ("Expiry", re.compile(r"Expiry month must be an integer from 1 to 12\. The card has expired\.")),
        ("Security code", "Security code must be a string of 3 or 4 ASCII digits."),
    ):
        expect(page.get_by_label(label)).to_have_accessible_description(description)
        expect(page.get_by_label(label)).to_have_attribute("aria-invalid", "true")
    visit.shows("Please correct the details. Nothing was charged.")
    expect(page.locator("#reference")).to_contain_text(re.compile("[0-9a-f-]{36}"))
    expect(page.get_by_label("Card number")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press("ControlOrMeta+A")
    for text in (f"{AUTHORIZED_CARD[:4]} {AUTHORIZED_CARD[4:]}", "1299", CVV):  # as people type them
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    visit.shows(PAID)
    expect(page.locator("[aria-invalid]")).to_have_count(0)
    assert len(set(visit.keys)) == 2
    assert charged() == 1


def test_an_error_of_a_field_that_the_page_does_not_have_is_on_top(visit: Visit) -> None:
    """It is listed with the message."""
    error = {"field": "amount", "code": "out_of_range", "message": "must be an integer from 1 to 999999999999"}
    visit.page.route("**/payments", lambda route: route.fulfill(status=400, json={"errors": [error]}))
    visit.pay()
    expect(visit.message.get_by_role("listitem")).to_have_text("amount must be an integer from 1 to 999999999999.")


def test_a_pending_payment_is_looked_up_until_it_is_final(visit: Visit, charged: Callable[[], int]) -> None:
    """It cannot be paid again meanwhile, not even if look-ups fail and the page is loaded again."""
    visit.page.route("**/payments/*", lambda route: route.abort())
    visit.pay(DROPPED)
    visit.shows("Do not pay again")
    visit.page.reload()
    visit.shows("Do not pay again")
    expect(visit.button).to_be_hidden()
    visit.page.unroute_all()
    visit.shows("Paid with the card ending in 0127")
    assert len(visit.keys) == 1
    assert charged() == 1


def test_a_double_click_pays_once(visit: Visit, charged: Callable[[], int]) -> None:
    """The page sends one request."""
    visit.fill(AUTHORIZED_CARD)
    visit.button.evaluate("button => { button.click(); button.click(); }")  # between two clicks, the button may move
    visit.shows(PAID)
    assert len(visit.keys) == 1
    assert charged() == 1


def test_a_lost_answer_is_asked_for_again(visit: Visit, charged: Callable[[], int]) -> None:
    """The payment was made and its answer was lost: the same request with the same key shows it."""
    answers: list[APIResponse] = []

    def lose_the_first(route: Route) -> None:
        answers.append(route.fetch())
        route.fulfill(response=answers[-1]) if len(answers) > 1 else route.abort()

    visit.page.route("**/payments", lose_the_first)
    visit.pay()
    visit.shows(PAID)
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert len(visit.keys) == 2
    assert len(set(visit.keys)) == 1
    assert charged() == 1


def test_the_key_outlives_the_page(visit: Visit, charged: Callable[[], int]) -> None:
    """The page is loaded again before the answer comes: the same card shows the payment, and no other is charged."""
    page = visit.page
    answers: list[APIResponse] = []
    page.route("**/payments", lambda route: answers.append(route.fetch()))  # the page waits
    visit.pay()
    while not answers:
        page.wait_for_timeout(20)
    page.reload()
    page.unroute_all()  # not earlier: it would let the request that waits go on
    visit.shows("we do not know the result. Enter the same card again")
    visit.pay("42")
    visit.shows("enter the same card as then")
    visit.pay(AUTHORIZED_CARD[:-1] + "9")
    visit.shows("You have tried before with another card")
    visit.pay()
    visit.shows(PAID)
    assert len(visit.keys) == 4
    assert len(set(visit.keys)) == 1
    assert charged() == 1


def problem(status: int, name: str, detail: str = "", retry_after_s: int | None = LATER_S) -> Script:
    """Return the script of an error whose request id is `name`."""
    headers = [] if retry_after_s is None else [f"Retry-After: {retry_after_s}"]
    return reply(status, json.dumps({"status": status, "detail": detail}).encode(), f"X-Request-ID: {name}", *headers)


def hang_up(connection: socket.socket) -> None:
    """Close the connection without an answer."""
    connection.shutdown(socket.SHUT_RDWR)


def payment(status: int, of_the_payment: str, **balances: int) -> Script:
    names = ("authorized", "captured", "refunded", "voided")
    values = {
        "id": UNKNOWN_ID,
        "status": of_the_payment,
        "card_last4": AUTHORIZED_CARD[-4:],
        "currency": "GBP",
        "balances": {**{f"total_{name}": 0 for name in names}, **NOTHING_LEFT, **balances},
    }
    return reply(status, json.dumps(values).encode())


def action(status: int, of_the_action: str) -> Script:
    return reply(status, json.dumps({"id": UNKNOWN_ID, "status": of_the_action}).encode())


NOTHING_LEFT = {"available_to_capture": 0, "available_to_void": 0, "available_to_refund": 0}
MADE = payment(201, "AUTHORIZED")
UNCLEAR = "The gateway could not process the request."
NOT_CHARGED = f"{UNCLEAR} Nothing was charged."


@pytest.fixture
def scripted(context: BrowserContext) -> Iterator[Callable[..., Visit]]:
    """Return a visit to a shop whose gateway gives these answers, in a browser whose clock the test controls."""
    context.clock.install()
    context.add_init_script(OBSERVE)
    with contextlib.ExitStack() as stack:

        def visit(*answers: Script) -> Visit:
            following = iter(answers)
            gateway = stack.enter_context(scripted_bank(lambda connection: next(following)(connection)))
            return Visit(context, stack.enter_context(Shop(gateway.url)).url)

        yield visit


def count_sent(visit: Visit) -> int:
    return int(visit.page.evaluate("window.sent"))


def wait_as_told(visit: Visit, name: str) -> None:
    """Wait for the answer with this request id, and see that the next request is sent LATER_S after it, not earlier."""
    expect(visit.page.locator("#reference code")).to_have_text(name)
    visit.shows(f"There is no result yet. We ask again in {LATER_S} s. You are not charged twice.")
    before = count_sent(visit)
    visit.page.clock.run_for((LATER_S - 10_000) * 1000)
    assert count_sent(visit) == before
    visit.page.clock.run_for(10_000 * 1000)
    assert count_sent(visit) == before + 1


def test_the_same_request_is_sent_again_when_the_gateway_says(scripted: Callable[..., Visit]) -> None:
    """After each answer that is not final the page waits for Retry-After; the payment and its key stay the same."""
    statuses = (409, 429, 503, 502, 504, 500)
    visit = scripted(*(problem(status, f"answer-{status}", UNCLEAR) for status in statuses), MADE)
    visit.pay()
    for status in statuses:
        wait_as_told(visit, f"answer-{status}")
    visit.shows(PAID)
    assert len(set(visit.keys)) == 1
    assert len(set(visit.bodies)) == 1


def test_a_payment_in_doubt_can_only_be_tried_again(scripted: Callable[..., Visit]) -> None:
    """After seven answers that are not final the page stops. The card is locked, so the next try is the same."""
    names = [f"answer-{number}" for number in range(7)]
    visit = scripted(*(problem(503, name) for name in names), hang_up, MADE)
    visit.pay()
    for name in names[:-1]:
        wait_as_told(visit, name)
    visit.shows("We do not know whether your card was charged. Please try again")
    expect(visit.page.get_by_label("Card number")).to_be_disabled()
    visit.page.get_by_role("button", name="Try again").click()
    visit.shows("We ask again in 1 s.")  # nobody said when
    visit.page.clock.run_for(1000)
    visit.shows(PAID)
    assert len(visit.keys) == 9
    assert len(set(visit.keys)) == 1
    assert len(set(visit.bodies)) == 1


def test_a_refused_payment_is_not_sent_again(scripted: Callable[..., Visit]) -> None:
    """Nothing was charged, so the form can be corrected, and the next payment is another one with its own key."""
    refusals = [(401, ""), (408, ""), (413, ""), (415, ""), (422, ""), (431, ""), (500, NOT_CHARGED)]
    visit = scripted(*(problem(status, f"answer-{status}", detail) for status, detail in refusals), MADE)
    for status, _ in refusals:
        visit.pay()
        expect(visit.page.locator("#reference code")).to_have_text(f"answer-{status}")
        visit.shows("The shop cannot take this payment now. Nothing was charged.")
    visit.pay()
    visit.shows(PAID)
    assert len(set(visit.keys)) == len(visit.keys) == len(refusals) + 1


def test_a_payment_that_the_rate_limit_stopped_is_not_in_doubt(scripted: Callable[..., Visit]) -> None:
    """After seven answers 429 nothing was charged, and the next payment has a key of its own."""
    names = [f"answer-{number}" for number in range(7)]
    visit = scripted(*(problem(429, name) for name in names), MADE)
    visit.pay()
    for name in names[:-1]:
        wait_as_told(visit, name)
    visit.shows("Nothing was charged.")
    visit.pay()
    visit.shows(PAID)
    assert len(set(visit.keys[:-1])) == 1
    assert len(set(visit.keys)) == 2


def test_a_look_up_waits_as_long_as_the_gateway_says(scripted: Callable[..., Visit]) -> None:
    """Without Retry-After it waits twice as long each time, and it goes on until the payment is final."""
    failures = [
        problem(status, "", NOT_CHARGED, wait_s) for status, wait_s in ((429, LATER_S), (503, LATER_S), (500, None))
    ]
    visit = scripted(payment(202, "PENDING"), *failures, hang_up, payment(200, "NEW"), payment(200, "AUTHORIZED"))
    visit.pay()
    waits: list[int] = []
    for wait_s in (1, LATER_S, LATER_S, 8, 16, 30):
        waits.append(wait_s * 1000)
        wait_until(lambda: visit.page.evaluate("window.waits") == waits, 30)
        visit.shows("Do not pay again")
        visit.page.clock.run_for(waits[-1])
    visit.shows(PAID)
    assert len(visit.keys) == 1


def test_a_payment_that_cannot_be_looked_up_is_not_made_again(scripted: Callable[..., Visit]) -> None:
    """The customer is sent to the shop, with the id of the request."""
    visit = scripted(payment(202, "PENDING"), problem(404, "not-found"))
    visit.pay()
    wait_until(lambda: visit.page.evaluate("window.waits.length") == 1, 30)
    visit.page.clock.run_for(1000)
    visit.shows("Do not pay again, and contact the shop")
    expect(visit.page.locator("#reference code")).to_have_text("not-found")
    expect(visit.page.get_by_role("button")).to_have_count(0)


HELD = {"available_to_capture": 1050, "available_to_void": 1050}
AUTHORIZED = payment(201, "AUTHORIZED", **HELD)


def test_an_action_has_one_key_until_its_result_is_known(scripted: Callable[..., Visit]) -> None:
    """It is sent again as a payment is, also after a 202. After seven answers it can still be tried again."""
    statuses = (409, 429, 503, 502, 504, 500)
    again = [problem(status, f"answer-{status}", UNCLEAR) for status in statuses]
    pending, holding_all = action(202, "PENDING"), payment(200, "AUTHORIZED")
    visit = scripted(AUTHORIZED, *again, pending, holding_all, pending, MADE, payment(200, "CAPTURED"))
    visit.pay()
    ship = visit.page.get_by_role("button", name="Ship and capture")
    ship.click()
    for status in statuses:
        expect(visit.page.locator("#reference code")).to_have_text(f"answer-{status}")
        visit.shows(f"We ask again in {LATER_S} s. Nothing is done twice.")
        expect(ship).to_be_disabled()
        visit.page.clock.run_for(LATER_S * 1000)
    visit.shows("We do not know the result yet. Please try again")
    ship.click()
    visit.shows("We ask again in 1 s.")
    visit.page.clock.run_for(1000)
    visit.shows("The order is shipped")
    assert len(visit.keys) == 10
    assert len(set(visit.keys[1:])) == 1
    assert set(visit.bodies[1:]) == {"{}"}


def test_a_conflict_that_does_not_say_when_is_final(scripted: Callable[..., Visit]) -> None:
    """No money was moved with the key, not even if an earlier answer was lost, so the next action has another one."""
    conflict = problem(409, "conflict", retry_after_s=None)
    visit = scripted(AUTHORIZED, hang_up, conflict, payment(200, "AUTHORIZED", **HELD), MADE, payment(200, "CAPTURED"))
    visit.pay()
    ship = visit.page.get_by_role("button", name="Ship and capture")
    ship.click()
    visit.shows("We ask again in 1 s.")
    visit.page.clock.run_for(1000)
    visit.shows("This is not possible now. No money was moved.")
    ship.click()
    visit.shows("The order is shipped")
    assert len(visit.keys) == 4
    assert visit.keys[1] == visit.keys[2] != visit.keys[3]
