"""Released claims: hidden from everything but a retry, which gets the same id, in memory and in databases."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import store
from store import Claimed, IdempotencyKey, NotInStatus, Payment, State, Status
from tests.support import pending_payment, store_url

ONE = IdempotencyKey(digest="k" * 64, fingerprint="1" * 64)
OTHER = IdempotencyKey(digest="k" * 64, fingerprint="2" * 64)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """An open store of each kind."""
    store.configure(store_url(request.param, tmp_path, request), fingerprint_key=bytes(32))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


async def released(key: IdempotencyKey = ONE) -> Payment:
    """Claim a payment with the key and release it."""
    payment = pending_payment()
    assert await store.claim(payment, key, 60) == payment
    await store.release(payment.id, payment.id)
    return payment


async def claimed_again(payment: Payment, attempt: Payment, key: IdempotencyKey = ONE) -> None:
    """Claim a released payment again; it keeps its id and is made now."""
    assert await store.claim(attempt, key, 60) == replace(attempt, id=payment.id)


@pytest.mark.usefixtures("opened")
def test_a_released_payment_is_in_no_answer_and_no_list() -> None:
    """Neither an operator nor the resolver can settle it either."""

    async def scenario() -> None:
        payment = await released()
        assert await store.find(payment.id) is None
        assert await store.search() == []
        assert await store.search(State.PENDING) == []
        assert await store.list_unresolved() == []
        assert await store.take_due(10, lambda _: 0) == []
        assert (await store.unresolved_stats()).count == 0
        assert await store.history(payment.id) == []
        await store.mark_unresolved(payment.id, 0)
        for if_unresolved in (False, True):
            with pytest.raises(NotInStatus):
                await store.settle(payment, Status.DECLINED, "someone", if_unresolved=if_unresolved)
        await claimed_again(payment, pending_payment())

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_a_payment_that_was_shown_as_pending_is_not_released() -> None:
    """A release that is recorded late, after an outage of the store, would hide a payment that a retry has found."""

    async def scenario() -> None:
        first, retry = pending_payment(), pending_payment()
        await store.claim(first, ONE, 0)
        found = await store.claim(retry, ONE, 60)
        assert found == store.Claimed(payment=first, same_payment=True, in_progress=False)
        await store.release(first.id, first.id)
        assert await store.find(first.id) == first
        assert await store.list_unresolved() == [first]
        await store.settle(first, Status.AUTHORIZED, "resolver")

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_a_retry_claims_a_released_payment_again_with_its_id() -> None:
    """It is PENDING with a running request, and is settled or released as any other."""

    async def scenario() -> None:
        payment, second, third = await released(), pending_payment(), pending_payment()
        await claimed_again(payment, second)
        again = replace(second, id=payment.id)
        assert await store.find(payment.id) == again
        assert await store.claim(pending_payment(), ONE, 60) == Claimed(
            payment=again, same_payment=True, in_progress=True
        )
        await store.release(payment.id, second.id)
        await claimed_again(payment, third)
        again = replace(third, id=payment.id)
        settled = await store.settle(again, Status.AUTHORIZED, "someone", attempt=third.id)
        assert settled == replace(again, status=Status.AUTHORIZED) == await store.find(payment.id)
        assert await store.search() == [settled]
        assert [change.to_status for change in await store.history(payment.id)] == [Status.AUTHORIZED]

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_a_delayed_end_of_an_attempt_does_not_undo_a_retry() -> None:
    """Whatever an attempt still wants after another one has claimed the payment does nothing."""

    async def scenario() -> None:
        payment, second = await released(), pending_payment()
        await claimed_again(payment, second)
        await store.release(payment.id, payment.id)
        await store.drop(payment.id, payment.id)
        await store.withdraw(payment, ONE)
        with pytest.raises(NotInStatus):
            await store.settle(payment, Status.DECLINED, "the first attempt", attempt=payment.id)
        assert await store.find(payment.id) == replace(second, id=payment.id)
        await store.settle(payment, Status.AUTHORIZED, "someone", attempt=second.id)
        await store.release(payment.id, second.id)
        await store.drop(payment.id, second.id)
        found = await store.find(payment.id)
        assert found is not None
        assert found.status is Status.AUTHORIZED, "what is settled is never released"

    run(scenario)


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("end", ["drop", "withdraw"])
def test_a_retry_that_was_never_sent_leaves_the_payment_released(end: str) -> None:
    """An earlier attempt was sent, so the id has to be kept."""

    async def scenario() -> None:
        payment, second = await released(), pending_payment()
        await claimed_again(payment, second)
        if end == "drop":
            await store.drop(payment.id, second.id)
        else:
            await store.withdraw(second, ONE)
        assert await store.search() == []
        await claimed_again(payment, pending_payment())

    run(scenario)


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("key", [ONE, None])
def test_a_first_attempt_that_was_never_sent_leaves_nothing(key: IdempotencyKey | None) -> None:
    """The next request with the key is a new payment with an id of its own."""

    async def scenario() -> None:
        dropped, withdrawn, third = pending_payment(), pending_payment(), pending_payment()
        await store.claim(dropped, key, 60)
        await store.drop(dropped.id, dropped.id)
        assert await store.claim(withdrawn, key, 60) == withdrawn
        await store.withdraw(withdrawn, key)
        await store.withdraw(pending_payment(), key)
        assert await store.claim(third, key, 60) == third
        assert await store.search() == [third]

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_another_payment_under_the_key_has_an_id_of_its_own() -> None:
    """Both ids are kept when it is released as well; a key has one payment that is not released."""

    async def scenario() -> None:
        first = await released()
        second, third = await released(OTHER), await released(replace(OTHER, fingerprint="3" * 64))
        assert len({first.id, second.id, third.id}) == 3
        again = pending_payment()
        await claimed_again(second, again, OTHER)
        in_use = await store.claim(pending_payment(), ONE, 60)
        assert isinstance(in_use, Claimed)
        assert (in_use.payment.id, in_use.same_payment) == (second.id, False)
        await store.release(second.id, again.id)
        await claimed_again(first, pending_payment())

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_a_retry_at_another_bank_is_pending_and_must_not_be_sent() -> None:
    """It is unresolved, with the bank that it was sent to, as is every further retry."""

    async def scenario() -> None:
        sent = replace(pending_payment(), bank="https://old.example:443")
        retry = replace(pending_payment(), bank="https://new.example:443")
        await store.claim(sent, ONE, 60)
        await store.release(sent.id, sent.id)
        for attempt in (retry, replace(retry, id=uuid4())):
            claimed = await store.claim(attempt, ONE, 60)
            assert isinstance(claimed, Claimed)
            assert (claimed.payment.id, claimed.payment.bank) == (sent.id, sent.bank)
            assert (claimed.payment.status, claimed.in_progress) == (Status.PENDING, False)
            assert claimed.same_payment
        assert [payment.id for payment in await store.list_unresolved()] == [sent.id]
        assert [payment.bank for payment in await store.take_due(10, lambda _: 60)] == [sent.bank]
        await store.release(sent.id, sent.id)
        assert await store.find(sent.id) is not None

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_a_gateway_at_another_bank_does_not_take_the_turn_of_a_payment() -> None:
    """Its look-up would be put off again and again by gateways that may not ask its bank."""

    async def scenario() -> None:
        old, new = "https://old.example:443", "https://new.example:443"
        sent, unknown = replace(pending_payment(), bank=old), pending_payment()
        for payment in (sent, unknown):
            await store.claim(payment, None, 0)
        assert [payment.id for payment in await store.take_due(10, lambda _: 60, new)] == [unknown.id]
        assert [payment.id for payment in await store.take_due(10, lambda _: 0, old)] == [sent.id]
        await store.move_bank(old, new, "operator")
        assert [payment.id for payment in await store.take_due(10, lambda _: 60, new)] == [sent.id]

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_a_retry_after_the_bank_has_moved_is_sent() -> None:
    """From then on the payment is one of the bank's new identity."""

    async def scenario() -> None:
        old, new = "https://old.example:443", "https://new.example:443"
        sent, retry = replace(pending_payment(), bank=old), replace(pending_payment(), bank=new)
        await store.claim(sent, ONE, 60)
        assert await store.move_bank(old, new, "operator") == 1, "the number of PENDING payments"
        await store.release(sent.id, sent.id)
        assert await store.move_bank("https://other.example:443", old, "operator") == 0
        await claimed_again(sent, retry)
        assert await store.is_same_bank("https://other.example:443", new), "by two moves"
        assert not await store.is_same_bank(new, old)

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_the_same_key_of_another_merchant_is_another_key() -> None:
    """Its payment is new."""

    async def scenario() -> None:
        await released()
        theirs = replace(pending_payment(), merchant="another")
        assert await store.claim(theirs, ONE, 60) == theirs

    run(scenario)


def test_the_database_decides_races_of_claims_and_releases(database_url: str) -> None:
    """From three stores at once, two payments are claimed and released under one key; each has one id throughout."""
    from storage.sql import Sql  # noqa: PLC0415

    stores = [Sql(database_url, connections=8, key_checks=["c"]) for _ in range(3)]
    running: list[UUID] = []
    most: list[int] = []

    def attempt(number: int) -> tuple[str, UUID] | None:
        opened, key, payment = stores[number % 3], (ONE, ONE, OTHER)[number % 7 % 3], pending_payment()
        claim = opened.claim(payment, key, 60)
        if isinstance(claim, Claimed):
            return None
        running.append(claim.id)
        most.append(len(running))
        running.remove(claim.id)
        opened.release(claim.id, payment.id)
        return key.fingerprint, claim.id

    with ThreadPoolExecutor(12) as pool:
        made = {outcome for outcome in pool.map(attempt, range(200)) if outcome is not None}
    assert set(most) == {1}, "one attempt with the key at a time"
    assert len(made) == len({fingerprint for fingerprint, _ in made}) >= 1, "one id for each payment"
    for database in stores:
        database.close()


def test_a_running_request_is_found_after_the_time_of_the_retry(database_url: str) -> None:
    """A retry's time counts from its own claim, not from the first one's."""

    async def scenario() -> None:
        store.configure(database_url, fingerprint_key=bytes(32))
        old = replace(pending_payment(), created_at=datetime.now(UTC) - timedelta(hours=1))
        await store.claim(old, ONE, 60)
        await store.release(old.id, old.id)
        await claimed_again(old, pending_payment())
        assert await store.list_unresolved() == []
        assert await store.take_due(10, lambda _: 0) == []

    run(scenario)
