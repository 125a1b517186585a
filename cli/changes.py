"""How an operator changes what is recorded of payments: the commands `settle`, `erase` and `same-bank`."""

import argparse

import store
from cli import arguments, free_text
from cli.answer import Answer
from payments import conflicts
from store import Status


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    settle = commands.add_parser("settle", help="record how an unresolved payment ended")
    settle.add_argument("id", type=arguments.payment_id, metavar="ID")
    settle.add_argument(
        "outcome",
        type=str.lower,
        choices=["authorized", "declined"],
        metavar="OUTCOME",
        help="what the bank did: authorized or declined",
    )
    settle.add_argument("--note", required=True, type=_note, help="how you know, for the audit trail")
    settle.add_argument(
        "--code", default="", type=_code, help="the bank's authorization code, from the bank or from the log"
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
    status = Status(options.outcome.upper())
    try:
        payment = await store.settle(options.id, status, operator, options.note, code=options.code, if_unresolved=True)
    except store.NotInStatus:
        found = await store.find(options.id)
        if found is None:
            return Answer(1, message=f"there is no payment {options.id}")
        if found.status is Status.PENDING:
            return Answer(1, message=f"a request for {options.id} is still running: try again later")
        if status is not Status.AUTHORIZED or found.status is not Status.DECLINED:
            return Answer(1, message=f"{options.id} is already {found.status}")
        await conflicts.settle(options.id, status, operator, options.note, options.code)
        return Answer(0, f"{options.id} {status}, was {found.status}")
    return Answer(0, f"{payment.id} {payment.status}")


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


def _note(text: str) -> str:
    if not (1 <= len(text) <= 500 and text.isprintable()):
        raise argparse.ArgumentTypeError("not a note; allowed: 1 to 500 printable characters")
    return free_text.checked(text, "note")
