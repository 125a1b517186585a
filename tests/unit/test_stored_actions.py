"""The store's functions for actions: memory, SQLite and PostgreSQL pass the same tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

import store
from store import (
    Action,
    ActionKey,
    ActionStatus,
    ActionType,
    Claimed,
    ClaimedAction,
    IdempotencyKey,
    NotAvailable,
    NotInStatus,
    Payment,
    Status,
)
from tests.support import pending_payment, store_url

AMOUNT = 100
KEY = ActionKey(digest="k", fingerprint="f")


@pytest.fixture(params=["memory", "sqlite", "postgresql"], autouse=True)
def url(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[str]:
    url = store_url(request.param, tmp_path, request)
    store.configure(url, fingerprint_key=bytes(32))
    yield url
    store.close()


async def authorized(**changes: Any) -> Payment:
    payment = pending_payment(amount=AMOUNT, **changes)
    await store.claim(payment, None, 10)
    return await store.settle(payment, Status.AUTHORIZED, "gateway")


def action(payment: Payment, kind: ActionType, amount: int, releases: int = 0, **changes: Any) -> Action:
    now = datetime.now(UTC)
    values = {"id": uuid4(), "status": ActionStatus.PENDING, "created_at": now, "updated_at": now, **changes}
    return Action(
        payment_id=payment.id,
        merchant=payment.merchant,
        type=kind,
        amount=amount,
        releases=releases,
        currency=payment.currency,
        bank="https://bank.example:443",
        **values,
    )


async def done(payment: Payment, kind: ActionType, amount: int, releases: int = 0) -> Action:
    """Record an approved action."""
    claimed = await store.claim_action(action(payment, kind, amount, releases), None, uuid4(), 10)
    assert isinstance(claimed, Action)
    return await store.settle_action(claimed, ActionStatus.APPROVED, "gateway", response_code="10000")


async def balances(payment: Payment) -> tuple[int, ...]:
    """Return what is captured, voided, refunded, held, and held by refunds."""
    found = await store.find(payment.id)
    assert found is not None
    return found.captured, found.voided, found.refunded, found.held, found.refund_held


@asynccontextmanager
async def unchanged(payment: Payment) -> AsyncIterator[None]:
    before, actions = await balances(payment), await store.list_actions(payment.id)
    yield
    assert (await balances(payment), await store.list_actions(payment.id)) == (before, actions)


def test_an_action_holds_its_amount_until_it_is_settled() -> None:
    """Approved, the amount counts as captured; declined, it is available again. The audit trail has both."""

    async def scenario() -> None:
        payment = await authorized()
        first = action(
            payment, ActionType.CAPTURE, 30, reason="r", reference="order 7", metadata={"n": "\0 \N{SNOWMAN}"}
        )
        attempt = uuid4()
        assert await store.claim_action(first, None, attempt, 10) == first
        assert await store.find_action(first.id) == first
        assert await balances(payment) == (0, 0, 0, 30, 0)
        settled = await store.settle_action(
            first, ActionStatus.APPROVED, "someone", "why", response_code="10000", attempt=attempt
        )
        assert settled == replace(
            first, status=ActionStatus.APPROVED, response_code="10000", updated_at=settled.updated_at
        )
        assert settled.updated_at > first.updated_at
        assert await balances(payment) == (30, 0, 0, 0, 0)
        second = action(payment, ActionType.CAPTURE, 20, 50)
        await store.claim_action(second, None, uuid4(), 10)
        assert await balances(payment) == (30, 0, 0, 70, 0)
        declined = await store.settle_action(second, ActionStatus.DECLINED, "gateway", response_code="20005")
        assert await balances(payment) == (30, 0, 0, 0, 0)
        assert await store.list_actions(payment.id) == [settled, declined]
        lines = (await store.history(payment.id))[1:]
        assert [(line.action_id, line.from_status, line.to_status, line.note) for line in lines] == [
            (first.id, "PENDING", "APPROVED", "why"),
            (second.id, "PENDING", "DECLINED", ""),
        ]

    asyncio.run(scenario())


def test_a_final_capture_releases_the_rest_and_a_void_everything() -> None:
    async def scenario() -> None:
        captured, voided = await authorized(), await authorized()
        await done(captured, ActionType.CAPTURE, 30, 70)
        await done(voided, ActionType.VOID, AMOUNT)
        await done(captured, ActionType.REFUND, 20)
        assert await balances(captured) == (30, 70, 20, 0, 0)
        assert await balances(voided) == (0, AMOUNT, 0, 0, 0)

    asyncio.run(scenario())


def test_what_is_not_available_is_not_claimed() -> None:
    """An action that needs more than is left, or all while another holds a part, changes nothing."""

    async def scenario() -> None:
        payment = await authorized()
        await store.claim_action(action(payment, ActionType.CAPTURE, 30), None, uuid4(), 10)
        await done(payment, ActionType.CAPTURE, 30)
        for kind, amount, releases in (
            (ActionType.CAPTURE, 41, 0),
            (ActionType.CAPTURE, 10, 30),
            (ActionType.CAPTURE, 30, 40),
            (ActionType.VOID, 40, 0),
            (ActionType.VOID, 70, 0),
            (ActionType.REFUND, 31, 0),
        ):
            async with unchanged(payment):
                with pytest.raises(NotAvailable):
                    await store.claim_action(action(payment, kind, amount, releases), KEY, uuid4(), 10)
        await store.claim_action(action(payment, ActionType.REFUND, 20), None, uuid4(), 10)
        async with unchanged(payment):
            with pytest.raises(NotAvailable):
                await store.claim_action(action(payment, ActionType.REFUND, 11), None, uuid4(), 10)
            other = replace(action(payment, ActionType.CAPTURE, 1), merchant="other")
            with pytest.raises(NotAvailable):
                await store.claim_action(other, None, uuid4(), 10)
        await store.claim_action(action(payment, ActionType.CAPTURE, 40), KEY, uuid4(), 10)

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [Status.PENDING, Status.DECLINED])
def test_only_an_authorized_payment_can_be_acted_on(status: Status) -> None:
    async def scenario() -> None:
        payment = pending_payment(amount=AMOUNT)
        await store.claim(payment, None, 10)
        if status is not Status.PENDING:
            await store.settle(payment, status, "gateway")
        with pytest.raises(NotAvailable):
            await store.claim_action(action(payment, ActionType.CAPTURE, 1), None, uuid4(), 10)

    asyncio.run(scenario())


def test_a_key_belongs_to_one_action() -> None:
    """A repeated key finds the action, and whether it was sent with the same values and is still in progress."""

    async def scenario() -> None:
        payment = await authorized()
        first = action(payment, ActionType.CAPTURE, 10)
        assert await store.find_action_key(payment.merchant, KEY) is None
        await store.claim_action(first, KEY, uuid4(), 10)
        again = action(payment, ActionType.CAPTURE, 10)
        running = ClaimedAction(action=first, same_action=True, in_progress=True)
        async with unchanged(payment):
            assert await store.claim_action(again, KEY, uuid4(), 10) == running
            assert await store.claim_action(replace(again, id=first.id), KEY, uuid4(), 10) == running
            assert await store.find_action_key(payment.merchant, KEY) == running
        settled = await store.settle_action(first, ActionStatus.APPROVED, "gateway", response_code="10000")
        other = ActionKey(digest="k", fingerprint="other")
        claimed = ClaimedAction(action=settled, same_action=False, in_progress=False)
        assert await store.claim_action(again, other, uuid4(), 10) == claimed
        assert await store.find_action_key("other", KEY) is None

    asyncio.run(scenario())


def test_a_key_belongs_to_a_payment_or_to_an_action() -> None:
    """A claim of one looks among the other, also for a payment that was released."""

    async def scenario() -> None:
        payment = await authorized()
        neither = ClaimedAction(action=None, same_action=False, in_progress=False)
        for name, release in (("of a payment", False), ("of a released payment", True)):
            with_key = pending_payment(merchant=payment.merchant)
            await store.claim(with_key, IdempotencyKey(digest=name, fingerprint="f"), 10)
            if release:
                await store.release(with_key.id, with_key.id)
            key = ActionKey(digest=name, fingerprint="f")
            async with unchanged(payment):
                assert await store.claim_action(action(payment, ActionType.CAPTURE, 1), key, uuid4(), 10) == neither
                assert await store.find_action_key(payment.merchant, key) == neither
        await store.claim_action(action(payment, ActionType.CAPTURE, 10), KEY, uuid4(), 10)
        held = await store.find(payment.id)
        assert held is not None
        new, key_of_action = pending_payment(merchant=payment.merchant), IdempotencyKey(digest="k", fingerprint="f")
        assert await store.claim(new, key_of_action, 10) == Claimed(payment=held, same_payment=False, in_progress=False)
        assert await store.find(new.id) is None
        elsewhere = pending_payment(merchant="other")
        assert await store.claim(elsewhere, key_of_action, 10) == elsewhere

    asyncio.run(scenario())


def test_a_dropped_action_leaves_nothing() -> None:
    """Its amount is available and its key is free, also for the same id. A late drop of it does nothing."""

    async def scenario() -> None:
        payment = await authorized()
        dropped, attempt, later = action(payment, ActionType.CAPTURE, 60, 40), uuid4(), uuid4()
        await store.claim_action(dropped, KEY, attempt, 10)
        await store.drop_action(dropped.id, attempt)
        assert await store.find_action(dropped.id) is None
        assert await balances(payment) == (0, 0, 0, 0, 0)
        await store.claim_action(dropped, KEY, later, 10)
        async with unchanged(payment):
            await store.drop_action(dropped.id, attempt)
            with pytest.raises(NotInStatus):
                await store.settle_action(
                    dropped, ActionStatus.DECLINED, "gateway", response_code="20005", attempt=attempt
                )
        await store.settle_action(dropped, ActionStatus.APPROVED, "gateway", response_code="10000", attempt=later)
        async with unchanged(payment):
            await store.drop_action(dropped.id, later)

    asyncio.run(scenario())


def test_an_action_is_settled_once_and_corrected_to_approved_only() -> None:
    """A correction needs the amount; if it was used otherwise since, nothing changes."""

    async def scenario() -> None:
        payment = await authorized()
        declined = action(payment, ActionType.CAPTURE, 60)
        await store.claim_action(declined, None, uuid4(), 10)
        await store.settle_action(declined, ActionStatus.DECLINED, "gateway", response_code="20005")
        with pytest.raises(NotInStatus):
            await store.settle_action(declined, ActionStatus.APPROVED, "gateway", response_code="10000")
        corrected = await store.correct_action(declined, "resolver", "", response_code="10000")
        assert (corrected.status, corrected.response_code) == (ActionStatus.APPROVED, "10000")
        assert await balances(payment) == (60, 0, 0, 0, 0)
        with pytest.raises(NotInStatus):
            await store.correct_action(declined, "resolver", "", response_code="10000")
        other = action(payment, ActionType.CAPTURE, 30)
        await store.claim_action(other, None, uuid4(), 10)
        await store.settle_action(other, ActionStatus.DECLINED, "gateway", response_code="20005")
        await done(payment, ActionType.VOID, 40)
        async with unchanged(payment):
            with pytest.raises(NotAvailable):
                await store.correct_action(other, "resolver", "", response_code="10000")
        assert len(await store.history(payment.id)) == 5

    asyncio.run(scenario())


def test_an_unresolved_action_is_taken_for_look_ups_and_counted() -> None:
    """While its request may run, nobody takes or settles it; afterwards each look-up moves the next one."""

    async def scenario() -> None:
        payment = await authorized()
        waiting = action(payment, ActionType.CAPTURE, 60)
        await store.claim_action(waiting, None, uuid4(), 60)
        assert await store.take_due_actions(10, lambda _: 60) == await store.list_unresolved_actions() == []
        with pytest.raises(NotInStatus):
            await store.settle_action(
                waiting, ActionStatus.DECLINED, "resolver", response_code="20005", if_unresolved=True
            )
        await store.mark_action_unresolved(waiting.id, 0)
        assert await store.list_unresolved_actions() == [waiting]
        stats = await store.unresolved_stats()
        assert (stats.count, stats.oldest_created_at) == (1, waiting.created_at)
        assert await store.take_due_actions(10, lambda _: 60, "another bank") == []
        assert await store.take_due_actions(10, lambda _: 60, waiting.bank) == [waiting]
        assert await store.take_due_actions(10, lambda _: 60) == []
        assert 0 <= await store.action_claimed_s_ago(waiting.id) < 30
        await store.settle_action(waiting, ActionStatus.DECLINED, "resolver", response_code="20005", if_unresolved=True)
        assert (await store.unresolved_stats()).count == 0

    asyncio.run(scenario())


def test_a_payment_is_erased_with_the_text_of_its_actions_and_not_while_one_is_pending() -> None:
    async def scenario() -> None:
        payment = await authorized()
        held = action(payment, ActionType.CAPTURE, 60, reason="r", reference="order 7", metadata={"name": "value"})
        await store.claim_action(held, None, uuid4(), 10)
        with pytest.raises(NotInStatus):
            await store.erase(payment.id, "someone")
        assert await store.erase_older(timedelta(seconds=-60), 10, "retention", "") == 0
        settled = await store.settle_action(held, ActionStatus.APPROVED, "gateway", response_code="10000")
        await store.erase(payment.id, "someone")
        assert await store.list_actions(payment.id) == [replace(settled, reason=None, reference=None, metadata={})]
        with pytest.raises(NotAvailable):
            await store.claim_action(action(payment, ActionType.CAPTURE, 1), None, uuid4(), 10)

    asyncio.run(scenario())


def test_many_claims_at_once_never_take_more_than_there_is() -> None:
    """Of fifty captures of 30 % three are claimed, and then of fifty refunds of 40 % of the captured amount two."""

    async def scenario() -> None:
        payment = await authorized()

        async def claim(kind: ActionType, amount: int) -> Action | None:
            try:
                claimed = await store.claim_action(action(payment, kind, amount), None, uuid4(), 10)
            except NotAvailable:
                return None
            assert isinstance(claimed, Action)
            return claimed

        for kind, amount, expected in ((ActionType.CAPTURE, 30, 3), (ActionType.REFUND, 36, 2)):
            claimed = [made for made in await asyncio.gather(*(claim(kind, amount) for _ in range(50))) if made]
            assert len(claimed) == expected
            for made in claimed:
                await store.settle_action(made, ActionStatus.APPROVED, "gateway", response_code="10000")
        assert await balances(payment) == (90, 0, 72, 0, 0)

    asyncio.run(scenario())
