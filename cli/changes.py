"""How an operator changes what is recorded of payments: the commands `settle`, `erase` and `same-bank`."""

import argparse

import store
from cli import arguments, free_text
from cli.answer import Answer
from payments import conflicts, responses
from store import Action, ActionStatus, Payment, Status


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    settle = commands.add_parser("settle", help="record how an unresolved payment or action ended")
    settle.add_argument("id", type=arguments.pending_id, metavar="ID")
    settle.add_argument(
        "outcome",
        type=str.lower,
        choices=["authorized", "approved", "declined"],
        metavar="OUTCOME",
        help="what the bank did: authorized (a payment), approved (a capture, void or refund) or declined",
    )
    settle.add_argument("--note", required=True, type=arguments.note, help="how you know, for the audit trail")
    settle.add_argument(
        "--code", default="", type=_code, help="of a payment, the bank's authorization code, from the bank or the log"
    )
    erase = commands.add_parser(
        "erase", help="erase what is kept of a payment's card, and operators' notes; it can't be undone"
    )
    erase.add_argument("id", type=arguments.payment_id, metavar="ID")
    same_bank = commands.add_parser(
        "same-bank", help="record that a bank has moved, so that its payments are asked about"
    )
    same_bank.add_argument("old", type=_bank, metavar="OLD", help="the bank as `pending` shows it")
    same_bank.add_argument("new", type=_bank, metavar="NEW", help="the same bank as the log names it now")


async def run(options: argparse.Namespace, operator: str) -> Answer:
    """Run a command.

    operator: who runs it, for the audit trail
    """
    commands = {"settle": _settle, "erase": _erase, "same-bank": _same_bank}
    return await commands[options.command](options, operator)


async def _settle(options: argparse.Namespace, operator: str) -> Answer:
    action = await store.find_action(options.id)
    if action is not None:
        return await _settle_action(action, options, operator)
    payment = await store.find(options.id)
    if payment is None:
        return Answer(1, message=f"there is no payment, capture, void or refund {options.id}")
    if options.outcome == "approved":
        return Answer(1, message=f"{payment.id} is a payment: it is authorized or declined")
    return await _settle_payment(payment, options, operator)


async def _settle_payment(payment: Payment, options: argparse.Namespace, operator: str) -> Answer:
    status = Status(options.outcome.upper())
    try:
        await store.settle(payment, status, operator, options.note, code=options.code, if_unresolved=True)
    except store.NotInStatus:
        found = await store.find(payment.id) or payment
        if found.status is Status.PENDING:
            return Answer(1, message=f"a request for {options.id} is still running: try again later")
        if status is not Status.AUTHORIZED or found.status is not Status.DECLINED:
            return Answer(1, message=f"{options.id} is already {found.status}")
        await conflicts.settle(options.id, status, operator, options.note, options.code)
        return Answer(0, f"{options.id} {status}, was {found.status}")
    return Answer(0, f"{payment.id} {status}")


async def _settle_action(action: Action, options: argparse.Namespace, operator: str) -> Answer:
    if options.outcome == "authorized" or options.code:
        return Answer(1, message=f"{action.id} is a {action.type.lower()}: it is approved or declined, without a code")
    status, note = ActionStatus(options.outcome.upper()), options.note
    code = responses.OF_STATUS[status]
    try:
        await store.settle_action(action, status, operator, note, response_code=code, if_unresolved=True)
    except store.NotInStatus:
        found = await store.find_action(action.id) or action
        if found.status is ActionStatus.PENDING:
            return Answer(1, message=f"a request for {action.id} is still running: try again later")
        if status is not ActionStatus.APPROVED or found.status is not ActionStatus.DECLINED:
            return Answer(1, message=f"{action.id} is already {found.status}")
        corrected = await conflicts.settle_action(found, status, operator, note, code)
        if corrected is None or corrected.status is not status:
            return Answer(1, message=f"{action.payment_id} does not have the amount of {action.id} any more")
        return Answer(0, f"{action.id} {status}, was {found.status}")
    return Answer(0, f"{action.id} {status}")


async def _erase(options: argparse.Namespace, operator: str) -> Answer:
    try:
        await store.erase(options.id, operator)
    except store.NotInStatus:
        found = await store.find(options.id)
        if found is not None and found.status is Status.PENDING:
            reason = "record first how it ended, see `run.py pending` and `run.py settle`"
            return Answer(1, message=f"{options.id} is PENDING: {reason}")
        return Answer(1, message=f"there is no payment {options.id} that is not erased already")
    return Answer(0, f"{options.id} is erased")


async def _same_bank(options: argparse.Namespace, operator: str) -> Answer:
    if options.new in {options.old, store.UNKNOWN_BANK}:
        return Answer(1, message=f"a bank can't move from {options.old} to {options.new}")
    count = await store.move_bank(options.old, options.new, operator)
    return Answer(0, f"{options.old} is {options.new} now; PENDING payments of {options.old}: {count}")


def _code(text: str) -> str:
    if not (len(text) <= 64 and text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError("not a code; allowed: up to 64 printable ASCII characters")
    return free_text.checked(text, "code")


def _bank(text: str) -> str:
    if not (1 <= len(text) <= 2000 and text.isprintable()):
        raise argparse.ArgumentTypeError("not a bank; allowed: the identity of a bank, as `pending` shows it")
    return free_text.checked(text, "bank")
