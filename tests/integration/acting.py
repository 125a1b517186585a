"""A merchant whose requests reach the domain in this process; each step ends before the next one begins."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

import requests

import bank
import payments
import store
from bank import simulator as simulating
from bank.ledger import UNKNOWN
from bank.simulator import Simulator
from payments import actions, resolver, states
from payments.idempotency import KeyInUse, KeyReused
from store import Action, ActionStatus, ActionType, Payment, Status
from tests import support
from tests.integration import agreeing
from tests.integration.agreeing import Ledger, Record
from tests.integration.interrupting import Interrupter, Interruption, Killed
from tests.support import valid_payment

R = TypeVar("R")

# Seconds that the bank may take. Only a call that it answers too late needs them.
BANK_TIMEOUT_S: Final = 1.0

# What most payments are about, so that every amount in `SIZES` is a part of it.
AMOUNT: Final = 100_000

# Their captures, or refunds, are declined.
ACTIONS_DECLINED: Final = ["4000000000000259", "4000000000003238"]

# How much an action is to move, from how much there is.
SIZES: Final[Mapping[str, Callable[[int], int | None]]] = {
    "all": lambda left: None,
    "what is left": lambda left: max(left, 1),
    "a third": lambda left: max(left // 3, 1),
    "more than there is": lambda left: left + 1,
    "unanswered": lambda left: simulating.UNANSWERED,
    "refused": lambda left: simulating.REFUSED,
    "unavailable": lambda left: simulating.UNAVAILABLE,
}

# What a request may raise.
ERRORS: Final = (
    states.NotAllowed,
    states.ExceedsAvailable,
    states.InProgress,
    KeyInUse,
    KeyReused,
    bank.NotReached,
    bank.Refused,
    store.StoreUnavailable,
    Killed,
)

# Which kind of action of those that the payment's state allows, or else of all; how much; whether a capture is final.
DrawnAction = tuple[int, str, bool]


@dataclass(eq=False)
class Request:
    """A request of the merchant.

    kind: None for a payment
    kept: the payment or action that it returned the last time
    """

    kind: ActionType | None
    payment_id: UUID | None
    values: dict[str, Any]
    key: str | None
    kept: Payment | Action | None = None


class Merchant:
    """A merchant with a gateway, a bank and payments of its own.

    seen: what requests returned and raised, of all merchants
    sent: every request that was sent
    """

    numbers = itertools.count()

    def __init__(self, url: str, simulator: Simulator, interrupter: Interrupter, seen: Counter[str]) -> None:
        self._url, self._simulator, self._interrupter, self.seen = url, simulator, interrupter, seen
        self._runner = asyncio.Runner()
        self._name = f"merchant {next(self.numbers)}"
        self._keys = map("key {}".format, itertools.count())
        self.sent: list[Request] = []
        self._killed = False
        self._session, self._others = requests.Session(), frozenset[str]()
        self._others = frozenset(self.ledger())
        self._open()

    def close(self) -> None:
        self._session.close()
        self._runner.close()
        store.close()
        bank.close()

    def run(self, step: Coroutine[Any, Any, R]) -> R:
        """Run a step until nothing is running any more. After a kill the gateway starts again."""
        result = self._runner.run(_to_its_end(step))
        if self._killed and store.is_lasting():
            self._open()
        self._killed = False
        return result

    async def send(
        self, requests: list[Request], interruption: Interruption | None = None
    ) -> list[Payment | Action | BaseException]:
        """Send requests at once; return what each returned or raised."""
        self.sent += [request for request in dict.fromkeys(requests) if request not in self.sent]
        self._interrupter.plan(interruption)
        returned = await asyncio.gather(*map(self._send_one, requests), return_exceptions=True)
        self._interrupter.plan(None)
        for request, outcome in zip(requests, returned, strict=True):
            if isinstance(outcome, Payment | Action):
                request.kept = outcome
                self.seen[outcome.status] += 1
            else:
                assert isinstance(outcome, ERRORS), outcome
                self.seen[next(kind.__name__ for kind in ERRORS if isinstance(outcome, kind))] += 1
                self._killed |= isinstance(outcome, Killed)
        return returned

    def payment(self, card: str, amount: int, capture: bool, keyed: bool) -> Request:
        """Return a request for a payment."""
        values = valid_payment(card_number=card, amount=amount, capture=capture)
        return Request(None, None, values, next(self._keys) if keyed else None)

    async def choose(self, which: int) -> Payment:
        """Return one of the payments, a new one, or most often one that allows an action."""
        found = sorted(await store.search(merchant=self._name), key=lambda payment: payment.created_at)
        living = [payment for payment in found if states.LEADS_TO[payment.state()]]
        if which % 4 == 1 or not living:
            card = [support.AUTHORIZED_CARD, *ACTIONS_DECLINED][which % 3]
            (made,) = await self.send([self.payment(card, AMOUNT, capture=False, keyed=True)])
            assert isinstance(made, Payment), made
            return made
        return found[which % len(found)] if which % 8 == 2 else living[which % len(living)]

    async def action(self, which: int, drawn: DrawnAction, keyed: bool) -> Request:
        """Return a request for a drawn action on one of the payments."""
        return self.action_on(await self.choose(which), drawn, keyed)

    def action_on(self, payment: Payment, drawn: DrawnAction, keyed: bool) -> Request:
        """Return a request for a drawn action on this payment."""
        kinds = sorted(states.LEADS_TO[payment.state()])
        index, size, final = drawn
        if not kinds or not index % 5:
            kinds = list(ActionType)
        kind = kinds[index % len(kinds)]
        values: dict[str, Any] = {"final": final} if kind is ActionType.CAPTURE else {}
        left = payment.captured - payment.refunded if kind is ActionType.REFUND else payment.left()
        amount = None if kind is ActionType.VOID else SIZES[size](left)
        if amount is not None:
            values["amount"] = amount
        return Request(kind, payment.id, values, next(self._keys) if keyed else None)

    async def resolve(self) -> None:
        """Look up everything that is in doubt, as after the time of every request that was killed."""
        for record in await agreeing.read(self._name):
            if record.payment.status is Status.PENDING:
                await store.mark_unresolved(record.payment.id, 0)
            for action in record.actions:
                if action.status is ActionStatus.PENDING:
                    await store.mark_action_unresolved(action.id, 0)
        await look_up_due()

    def records(self) -> list[Record]:
        return self._runner.run(agreeing.read(self._name))

    async def actions_here(self) -> set[str]:
        return {str(action.id) for record in await agreeing.read(self._name) for action in record.actions}

    def actions_there(self) -> set[str]:
        """Return the actions that the bank has decided about, without those that never reached it."""
        actions = (action for entry in self.ledger().values() for action in entry["actions"].items())
        return {action_id for action_id, action in actions if action["outcome"] != UNKNOWN}

    def ledger(self) -> Ledger:
        """Return what the bank has of this life's payments."""
        ledger: Ledger = self._session.get(f"{self._simulator.url}/ledger", timeout=30).json()
        return {payment_id: entry for payment_id, entry in ledger.items() if payment_id not in self._others}

    def _open(self) -> None:
        store.configure(self._url, fingerprint_key=bytes(32), migrate=False)
        bank.configure(
            self._simulator.bank_url,
            connect_timeout_s=5,
            timeout_s=BANK_TIMEOUT_S,
            retries=0,
            concurrency=16,
            breaker_failures=1_000_000,
            breaker_open_s=1,
        )

    async def _send_one(self, request: Request) -> Payment | Action:
        if request.kind is None or request.payment_id is None:
            return (await payments.pay(self._name, dict(request.values), request.key)).payment
        payment = await store.find(request.payment_id)
        assert payment is not None
        return (await actions.act(payment, request.kind, request.values, request.key)).action


async def look_up_due(until: Callable[[], bool] = lambda: True) -> None:
    """Do what the resolver does until nothing is due, and until this says so."""
    passes, found = 0, True
    while found or not until():
        passes += until()
        assert passes < 20, "the bank answers every look-up, and still something is due"
        due_payments = await store.take_due(bank.LOOK_UPS, lambda _: 0.0, bank.identity())
        due_actions = await store.take_due_actions(bank.LOOK_UPS, lambda _: 0.0, bank.identity())
        look_ups = [*map(resolver._resolve, due_payments), *map(resolver._resolve_action, due_actions)]
        await asyncio.gather(*look_ups, return_exceptions=True)  # one that was interrupted is due again
        found = bool(look_ups)
        await asyncio.sleep(0.002)


async def _to_its_end(step: Coroutine[Any, Any, R]) -> R:
    """Return what a step returns, after everything that it began in the background has ended."""
    result = await step
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, running = await asyncio.wait(others, timeout=30)
        assert not running, running
    return result
