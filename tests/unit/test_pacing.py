"""Pacing: how long refusals wait, and what does not wait."""

import asyncio
from typing import Any

import pytest

from handlers.scope import ENDPOINT, MERCHANT
from server.middleware.pacing import LONGEST_WAIT_S, WAIT_S, Pacing
from tests import clock


class Answers:
    """An application behind `Pacing` that answers at once."""

    def __init__(self) -> None:
        self._pacing = Pacing(self._answer)

    async def seconds(
        self, status: int, merchant: str | None = None, *, of_health: bool = False
    ) -> tuple[float, str | None]:
        """Send a request that is answered with this status; return how long that took, and its Retry-After."""
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            pytest.fail("nothing is received")

        began = asyncio.get_running_loop().time()
        scope: dict[str, Any] = {"type": "http", "status": status}
        if merchant is not None:
            scope[MERCHANT] = merchant
        if of_health:
            scope[ENDPOINT] = object()
        await self._pacing(scope, receive, send)
        return asyncio.get_running_loop().time() - began, dict(sent[0]["headers"]).get(b"retry-after")

    async def _answer(self, scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"retry-after", b"1")] if scope["status"] in {429, 503} else []
        await send({"type": "http.response.start", "status": scope["status"], "headers": headers})


def test_a_refusal_waits_longer_the_more_others_wait() -> None:
    """`WAIT_S` for each one that waits, up to `LONGEST_WAIT_S`; Retry-After is twice as long, in whole seconds."""

    async def scenario() -> None:
        answers, number = Answers(), int(LONGEST_WAIT_S / WAIT_S) + 100
        took = await asyncio.gather(*(answers.seconds(503, "acme") for _ in range(number)))
        wanted_s = [min(WAIT_S * (place + 1), LONGEST_WAIT_S) for place in range(number)]
        assert [seconds for seconds, _ in took] == pytest.approx(wanted_s)
        after = [int(retry_after or 0) for _, retry_after in took]
        assert all(seconds - 1 <= 2 * wanted <= seconds + 1e-9 for seconds, wanted in zip(after, wanted_s, strict=True))
        assert (after[0], after[-1]) == (1, 2 * LONGEST_WAIT_S)
        assert (await answers.seconds(503, "acme"))[0] == pytest.approx(WAIT_S)

    clock.run(scenario())


def test_a_client_that_gives_up_its_wait_shortens_that_of_the_next() -> None:
    """Cancelled refusals no longer wait."""

    async def scenario() -> None:
        answers = Answers()
        tasks = [asyncio.create_task(answers.seconds(503, "acme")) for _ in range(500)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await answers.seconds(503, "acme"))[0] == pytest.approx(WAIT_S)

    clock.run(scenario())


def test_the_refusals_of_one_merchant_or_of_strangers_do_not_delay_those_of_others() -> None:
    """Each merchant's refusals wait for its own; those of all callers without a key wait together."""

    async def scenario() -> None:
        answers = Answers()
        many = [asyncio.create_task(answers.seconds(429, "greedy")) for _ in range(100)]
        many += [asyncio.create_task(answers.seconds(401)) for _ in range(100)]
        await asyncio.sleep(0)
        assert (await answers.seconds(503, "other"))[0] == pytest.approx(WAIT_S)
        assert (await answers.seconds(404))[0] > 90 * WAIT_S
        await asyncio.gather(*many)

    clock.run(scenario())


@pytest.mark.parametrize("status", [200, 201, 202, 400, 404, 409, 422])
def test_other_answers_to_a_merchant_do_not_wait(status: int) -> None:
    """They are no reason to send the same request again."""
    assert clock.run(Answers().seconds(status, "acme"))[0] == 0


@pytest.mark.parametrize("status", [200, 503])
def test_health_checks_and_what_strangers_may_read_do_not_wait(status: int) -> None:
    """A load balancer learns at once that a gateway is not ready."""
    assert clock.run(Answers().seconds(status, of_health=True))[0] == 0
    assert clock.run(Answers().seconds(200))[0] == 0
