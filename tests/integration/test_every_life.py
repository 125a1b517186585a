"""Random lives of payments: whatever merchants, crashes and the bank do, gateway and bank agree about the money."""

import asyncio
import sys
import traceback
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import bank
import store
from bank import simulator as simulating
from bank.simulator import Simulator
from payments import asking, resolver
from payments.idempotency import KeyInUse, KeyReused
from storage import retries
from store import ActionStatus, ActionType, Payment
from tests import support
from tests.integration import acting, agreeing
from tests.integration.acting import ACTIONS_DECLINED, AMOUNT, ERRORS, SIZES, DrawnAction, Merchant
from tests.integration.interrupting import POINTS, Interrupter, Interruption
from tests.support import store_url

CARDS: Final = [
    support.AUTHORIZED_CARD,
    *ACTIONS_DECLINED,
    support.DECLINED_CARD,
    support.UNAVAILABLE_CARD,
    support.DROPPED,
    support.DROPPED_BEFORE,
]
AMOUNTS: Final = [AMOUNT, AMOUNT, 3, simulating.UNANSWERED, simulating.REFUSED, simulating.UNAVAILABLE]

# Those that end in doubt are rarer: what is in doubt holds amounts, and then little else happens.
DRAWN_SIZES: Final = ["all", "what is left", "a third", *SIZES] * 2 + ["a third", "unanswered"]
PENDING: Final = "PENDING"
SETTINGS: Final = settings(
    max_examples=14,
    stateful_step_count=25,
    derandomize=True,
    report_multiple_bugs=False,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # shorter lives that fail, too, would take minutes to find
    suppress_health_check=list(HealthCheck),
)

FINAL_CAPTURE: Final[DrawnAction] = (2, "a third", True)

# What happens at least a few times in a run, or it proves less than it says.
WANTED: Final = {
    *(f"{kind} approved" for kind in ActionType),
    *(status for status in ActionStatus),
    *(error.__name__ for error in ERRORS if error is not bank.Refused),
    "repeated",
    "released",
}

indexes = st.integers(0, 30)
sales = st.sampled_from([False, False, False, True])
rarely = st.sampled_from([False] * 15 + [True])  # it takes as long as the bank may
drawn_actions = st.tuples(st.integers(0, 9), st.sampled_from(DRAWN_SIZES), st.booleans())
interruptions = st.sampled_from([None] * len(POINTS) + POINTS)


class Life(RuleBasedStateMachine):
    """The payments of one merchant, in a store that all lives of a test share if it lasts."""

    def __init__(self, url: str, simulator: Simulator, interrupter: Interrupter, seen: Counter[str]) -> None:
        super().__init__()
        self._merchant = Merchant(url, simulator, interrupter, seen)

    @initialize(capture=sales, in_part=st.booleans())
    def first_payment(self, capture: bool, in_part: bool) -> None:
        """Authorize it, and perhaps capture it, or a third of it and release the rest."""

        async def step() -> None:
            first = self._merchant.payment(support.AUTHORIZED_CARD, AMOUNT, capture, keyed=True)
            (made,) = await self._merchant.send([first])
            assert isinstance(made, Payment), made
            if in_part:
                await self._merchant.send([self._merchant.action_on(made, FINAL_CAPTURE, keyed=True)])

        self._merchant.run(step())

    @rule(
        card=st.sampled_from(CARDS),
        amount=st.sampled_from(AMOUNTS),
        capture=sales,
        keyed=st.booleans(),
        interruption=interruptions,
    )
    def pay(self, card: str, amount: int, capture: bool, keyed: bool, interruption: Interruption | None) -> None:
        self._merchant.run(self._merchant.send([self._merchant.payment(card, amount, capture, keyed)], interruption))

    @rule(which=indexes, drawn=drawn_actions, keyed=st.booleans(), late=rarely, interruption=interruptions)
    def act(self, which: int, drawn: DrawnAction, keyed: bool, late: bool, interruption: Interruption | None) -> None:
        async def step() -> None:
            request = await self._merchant.action(which, drawn, keyed)
            if late and "amount" in request.values:
                request.values["amount"] = simulating.LATE
            await self._merchant.send([request], interruption)

        self._merchant.run(step())

    @rule(
        which=indexes,
        drawn=st.lists(drawn_actions, min_size=2, max_size=5),
        resolving=st.booleans(),
        interruption=interruptions,
    )
    def act_at_once(
        self, which: int, drawn: list[DrawnAction], resolving: bool, interruption: Interruption | None
    ) -> None:
        """Different actions on one payment, perhaps while the resolver works."""

        async def step() -> None:
            payment = await self._merchant.choose(which)
            requests = [self._merchant.action_on(payment, action, keyed=True) for action in drawn]
            sending = asyncio.create_task(self._merchant.send(requests, interruption))
            if resolving:
                await acting.look_up_due(sending.done)
            await sending

        self._merchant.run(step())

    @rule(which=indexes, drawn=drawn_actions, count=st.integers(2, 5), interruption=interruptions)
    def act_once_with_many_requests(
        self, which: int, drawn: DrawnAction, count: int, interruption: Interruption | None
    ) -> None:
        """Requests with one key are one action at the gateway and at the bank."""

        async def step() -> None:
            request = await self._merchant.action(which, drawn, keyed=True)
            here, there = await self._merchant.actions_here(), self._merchant.actions_there()
            await self._merchant.send([request] * count, interruption)
            assert len(await self._merchant.actions_here() - here) <= 1
            assert len(self._merchant.actions_there() - there) <= 1

        self._merchant.run(step())

    @rule(which=indexes, count=st.integers(1, 3))
    def repeat(self, which: int, count: int) -> None:
        """What was settled is answered as before, and the bank hears nothing of it."""
        keyed = [request for request in self._merchant.sent if request.key is not None]
        request = keyed[which % len(keyed)]
        earlier, ledger = request.kept, self._merchant.ledger()
        returned = self._merchant.run(self._merchant.send([request] * count))
        if earlier is None:
            return
        for later in returned:
            if not isinstance(later, KeyInUse):
                assert isinstance(later, type(earlier)), later
                assert later.id == earlier.id
                assert earlier.status == PENDING or later.status is earlier.status
        # A sale whose capture was not processed is captured by a retry.
        if earlier.status != PENDING and not request.values.get("capture"):
            assert self._merchant.ledger() == ledger
            self._merchant.seen["repeated"] += 1

    @rule(which=indexes, other=indexes, drawn=drawn_actions)
    def use_a_key_again(self, which: int, other: int, drawn: DrawnAction) -> None:
        """A key that belongs to an action or a payment is refused for anything else."""
        used = [request for request in self._merchant.sent if request.key is not None and request.kept is not None]

        async def step() -> None:
            first = used[which % len(used)]
            second = await self._merchant.action(other, drawn, keyed=False)
            if not other % 4:
                second = self._merchant.payment(support.AUTHORIZED_CARD, 1, capture=False, keyed=False)
            second.key = first.key
            if (second.kind, second.payment_id, second.values) == (first.kind, first.payment_id, first.values):
                return
            ledger = self._merchant.ledger()
            (raised,) = await self._merchant.send([second])
            self._merchant.sent.remove(second)
            assert isinstance(raised, KeyReused), raised
            assert self._merchant.ledger() == ledger

        self._merchant.run(step())

    @rule()
    def resolve(self) -> None:
        """Let time pass, and the resolver look up everything that is in doubt."""
        self._merchant.run(self._merchant.resolve())

    @invariant()
    def gateway_and_bank_do_not_contradict_each_other(self) -> None:
        agreeing.check(self._merchant.records(), self._merchant.ledger())

    def teardown(self) -> None:
        try:
            if sys.exc_info()[1] is None:
                self._end()
        finally:
            if isinstance(sys.exc_info()[1], Exception):
                traceback.print_exc()  # Hypothesis does not show an error that the same steps do not cause again
            self._merchant.close()

    def _end(self) -> None:
        """Resolve everything, and compare gateway and bank."""
        self._merchant.run(self._merchant.resolve())
        records, ledger = self._merchant.records(), self._merchant.ledger()
        agreeing.check(records, ledger)
        agreeing.check_settled(records, ledger)
        for record in records:
            self._merchant.run(agreeing.check_history(record))
            approved = [action for action in record.actions if action.status is ActionStatus.APPROVED]
            self._merchant.seen.update(f"{action.type} approved" for action in approved)
            self._merchant.seen["released"] += record.payment.captured > 0 and record.payment.voided > 0


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = store_url(request.param, tmp_path, request)
    store.configure(url, fingerprint_key=bytes(32))
    return url


def test_gateway_and_bank_agree_about_every_life(
    url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each step of random lives nothing contradicts, and at their ends payments and actions are the same."""
    monkeypatch.setattr(asking, "LOOK_UP_S", 0.0)
    monkeypatch.setattr(resolver, "surely_over_s", lambda: 0.0)  # no request outlives its step
    monkeypatch.setattr(retries, "DELAYS_S", (0.0, 0.01))
    seen: Counter[str] = Counter()
    life: Any = partial(Life, url, simulator, Interrupter(monkeypatch), seen)
    run_state_machine_as_test(life, settings=SETTINGS)
    missing = WANTED - seen.keys()
    assert not missing, seen
