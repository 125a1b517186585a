"""Admission: how many payments are in progress, when one holds a slot, and how the surplus is refused."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.problems import Code, Problem
from handlers.scope import MERCHANT, OPERATION
from server.admission import AT_ONCE, Admission, Admit
from telemetry import metrics
from tests import clock

WHOLE_BODY = {"type": "http.request", "body": b"{}", "more_body": False}
PART_OF_BODY = {"type": "http.request", "body": b"{", "more_body": True}
DISCONNECT = {"type": "http.disconnect"}


@dataclass
class Request:
    """A request to the middleware: what it receives, what its application does, and what it was answered.

    messages: what it receives; after the last it waits for `arrived`, and then receives the whole body
    after_body: what the application does once it has the body
    """

    messages: list[dict[str, Any]] = field(default_factory=lambda: [WHOLE_BODY])
    after_body: Callable[[], Awaitable[object]] | None = None
    has_body: bool = True
    merchant: str = "acme"
    was_read: bool = False
    reached: bool = False
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def send_to(self, admission: Admission) -> None:
        scope = {"type": "http", OPERATION: SimpleNamespace(has_body=self.has_body), MERCHANT: self.merchant}
        await Admit(self._application, admission)(scope, self._receive, self._send)

    async def _application(self, _scope: Any, receive: Any, send: Any) -> None:
        self.reached = True
        more = self.has_body
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(Code.MALFORMED_REQUEST)
            more = message["more_body"]
        if self.after_body is not None:
            await self.after_body()
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def _receive(self) -> Any:
        self.was_read = True
        if not self.messages:
            await self.arrived.wait()
        return self.messages.pop(0) if self.messages else WHOLE_BODY

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}


def free_slots(admission: Admission, merchant: str = "acme") -> int:
    """Return how many more payments of a merchant would be admitted now."""
    entered = 0
    while not admission.is_full(merchant):
        admission.enter(merchant)
        entered += 1
    for _ in range(entered):
        admission.leave(merchant)
    return entered


def shed() -> float:
    value: float = metrics.SHED._value.get()
    return value


async def settled() -> None:
    """Let every task do what it can without time passing."""
    for _ in range(100):
        await asyncio.sleep(0)


def test_the_limit_is_how_many_payments_are_in_progress() -> None:
    """One more is refused; when one of them ends, the next is admitted."""

    async def scenario() -> None:
        admission, ended = Admission(2), asyncio.Event()
        first = [Request(after_body=ended.wait) for _ in range(2)]
        tasks = [asyncio.create_task(request.send_to(admission)) for request in first]
        await settled()
        refused = Request()
        await refused.send_to(admission)
        assert (refused.status, refused.reached) == (503, False)
        ended.set()
        await asyncio.gather(*tasks)
        assert [request.status for request in first] == [201, 201]
        admitted = Request()
        await admitted.send_to(admission)
        assert admitted.status == 201

    clock.run(scenario())


def test_a_payment_is_refused_before_its_body_is_read() -> None:
    """The answer is a problem document with Retry-After, and nothing was received for it."""

    async def scenario() -> None:
        refused = Request()
        await refused.send_to(Admission(0))
        assert (refused.status, refused.was_read) == (503, False)
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "1"

    clock.run(scenario())


def test_a_slot_is_held_from_the_end_of_the_body_to_the_end_of_the_request() -> None:
    """A part of a body holds none, and the response alone does not end the request."""

    async def scenario() -> None:
        admission, proceed, ended = Admission(1), asyncio.Event(), asyncio.Event()
        request = Request([PART_OF_BODY, PART_OF_BODY], proceed.wait)

        async def whole_request() -> None:
            await request.send_to(admission)
            assert free_slots(admission) == 1
            ended.set()

        task = asyncio.create_task(whole_request())
        await settled()
        assert (request.was_read, free_slots(admission)) == (True, 1)
        request.arrived.set()
        await settled()
        assert free_slots(admission) == 0
        proceed.set()
        await task
        assert request.status == 201

    clock.run(scenario())


def test_a_slot_is_held_until_the_response_is_sent() -> None:
    """A client that reads its response slowly is still in progress."""

    async def scenario() -> None:
        admission, may_be_sent, sent = Admission(1), asyncio.Event(), []

        async def application(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 201, "headers": []})

        async def receive() -> Any:
            return WHOLE_BODY

        async def send(message: Any) -> None:
            await may_be_sent.wait()
            sent.append(message)

        scope = {"type": "http", OPERATION: SimpleNamespace(has_body=True), MERCHANT: "acme"}
        task = asyncio.create_task(Admit(application, admission)(scope, receive, send))
        await settled()
        assert (sent, free_slots(admission)) == ([], 0)
        may_be_sent.set()
        await task
        assert free_slots(admission) == 1

    clock.run(scenario())


async def fail() -> None:
    raise RuntimeError


@pytest.mark.parametrize(
    ("messages", "after_body", "error"),
    [
        pytest.param([WHOLE_BODY], fail, RuntimeError, id="error after the body"),
        pytest.param([DISCONNECT], None, Problem, id="disconnect before the body"),
        pytest.param([PART_OF_BODY, DISCONNECT], None, Problem, id="disconnect within the body"),
    ],
)
def test_a_request_that_fails_leaves_as_many_slots_as_there_were(
    messages: list[dict[str, Any]], after_body: Any, error: type[Exception]
) -> None:
    """Neither fewer, which would close the gateway in time, nor more, which would overload the bank."""

    async def scenario() -> None:
        admission = Admission(2)
        for _ in range(5):
            with pytest.raises(error):
                await Request(list(messages), after_body).send_to(admission)
            assert free_slots(admission) == 2

    clock.run(scenario())


@pytest.mark.parametrize("messages", [[WHOLE_BODY], [PART_OF_BODY]], ids=["after the body", "within the body"])
def test_a_request_that_is_cancelled_leaves_as_many_slots_as_there_were(messages: list[dict[str, Any]]) -> None:
    """A shutdown cancels requests wherever they are."""

    async def scenario() -> None:
        admission = Admission(2)
        for _ in range(5):
            task = asyncio.create_task(Request(list(messages), asyncio.Event().wait).send_to(admission))
            await settled()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert free_slots(admission) == 2

    clock.run(scenario())


def test_receiving_after_the_body_takes_no_second_slot() -> None:
    """An application may wait for a disconnect once it has the body."""

    async def scenario() -> None:
        admission = Admission(2)

        async def application(_scope: Any, receive: Any, _send: Any) -> None:
            for _ in range(3):
                await receive()
            assert free_slots(admission) == 1

        async def receive() -> Any:
            return WHOLE_BODY

        async def send(_message: Any) -> None:
            pass

        scope = {"type": "http", OPERATION: SimpleNamespace(has_body=True), MERCHANT: "acme"}
        await Admit(application, admission)(scope, receive, send)
        assert free_slots(admission) == 2

    clock.run(scenario())


def test_slow_bodies_hold_no_slot_and_are_refused_late_if_none_is_free_then() -> None:
    """Ten clients that send slowly do not keep out one that sends at once; one of them is admitted after it."""

    async def scenario() -> None:
        admission, ended = Admission(1), asyncio.Event()
        slow, tasks = [Request([PART_OF_BODY]) for _ in range(10)], []
        for request in slow:
            tasks.append(asyncio.create_task(request.send_to(admission)))
            await settled()
            assert request.was_read
        quick = Request(after_body=ended.wait)
        quick_task = asyncio.create_task(quick.send_to(admission))
        await settled()
        assert free_slots(admission) == 0
        before = shed()
        for request in slow[1:]:
            request.arrived.set()
        outcomes = await asyncio.gather(*tasks[1:], return_exceptions=True)
        assert [outcome.code for outcome in outcomes if isinstance(outcome, Problem)] == [Code.OVERLOADED] * 9
        assert shed() - before == 9
        ended.set()
        await quick_task
        slow[0].arrived.set()
        await tasks[0]
        assert (quick.status, slow[0].status, free_slots(admission)) == (201, 201, 1)

    clock.run(scenario())


def test_a_client_that_disconnects_within_its_body_is_not_counted_as_refused() -> None:
    """Also when no slot is free: it asked for none."""

    async def scenario() -> None:
        admission, ended, before = Admission(1), asyncio.Event(), shed()
        slow, quick = Request([PART_OF_BODY]), Request(after_body=ended.wait)
        tasks = [asyncio.create_task(request.send_to(admission)) for request in (slow, quick)]
        await settled()
        slow.messages.append(DISCONNECT)
        slow.arrived.set()
        with pytest.raises(Problem) as caught:
            await tasks[0]
        assert (caught.value.code, shed() - before) == (Code.MALFORMED_REQUEST, 0)
        ended.set()
        await tasks[1]

    clock.run(scenario())


async def count_turns(turns: list[int]) -> None:
    """Count the turns of the event loop in `turns[0]`."""
    while True:
        turns[0] += 1
        await asyncio.sleep(0)


def test_payments_begin_a_few_in_each_turn_of_the_event_loop_and_reads_at_once() -> None:
    """Of a burst, `AT_ONCE` payments begin in each turn, in their order; a read that came last begins in the first."""

    async def scenario() -> None:
        admission, turns, begun = Admission(1000), [0], []
        counting = asyncio.create_task(count_turns(turns))

        def noting(name: object) -> Callable[[], Awaitable[object]]:
            async def note() -> None:
                begun.append((name, turns[0]))

            return note

        burst = [Request(after_body=noting(number)) for number in range(10 * AT_ONCE)]
        read = Request(after_body=noting("read"), has_body=False)
        await asyncio.gather(*(request.send_to(admission) for request in [*burst, read]))
        counting.cancel()
        assert [name for name, _ in begun if name != "read"] == list(range(10 * AT_ONCE))
        assert set(Counter(turn for name, turn in begun if name != "read").values()) == {AT_ONCE}
        assert dict(begun)["read"] == dict(begun)[0], "in the turn of the first payments"

    clock.run(scenario())


def test_a_payment_that_comes_alone_does_not_wait_for_a_turn() -> None:
    """The limit for each turn costs nothing while there is no burst."""

    async def scenario() -> None:
        admission = Admission(10)
        for _ in range(3):
            with pytest.raises(StopIteration):  # it ends without being suspended
                Request().send_to(admission).send(None)
            await settled()

    clock.run(scenario())


def test_a_burst_in_one_turn_is_not_admitted_beyond_the_limit() -> None:
    """Payments that wait for their turn count; all others are refused before their body is read."""

    async def scenario() -> None:
        limit = AT_ONCE + 2
        admission, ended, before = Admission(limit), asyncio.Event(), shed()
        burst = [Request(after_body=ended.wait) for _ in range(30)]
        tasks = [asyncio.create_task(request.send_to(admission)) for request in burst]
        await asyncio.gather(*tasks[limit:])
        ended.set()
        await asyncio.gather(*tasks)
        assert [request.status for request in burst] == [201] * limit + [503] * (30 - limit)
        assert [request.was_read for request in burst] == [True] * limit + [False] * (30 - limit)
        assert shed() - before == 30 - limit
        assert free_slots(admission) == limit

    clock.run(scenario())


def test_reads_and_what_is_no_operation_are_served_when_no_slot_is_free() -> None:
    """Only operations with a body are limited."""

    async def scenario() -> None:
        read = Request(has_body=False)
        await read.send_to(Admission(0))
        assert read.status == 201
        reached = []

        async def application(scope: Any, _receive: Any, _send: Any) -> None:
            reached.append(scope["type"])

        async def unused(*_: Any) -> Any:
            pytest.fail("nothing is received or sent")

        for kind in ("http", "lifespan"):
            await Admit(application, Admission(0))({"type": kind}, unused, unused)
        assert reached == ["http", "lifespan"]

    clock.run(scenario())


@pytest.mark.parametrize("turns", range(4))
def test_payments_that_are_cancelled_before_their_turn_leave_it_to_others(turns: int) -> None:
    """Whenever that happens, all others begin, and every slot is free at the end."""

    async def scenario() -> None:
        admission = Admission(20)
        burst = [Request() for _ in range(20)]
        tasks = [asyncio.create_task(request.send_to(admission)) for request in burst]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[AT_ONCE::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes]
        assert any(cancelled)
        assert [request.status for request in burst] == [None if gone else 201 for gone in cancelled]
        await settled()
        assert free_slots(admission) == 20

    clock.run(scenario())


def test_each_refusal_is_counted_once() -> None:
    """In the metric for alerts, whether refused before the body or after it."""

    async def scenario() -> None:
        before = shed()
        await Request().send_to(Admission(0))
        assert shed() - before == 1
        admission, ended = Admission(1), asyncio.Event()
        slow, quick = Request([PART_OF_BODY]), Request(after_body=ended.wait)
        tasks = [asyncio.create_task(request.send_to(admission)) for request in (slow, quick)]
        await settled()
        slow.arrived.set()
        with pytest.raises(Problem):
            await tasks[0]
        assert shed() - before == 2
        ended.set()
        await tasks[1]
        assert shed() - before == 2

    clock.run(scenario())


def test_one_merchant_takes_its_share_of_the_places_at_most() -> None:
    """Three of four slots and three of four places in the queue; the rest is free for other merchants."""

    async def scenario() -> None:
        admission, ended = Admission(4, 4, lambda number: number * 3 // 4), asyncio.Event()
        assert free_slots(admission) == 6
        greedy = [Request(after_body=ended.wait) for _ in range(10)]
        tasks = [asyncio.create_task(request.send_to(admission)) for request in greedy]
        await settled()
        assert Counter(request.status for request in greedy) == {503: 4, None: 6}
        assert (free_slots(admission), free_slots(admission, "other")) == (0, 2)
        other = Request(merchant="other")
        await other.send_to(admission)
        assert other.status == 201
        ended.set()
        await asyncio.gather(*tasks)
        assert (free_slots(admission), free_slots(admission, "other")) == (6, 6)

    clock.run(scenario())


def test_merchants_take_turns_to_begin() -> None:
    """A payment that comes after a burst of another merchant begins in the second turn."""

    async def scenario() -> None:
        admission, begun = Admission(1000), []

        def noting(merchant: str) -> Callable[[], Awaitable[object]]:
            async def note() -> None:
                begun.append(merchant)

            return note

        burst = [Request(after_body=noting("greedy"), merchant="greedy") for _ in range(10 * AT_ONCE)]
        late = Request(after_body=noting("other"), merchant="other")
        await asyncio.gather(*(request.send_to(admission) for request in [*burst, late]))
        assert AT_ONCE <= begun.index("other") < 2 * AT_ONCE

    clock.run(scenario())
