"""The states of a payment: the table says exactly which actions are allowed, and what they lead to."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import pytest

from payments import states
from payments.states import LEADS_TO, ExceedsAvailable, InProgress, NotAllowed, plan
from store import ActionType, Payment, State, Status
from tests.support import pending_payment

AMOUNT = 4


def payments() -> Iterator[Payment]:
    """Yield a payment of each status and with all amounts that it can have, none of them held."""
    for status in Status:
        yield replace(pending_payment(amount=AMOUNT), status=status)
    authorized = replace(pending_payment(amount=AMOUNT), status=Status.AUTHORIZED)
    for captured, voided, refunded in itertools.product(range(AMOUNT + 1), repeat=3):
        # A void comes once and takes all that is left.
        if refunded <= captured and voided in {0, AMOUNT - captured}:
            yield replace(authorized, captured=captured, voided=voided, refunded=refunded)


def after(payment: Payment, kind: ActionType, amounts: states.Amounts) -> Payment:
    """Return the payment after an approved action."""
    match kind:
        case ActionType.CAPTURE:
            captured, voided = payment.captured + amounts.amount, payment.voided + amounts.releases
            return replace(payment, captured=captured, voided=voided)
        case ActionType.VOID:
            return replace(payment, voided=payment.voided + amounts.amount)
        case ActionType.REFUND:
            return replace(payment, refunded=payment.refunded + amounts.amount)


def test_the_table_is_what_happens() -> None:
    """Each state that the table names is reached from each payment in that state or another, and no other is."""
    led: dict[State, dict[ActionType, set[State]]] = {state: defaultdict(set) for state in State}
    for payment, kind in itertools.product(payments(), ActionType):
        for amount, final in itertools.product([None, *range(1, AMOUNT + 1)], [True, False]):
            if kind is ActionType.VOID and amount is not None:  # it takes all that is left
                continue
            try:
                amounts = plan(payment, kind, amount, final=final and kind is ActionType.CAPTURE)
            except states.ActionRefused:
                continue
            led[payment.state()][kind].add(after(payment, kind, amounts).state())
    assert led == LEADS_TO


@pytest.mark.parametrize(
    ("changes", "kind", "amount", "error"),
    [
        ({"status": Status.PENDING}, ActionType.CAPTURE, None, InProgress),
        ({"status": Status.PENDING}, ActionType.REFUND, 1, InProgress),
        ({"status": Status.DECLINED}, ActionType.CAPTURE, None, NotAllowed),
        ({}, ActionType.REFUND, None, NotAllowed),
        ({}, ActionType.CAPTURE, 5, ExceedsAvailable),
        ({"captured": 4}, ActionType.CAPTURE, 1, NotAllowed),
        ({"captured": 4}, ActionType.VOID, None, NotAllowed),
        ({"captured": 4}, ActionType.REFUND, 5, ExceedsAvailable),
        ({"captured": 4, "refunded": 4}, ActionType.REFUND, None, NotAllowed),
        ({"voided": 4}, ActionType.CAPTURE, None, NotAllowed),
        # PENDING actions hold an amount: what needs it may be sent again, what exceeds all that is left may not.
        ({"held": 3}, ActionType.CAPTURE, 2, InProgress),
        ({"held": 3}, ActionType.CAPTURE, 5, ExceedsAvailable),
        ({"held": 1}, ActionType.VOID, None, InProgress),
        ({"held": 1}, ActionType.CAPTURE, None, InProgress),
        ({"held": 3}, ActionType.REFUND, 3, InProgress),
        ({"held": 3}, ActionType.REFUND, 4, NotAllowed),
        ({"captured": 4, "refund_held": 3}, ActionType.REFUND, 2, InProgress),
        ({"captured": 2, "held": 1}, ActionType.REFUND, 3, InProgress),
        ({"captured": 2, "held": 1}, ActionType.REFUND, 4, ExceedsAvailable),
    ],
)
def test_what_is_refused_and_why(
    changes: dict[str, object], kind: ActionType, amount: int | None, error: type[states.ActionRefused]
) -> None:
    payment = replace(pending_payment(amount=AMOUNT), **{"status": Status.AUTHORIZED, **changes})  # type: ignore[arg-type]
    with pytest.raises(error):
        plan(payment, kind, amount)


def test_a_final_capture_takes_all_that_is_left() -> None:
    """What it does not capture it releases, so no other action may hold a part of it."""
    payment = replace(pending_payment(amount=AMOUNT), status=Status.AUTHORIZED)
    assert plan(payment, ActionType.CAPTURE, 1, final=True) == states.Amounts(1, 3)
    assert plan(payment, ActionType.CAPTURE, 1) == states.Amounts(1)
    assert plan(payment, ActionType.VOID) == states.Amounts(4)
    assert plan(replace(payment, captured=1), ActionType.CAPTURE, final=True) == states.Amounts(3)
    with pytest.raises(InProgress):
        plan(replace(payment, held=1), ActionType.CAPTURE, 1, final=True)
