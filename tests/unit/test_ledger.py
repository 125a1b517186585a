"""The simulator over HTTP: it keeps the money of each payment, and does an action once."""

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import requests

from bank import simulator as simulating
from bank.simulator import Simulator


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    running = Simulator()
    running.start()
    yield running
    running.stop()


class Payment:
    """A payment of 100 at the simulator."""

    def __init__(self, simulator: Simulator, card_number: str = "2222405343248877", amount: int = 100) -> None:
        self.simulator, self.id = simulator, str(uuid4())
        card = {"card_number": card_number, "expiry_date": "12/2099", "cvv": "123"}
        self.sent = {**card, "currency": "GBP", "amount": amount}
        self.authorized = self.authorize()

    def authorize(self) -> bool:
        headers = {"Idempotency-Key": self.id}
        paid = requests.post(f"{self.simulator.url}/payments", json=self.sent, headers=headers, timeout=10).json()
        authorized: bool = paid["authorized"]
        return authorized

    def send(self, kind: str, amount: int, action_id: str = "", **changes: Any) -> requests.Response:
        action = {"action_id": action_id or str(uuid4()), "amount": amount, "currency": "GBP", "final": False}
        url = f"{self.simulator.url}/payments/{self.id}/{kind}"
        return requests.post(url, json={**action, **changes}, timeout=10)

    def act(self, kind: str, amount: int, action_id: str = "", **changes: Any) -> bool:
        approved: bool = self.send(kind, amount, action_id, **changes).json()["approved"]
        return approved

    def look_up(self, action_id: str) -> dict[str, Any]:
        url = f"{self.simulator.url}/payments/{self.id}/actions/{action_id}"
        found: dict[str, Any] = requests.get(url, timeout=10).json()
        return found

    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = requests.get(f"{self.simulator.url}/ledger", timeout=10).json()[self.id]
        return entry

    def balances(self) -> tuple[int, int, int]:
        entry = self.entry()
        return entry["captured"], entry["voided"], entry["refunded"]


def test_what_exceeds_the_balances_is_declined(simulator: Simulator) -> None:
    payment = Payment(simulator)
    assert not payment.act("refunds", 1)
    assert payment.act("captures", 30)
    assert not payment.act("captures", 71)
    assert not payment.act("captures", 10, currency="USD")
    assert payment.act("captures", 40)
    assert payment.act("refunds", 50)
    assert not payment.act("refunds", 21)
    assert payment.act("refunds", 20)
    assert not payment.act("voids", 29)
    assert payment.act("voids", 30)
    assert not payment.act("captures", 1)
    assert payment.balances() == (70, 30, 70)


def test_a_final_capture_releases_the_rest(simulator: Simulator) -> None:
    payment = Payment(simulator)
    assert payment.act("captures", 30, final=True)
    assert not payment.act("captures", 1)
    assert not payment.act("voids", 70)
    assert payment.balances() == (30, 70, 0)


@pytest.mark.parametrize("authorized", [True, False])
def test_a_repeated_id_is_done_once(simulator: Simulator, *, authorized: bool) -> None:
    """It gets the decision that it got before, also when that was a decline."""
    payment = Payment(simulator, amount=100 if authorized else 10)
    action_id = str(uuid4())
    assert [payment.act("captures", 40, action_id) for _ in range(3)] == [authorized] * 3
    assert payment.balances()[0] == (40 if authorized else 0)
    assert payment.look_up(action_id)["status"] == ("approved" if authorized else "declined")


def test_only_an_authorized_payment_has_money(simulator: Simulator) -> None:
    declined = Payment(simulator, "2222405343248878")
    assert not declined.authorized
    assert not declined.act("captures", 1)
    declined.id = str(uuid4())
    assert not declined.act("captures", 1)


def test_an_action_before_its_payment_stays_declined(simulator: Simulator) -> None:
    """A repeated id gets the same decision, so the payment is never authorized, and no money moves."""
    payment, action_id = Payment(simulator), str(uuid4())
    payment.id = str(uuid4())
    assert not payment.act("captures", 40, action_id)
    assert payment.look_up(action_id)["status"] == "declined"
    assert not payment.authorize()
    assert not payment.act("captures", 40, action_id)
    assert payment.balances() == (0, 0, 0)


def test_an_action_that_was_looked_up_before_is_never_done(simulator: Simulator) -> None:
    payment, action_id = Payment(simulator), str(uuid4())
    unknown = {"action_id": action_id, "status": "unknown", "final": True}
    assert payment.look_up(action_id) == unknown
    assert not payment.act("captures", 40, action_id)
    assert payment.look_up(action_id) == unknown


@pytest.mark.parametrize(("card", "declined"), [("4000000000000259", "captures"), ("4000000000003238", "refunds")])
def test_cards_whose_actions_are_declined(simulator: Simulator, card: str, declined: str) -> None:
    payment = Payment(simulator, card)
    assert payment.authorized
    assert payment.act("captures", 40) == (declined != "captures")
    assert not payment.act("refunds", 10)


def test_amounts_that_are_done_and_not_answered(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = Payment(simulator, amount=100_000)
    with pytest.raises(requests.ConnectionError):
        payment.act("captures", simulating.UNANSWERED)
    monkeypatch.setattr(simulating, "SILENT_S", 0.0)
    assert payment.act("captures", simulating.LATE)
    assert payment.balances()[0] == simulating.UNANSWERED + simulating.LATE


@pytest.mark.parametrize(("name", "value"), [("amount", "1"), ("amount", True), ("amount", 0), ("currency", None)])
def test_an_action_that_is_not_complete_is_refused(simulator: Simulator, name: str, value: object) -> None:
    payment = Payment(simulator)
    sent = {"action_id": str(uuid4()), "amount": 1, "currency": "GBP", name: value}
    refused = requests.post(f"{simulator.url}/payments/{payment.id}/captures", json=sent, timeout=10)
    assert refused.status_code == 400


def test_the_ledger_and_the_statement_show_actions(simulator: Simulator) -> None:
    payment, action_id = Payment(simulator), str(uuid4())
    assert payment.act("captures", 40, action_id)
    assert payment.entry()["actions"] == {action_id: {"type": "captures", "amount": 40, "outcome": "approved"}}
    statement = requests.get(f"{simulator.url}/ledger.csv", timeout=10).text
    (line,) = [line for line in csv.DictReader(io.StringIO(statement)) if line["payment_id"] == payment.id]
    assert (line["outcome"], line["captured"], line["refunded"]) == ("authorized", "40", "0")


def test_of_fifty_captures_at_once_three_are_approved(simulator: Simulator) -> None:
    payment = Payment(simulator)
    with ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(lambda _: payment.act("captures", 30), range(50))) == 3
    assert payment.balances() == (90, 0, 0)
