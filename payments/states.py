"""The states of a payment: which actions each state allows, and what they lead to.

docs/merchants.md draws `LEADS_TO` as a diagram.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from store import ActionType, Payment, State, Status

_AFTER_LAST_CAPTURE: Final = frozenset({State.CAPTURED, State.PARTIALLY_REFUNDED, State.REFUNDED})

# Where a payment can be after an approved action. An action that is not listed is not allowed.
LEADS_TO: Final[Mapping[State, Mapping[ActionType, frozenset[State]]]] = {
    State.PENDING: {},
    State.DECLINED: {},
    State.AUTHORIZED: {
        ActionType.CAPTURE: frozenset({State.PARTIALLY_CAPTURED, State.CAPTURED}),
        ActionType.VOID: frozenset({State.VOIDED}),
    },
    # Something is still authorized. A refund changes the amounts, and the state only after the last capture or a void.
    State.PARTIALLY_CAPTURED: {
        ActionType.CAPTURE: frozenset({State.PARTIALLY_CAPTURED}) | _AFTER_LAST_CAPTURE - {State.REFUNDED},
        ActionType.VOID: _AFTER_LAST_CAPTURE,
        ActionType.REFUND: frozenset({State.PARTIALLY_CAPTURED}),
    },
    State.CAPTURED: {ActionType.REFUND: frozenset({State.PARTIALLY_REFUNDED, State.REFUNDED})},
    State.PARTIALLY_REFUNDED: {ActionType.REFUND: frozenset({State.PARTIALLY_REFUNDED, State.REFUNDED})},
    State.REFUNDED: {},
    State.VOIDED: {},
}


class ActionRefused(Exception):
    """The payment does not allow the action; nothing was recorded and the bank was not asked."""


class NotAllowed(ActionRefused):
    """The payment's state does not allow the action."""


class ExceedsAvailable(ActionRefused):
    """The amount is more than is available."""


class InProgress(ActionRefused):
    """Another action, or the authorization, has not ended and may hold what this action needs."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """What an action takes, in minor units.

    amount: what is captured, released or given back
    releases: what a final capture releases besides
    """

    amount: int
    releases: int = 0


def plan(payment: Payment, action: ActionType, amount: int | None = None, *, final: bool = False) -> Amounts:
    """Return what an action takes of a payment. Raises `ActionRefused`.

    amount: None for all that is left
    final: a capture releases what it does not take, so no other action may hold a part of that
    """
    if action is ActionType.REFUND:
        most, held, may_come = payment.captured - payment.refunded, payment.refund_held, payment.held
    else:
        most, held, may_come = payment.left(), payment.held, 0
    wanted = most if amount is None else amount
    if action not in LEADS_TO[payment.state()] or wanted > most or not wanted:
        if payment.status is Status.PENDING or (may_come and wanted <= most + may_come):
            raise InProgress
        raise NotAllowed if not most or action not in LEADS_TO[payment.state()] else ExceedsAvailable
    takes = most if final or action is ActionType.VOID else wanted
    if takes > most - held:
        raise InProgress
    return Amounts(wanted, takes - wanted)
