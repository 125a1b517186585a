"""Reconciliation: how a statement is read and compared with the payments of each store."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import store
from payments import reconciliation
from payments.reconciliation import Finding, Line, Malformed, Period, Report
from storage import sql
from store import Payment, Status
from tests.support import pending_payment, store_url

ID = "3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c"
HEADING = "payment_id,amount,currency,outcome"


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """An open store of each kind."""
    store.configure(store_url(request.param, tmp_path, request), fingerprint_key=bytes(32))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


async def made(status: Status = Status.AUTHORIZED, **changes: object) -> Payment:
    payment = pending_payment(**changes)
    await store.claim(payment, None, 0)
    return payment if status is Status.PENDING else await store.settle(payment, status, "gateway")


def line(payment: Payment, **changes: object) -> Line:
    return replace(Line(payment.id, payment.amount, payment.currency, payment.status), **changes)  # type: ignore[arg-type]


async def compared(lines: Iterator[Line], **period: object) -> Report:
    return await reconciliation.compare(lines, Period(**period))  # type: ignore[arg-type]


def found(report: Report) -> list[tuple[Finding, UUID]]:
    return [(difference.finding, difference.payment_id()) for difference in report.differences]


def test_columns_may_stand_in_any_order() -> None:
    """Further columns, blank lines, quotes and a byte-order mark's absence do not matter."""
    text = ["outcome,note,amount,payment_id,currency\n", "\n", f'declined,"a, b",1050,{ID.upper()},GBP\r\n']
    assert list(reconciliation.read(text)) == [Line(UUID(ID), 1050, "GBP", Status.DECLINED)]
    assert list(reconciliation.read([f"{HEADING}\n"])) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ([], "line 1: the heading is missing"),
        (["payment_id,amount,currency\n"], "line 1: the heading must have each of payment_id, amount, "),
        ([f"{HEADING},amount\n"], "line 1: the heading must have each of "),
        (
            [f"{HEADING}\n", f"{ID},1,GBP,declined\n", f"{ID},1,GBP\n"],
            "line 3: it has not as many fields as the heading",
        ),
        ([f"{HEADING}\n", "4242424242424242,1,GBP,declined\n"], "line 2: payment_id must be a UUID"),
        ([f"{HEADING}\n", f"{ID},10.50,GBP,declined\n"], "line 2: amount must be a whole number of minor units"),
        ([f"{HEADING}\n", f"{ID},-1,GBP,declined\n"], "line 2: amount must be a whole number of minor units"),
        ([f"{HEADING}\n", f"{ID},1,gbp,declined\n"], "line 2: currency must be three capital letters"),
        ([f"{HEADING}\n", f"{ID},1,GBP,4242424242424242\n"], "line 2: outcome must be authorized or declined"),
        ([f"{HEADING}\n", f'{ID},1,GBP,"declined\n'], "line 2: it is not valid CSV"),
    ],
)
def test_a_malformed_statement_is_an_error_with_its_line(text: list[str], problem: str) -> None:
    """The message quotes nothing that stands in the file."""
    with pytest.raises(Malformed) as caught:
        list(reconciliation.read(text))
    assert str(caught.value).startswith(problem)
    assert "4242" not in str(caught.value)


@pytest.mark.usefixtures("opened")
def test_each_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches smaller than the statement and in pages smaller than the books."""
    monkeypatch.setattr(reconciliation, "BATCH", 2)
    monkeypatch.setattr(sql, "PAGE", 2)

    async def scenario() -> None:
        same = [await made() for _ in range(5)] + [await made(Status.DECLINED)]
        other_amount, other_currency, other_outcome, both = [await made() for _ in range(4)]
        pending = await made(Status.PENDING)
        absent = [await made() for _ in range(3)]
        await made(Status.DECLINED)
        await made(Status.PENDING)
        erased = await made()
        await store.erase(erased.id, "retention")
        unknown = Line(uuid4(), 1, "GBP", Status.AUTHORIZED)
        released = pending_payment()
        await store.claim(released, store.IdempotencyKey(digest="k", fingerprint="f"), 60)
        await store.release(released.id, released.id)
        report = await compared(
            iter(
                [
                    *map(line, [*same, erased]),
                    line(other_amount, amount=1),
                    line(other_currency, currency="USD"),
                    line(other_outcome, status=Status.DECLINED),
                    line(both, amount=1, status=Status.DECLINED),
                    line(pending, status=Status.AUTHORIZED),
                    unknown,
                    line(released, status=Status.AUTHORIZED),
                    line(same[0]),
                ]
            )
        )
        assert set(found(report)) == {
            (Finding.AMOUNT_DIFFERS, other_amount.id),
            (Finding.AMOUNT_DIFFERS, other_currency.id),
            (Finding.OUTCOME_DIFFERS, other_outcome.id),
            (Finding.AMOUNT_DIFFERS, both.id),
            (Finding.OUTCOME_DIFFERS, both.id),
            (Finding.OUTCOME_DIFFERS, pending.id),
            (Finding.MISSING_HERE, unknown.payment_id),
            (Finding.MISSING_HERE, released.id),
            (Finding.TWICE_THERE, same[0].id),
            *((Finding.MISSING_THERE, payment.id) for payment in absent),
        }
        assert report.counts[Finding.MATCHED] == 7
        assert report.differing() == len(report.differences) == 12

    run(scenario)


@pytest.mark.usefixtures("opened")
def test_only_payments_of_the_statements_period_and_bank_are_missing_there() -> None:
    """A payment of the statement is compared whenever it was made."""

    async def scenario() -> None:
        now = datetime.now(UTC)
        before, first, last, after = [
            await made(created_at=now + timedelta(minutes=minutes), bank="https://new.test")
            for minutes in (-2, -1, 0, 1)
        ]
        elsewhere = await made(created_at=now, bank="https://other.test")
        moved = await made(created_at=now, bank="https://old.test")
        await store.move_bank("https://old.test", "https://new.test", "someone")
        period = {"since": first.created_at, "until": after.created_at}
        report = await compared(iter([line(before, amount=1)]), **period, bank="https://new.test")
        assert set(found(report)) == {
            (Finding.AMOUNT_DIFFERS, before.id),
            *((Finding.MISSING_THERE, payment.id) for payment in (first, last, moved)),
        }
        missing = {payment_id for _, payment_id in found(await compared(iter([]), **period))}
        assert missing == {payment.id for payment in (first, last, moved, elsewhere)}

    run(scenario)


def test_every_difference_is_counted_and_some_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong file must not fill the memory with its differences."""
    monkeypatch.setattr(reconciliation, "KEPT", 3)
    store.configure("memory:", fingerprint_key=bytes(32))

    async def scenario() -> None:
        report = await compared(Line(uuid4(), 1, "GBP", Status.AUTHORIZED) for _ in range(5))
        assert (report.counts[Finding.MISSING_HERE], len(report.differences)) == (5, 3)

    run(scenario)
