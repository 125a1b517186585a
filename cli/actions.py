"""How an operator acts on a payment in the merchant's place: the commands `capture`, `void` and `refund`."""

import argparse
from typing import Any, Final

import store
from cli import arguments
from cli.answer import Answer
from payments import actions, asking, states
from store import Action, ActionStatus, ActionType

COMMANDS: Final = {"capture": ActionType.CAPTURE, "void": ActionType.VOID, "refund": ActionType.REFUND}

_REASONS: Final = {
    states.NotAllowed: "this is not allowed",
    states.ExceedsAvailable: "it does not have this amount",
    states.InProgress: "a request for it has not ended, try again later",
}


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    capture = commands.add_parser("capture", help="capture an authorized payment, or a part of it")
    void = commands.add_parser("void", help="release what is authorized and not captured")
    refund = commands.add_parser("refund", help="give back what was captured, or a part of it")
    capture.add_argument(
        "--not-final", action="store_true", help="leave the rest authorized; without this it is released"
    )
    for command in (capture, void, refund):
        command.add_argument("id", type=arguments.payment_id, metavar="ID")
        command.add_argument("--note", required=True, type=arguments.note, help="why, for the audit trail")
    for command in (capture, refund):
        command.add_argument(
            "--amount", type=arguments.amount, metavar="N", help="in minor units (default: all that is available)"
        )


async def run(options: argparse.Namespace, operator: str) -> Answer:
    """Run a command.

    operator: who runs it, for the audit trail
    """
    kind = COMMANDS[options.command]
    payment = await store.find(options.id)
    if payment is None or payment.erased_at is not None:
        return Answer(1, message=f"there is no payment {options.id}, or it is erased")
    values: dict[str, Any] = {"final": not options.not_final} if kind is ActionType.CAPTURE else {}
    if getattr(options, "amount", None) is not None:
        values["amount"] = options.amount
    try:
        return _answer((await actions.act(payment, kind, values, operator=operator, note=options.note)).action)
    except states.ActionRefused as refused:
        return Answer(1, message=f"nothing was done, {payment.id} is {payment.state()}: {_REASONS[type(refused)]}")
    except asking.NOT_PROCESSED as error:
        return Answer(1, message=f"nothing was done: {error}")


def _answer(action: Action) -> Answer:
    done = f"{action.id} {action.type} {action.amount} {action.currency} {action.status}"
    if action.status is ActionStatus.PENDING:
        return Answer(1, done, "the bank's answer is not known: `run.py pending` lists it until it is")
    return Answer(0 if action.status is ActionStatus.APPROVED else 1, done)
