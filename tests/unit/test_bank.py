"""The bank package: which URLs it accepts, and how many calls it makes at once."""

import asyncio
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY

import bank
from bank.simulator import Simulator
from bank.slots import Slots
from config import SETTINGS, ConfigError
from tests.support import authorization_request

OPTIONS: dict[str, Any] = {
    "connect_timeout_s": 0.3,
    "timeout_s": 1,
    "retries": 0,
    "concurrency": 1,
    "breaker_failures": 3,
    "breaker_open_s": 1,
}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bank",
        "//bank",
        "ftp://bank",
        "http://",
        "http://bank:x",
        "http://bank:0",
        "http://bank:65536",
        "http://[::1",
        "http://u:secret@bank",
        "http://@bank",
        "http://bank?a=secret",
        "http://bank/?",
        "http://bank/#x",
        " http://bank",
        "http://ba nk",
        "http://bank/\n",
    ],
)
def test_a_wrong_url_is_one_line_that_says_what_is_allowed(url: str) -> None:
    """The message names the setting and the allowed forms, and does not repeat the URL."""
    with pytest.raises(ConfigError) as caught:
        bank.configure(url, **OPTIONS)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("BANK_URL ")
    assert message.endswith(f"; allowed: {SETTINGS['BANK_URL'].allowed}")
    assert "secret" not in message
    assert caught.value.__context__ is None


@pytest.mark.parametrize("url", ["http://bank", "HTTPS://bank:8443/api/v2", "http://[::1]:8080/"])
def test_a_url_of_a_bank_is_accepted(url: str) -> None:
    """The scheme may be in either case, and port and path are optional."""
    bank.configure(url, **OPTIONS)
    assert not bank.circuit_open()


@pytest.mark.parametrize(
    ("url", "identity"),
    [
        ("http://bank", "http://bank:80"),
        ("http://bank/", "http://bank:80"),
        ("HTTPS://Bank.Example.COM/api/V2/", "https://bank.example.com:443/api/V2"),
        ("https://bank:8443", "https://bank:8443"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://[FE80::A]", "http://[fe80::a]:80"),
        ("simulator://127.0.0.1:8080/an-id", "simulator:an-id"),
    ],
)
def test_a_bank_is_identified_by_scheme_host_port_and_path(url: str, identity: str) -> None:
    """Two spellings of one URL are one bank; the path's case counts. A simulator is identified by its start."""
    bank.configure(url, **OPTIONS)
    assert bank.identity() == identity


def test_each_start_of_the_simulator_is_another_bank() -> None:
    """Even on the same port, because it has no payment of the start before."""
    identities = []
    port = 0
    for _ in range(2):
        simulator = Simulator(port=port)
        simulator.start()
        port = int(simulator.url.rpartition(":")[2])
        bank.configure(simulator.bank_url, **OPTIONS)
        identities.append(bank.identity())
        assert asyncio.run(bank.look_up(uuid4())) == bank.LookUp(authorized=None, final=True)
        bank.close()
        simulator.stop()
    assert all(identity.startswith("simulator:") for identity in identities)
    assert len(set(identities)) == 2


@pytest.mark.parametrize(
    "url", ["simulator://", "simulator:", "simulator:///an-id", "simulator://u:secret@127.0.0.1/x"]
)
def test_a_simulator_without_an_address_is_a_wrong_url(url: str) -> None:
    """It is reported as any other wrong URL."""
    with pytest.raises(ConfigError) as caught:
        bank.configure(url, **OPTIONS)
    assert str(caught.value).startswith("BANK_URL ")
    assert "secret" not in str(caught.value)


AUTHORIZED = bank.Authorization(authorized=True, code="A1")
FOUND = bank.LookUp(authorized=True, code="A1")


class Acquirer:
    """A bank whose calls end when `answer` is set; `begun` counts those that began."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.begun = asyncio.Semaphore(0)
        self.calls = 0
        self.closed = 0
        self.merchants: list[str] = []
        self.look_up_fails: bank.BankError | None = None

    async def authorize(self, request: bank.AuthorizationRequest) -> bank.Authorization:
        self.merchants.append(request.merchant)
        await self._answer()
        return AUTHORIZED

    async def look_up(self, _payment_id: UUID) -> bank.LookUp:
        await self._answer()
        if self.look_up_fails is not None:
            raise self.look_up_fails
        return FOUND

    async def _answer(self) -> None:
        self.calls += 1
        self.begun.release()
        await self.answer.wait()

    def close(self) -> None:
        self.closed += 1


def use(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Acquirer:
    """Register another bank by its scheme, and configure it."""
    acquirer = Acquirer()
    monkeypatch.setitem(bank.BANKS, "further", lambda _url, **_options: acquirer)
    bank.configure("further://bank", **{**OPTIONS, **options})
    return acquirer


def test_a_payment_without_a_slot_in_time_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for `connect_timeout_s` and raises Overloaded, a kind of NotReached; look-ups have their own slots."""
    acquirer = use(monkeypatch, concurrency=2, connect_timeout_s=0.2)

    async def three_payments() -> list[object]:
        sent = [asyncio.create_task(bank.authorize(authorization_request())) for _ in range(2)]
        looked_up = asyncio.create_task(bank.look_up(uuid4()))
        for _ in range(3):
            await acquirer.begun.acquire()
        started = time.monotonic()
        third = await asyncio.gather(bank.authorize(authorization_request()), return_exceptions=True)
        assert time.monotonic() - started > 0.15
        acquirer.answer.set()
        return [await looked_up, *await asyncio.gather(*sent), *third]

    shed = REGISTRY.get_sample_value("payment_gateway_shed_total") or 0
    *answered, refused = asyncio.run(three_payments())
    assert answered == [FOUND, AUTHORIZED, AUTHORIZED]
    assert isinstance(refused, bank.Overloaded)
    assert isinstance(refused, bank.NotReached)
    assert acquirer.calls == 3
    assert REGISTRY.get_sample_value("payment_gateway_shed_total") == shed + 1


def test_look_ups_have_slots_and_a_circuit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`LOOK_UPS` of them hang and the next ones wait, or all fail: payments are sent as if there were none."""
    acquirer = use(monkeypatch, concurrency=1, breaker_failures=1)

    async def scenario() -> None:
        look_ups = [asyncio.create_task(bank.look_up(uuid4())) for _ in range(bank.LOOK_UPS + 5)]
        for _ in range(bank.LOOK_UPS):
            await acquirer.begun.acquire()
        payment = asyncio.create_task(bank.authorize(authorization_request()))
        await acquirer.begun.acquire()
        assert acquirer.calls == bank.LOOK_UPS + 1
        acquirer.answer.set()
        assert await asyncio.gather(payment, *look_ups) == [AUTHORIZED] + [FOUND] * len(look_ups)
        acquirer.look_up_fails = bank.NotReached("the bank answered 503")
        for _ in range(2):
            with pytest.raises(bank.NotReached):
                await bank.look_up(uuid4())
        assert acquirer.calls == len(look_ups) + 2, "the second one was not made"
        assert not bank.circuit_open()
        assert await bank.authorize(authorization_request()) == AUTHORIZED

    asyncio.run(scenario())


def test_a_call_that_ends_gives_its_slot_to_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more calls are in progress than there are slots, and all calls are made in the end."""
    acquirer = use(monkeypatch, concurrency=2, connect_timeout_s=10)

    async def five_calls() -> list[bank.Authorization]:
        calls = [asyncio.create_task(bank.authorize(authorization_request())) for _ in range(5)]
        for _ in range(2):
            await acquirer.begun.acquire()
        assert REGISTRY.get_sample_value("payment_gateway_bank_in_flight") == 2
        acquirer.answer.set()
        return await asyncio.gather(*calls)

    assert asyncio.run(five_calls()) == [AUTHORIZED] * 5
    assert acquirer.calls == 5
    assert REGISTRY.get_sample_value("payment_gateway_bank_in_flight") == 0


def test_merchants_that_wait_for_a_slot_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The payments of one merchant keep their order, however many came before those of another."""
    acquirer = use(monkeypatch, concurrency=1)

    async def scenario() -> None:
        merchants = ["a", *"aaa", *"bb", "c"]
        payments = [
            asyncio.create_task(bank.authorize(authorization_request(merchant=merchant))) for merchant in merchants
        ]
        await acquirer.begun.acquire()
        acquirer.answer.set()
        await asyncio.gather(*payments)

    asyncio.run(scenario())
    assert acquirer.merchants == ["a", *"abcaba"]


def test_a_merchant_holds_its_share_of_the_slots_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others remain free for another merchant, also while payments of the first one wait or have given up."""
    acquirer = use(monkeypatch, concurrency=4, connect_timeout_s=0.1, most_of=lambda slots: slots * 3 // 4)

    async def scenario() -> None:
        first = [asyncio.create_task(bank.authorize(authorization_request(merchant="a"))) for _ in range(6)]
        ended = await asyncio.gather(*first[3:], return_exceptions=True)
        assert [type(error) for error in ended] == [bank.Overloaded] * 3
        assert acquirer.merchants == ["a"] * 3
        waiting = asyncio.create_task(bank.authorize(authorization_request(merchant="a")))
        await asyncio.sleep(0)
        other = asyncio.create_task(bank.authorize(authorization_request(merchant="b")))
        await asyncio.sleep(0)
        assert acquirer.merchants == [*"aaa", "b"]
        acquirer.answer.set()
        await asyncio.gather(*first[:3], other, waiting)
        assert acquirer.merchants == [*"aaa", *"ba"]

    asyncio.run(scenario())


@pytest.mark.parametrize("granted", [True, False])
def test_a_payment_that_is_cancelled_leaves_its_slot_to_others(*, granted: bool) -> None:
    """Whether it waits, or has got the slot in the same turn of the event loop."""

    async def scenario() -> None:
        slots = Slots(1, lambda slots: slots)
        assert slots.take("a")
        waiting = asyncio.create_task(slots.wait("a"))
        await asyncio.sleep(0)
        if granted:
            slots.release("a")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        if not granted:
            slots.release("a")
        assert slots.take("b")
        assert not slots.take("b")

    asyncio.run(scenario())


def test_configuring_again_closes_the_previous_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    """`configure` closes the bank that was configured before, and a second `close` does nothing."""
    first = use(monkeypatch)
    second = use(monkeypatch)
    assert (first.closed, second.closed) == (1, 0)
    bank.close()
    bank.close()
    assert (first.closed, second.closed) == (1, 1)


def test_the_longest_call_waits_for_a_slot_and_for_the_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    """`longest_s` is the sum of both, so callers know how long a request may still reach the bank."""
    use(monkeypatch, connect_timeout_s=0.5, timeout_s=3)
    assert bank.longest_s() == 3.5


class Paying(bank.Bank):
    """A bank that authorizes payments, and says nothing about what it can do with them."""

    async def authorize(self, request: bank.AuthorizationRequest) -> bank.Authorization:
        raise AssertionError(request)

    def close(self) -> None:
        pass


class Capturing(Paying):
    """A bank that can capture, and do nothing else with a payment."""

    operations = frozenset({bank.ActionType.CAPTURE})

    def __init__(self) -> None:
        self.asked: list[bank.ActionRequest] = []
        self.unknown: bank.BankError | None = None

    async def supports(self, action: bank.ActionType) -> bool:
        if self.unknown is not None:
            raise self.unknown
        return await super().supports(action)

    async def capture(self, request: bank.ActionRequest) -> bank.ActionResult:
        self.asked.append(request)
        return bank.ActionResult(approved=True, response_code=bank.APPROVED)


def action(kind: bank.ActionType) -> bank.ActionRequest:
    return bank.ActionRequest(
        action_id=uuid4(),
        payment_id=uuid4(),
        type=kind,
        merchant="acme",
        amount=100,
        currency="GBP",
        final=False,
        trace={},
        answer_by=time.monotonic() + 60,
    )


def test_a_bank_names_the_actions_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent no other one, and none while what it can do is not known."""
    acquirer = Capturing()
    monkeypatch.setitem(bank.BANKS, "further", lambda _url, **_options: acquirer)
    bank.configure("further://bank", **OPTIONS)
    capture = action(bank.ActionType.CAPTURE)
    assert asyncio.run(bank.act(capture)).approved
    for kind in (bank.ActionType.VOID, bank.ActionType.REFUND):
        for attempt in (bank.check_supports(kind), bank.act(action(kind))):
            with pytest.raises(bank.NotSupported) as refused:
                asyncio.run(attempt)
            assert not refused.value.sent
    with pytest.raises(bank.NoLookUp):
        asyncio.run(bank.look_up_action(capture.payment_id, capture.action_id))
    acquirer.unknown = bank.NoAnswer("the bank answered 500")
    for attempt in (bank.check_supports(capture.type), bank.act(capture)):
        with pytest.raises(bank.NotReached) as unknown:
            asyncio.run(attempt)
        assert not unknown.value.sent
    assert acquirer.asked == [capture]


def test_a_bank_without_actions_needs_no_word_about_them() -> None:
    """It has none, and its methods for them say so."""
    acquirer = Paying()
    for kind, ask in (("CAPTURE", acquirer.capture), ("VOID", acquirer.void), ("REFUND", acquirer.refund)):
        assert not asyncio.run(acquirer.supports(bank.ActionType(kind)))
        with pytest.raises(bank.NotSupported):
            asyncio.run(ask(action(bank.ActionType(kind))))
