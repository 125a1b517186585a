"""The operator's commands, and the modules that run them.

run.py payments [--status S] [--since T] [--merchant M] [--limit N] [--json]
run.py pending [--merchant M] [--json]
run.py show ID [--json]
run.py history ID [--json]
run.py capture ID --note WHY [--amount N] [--not-final]
run.py void ID --note WHY
run.py refund ID --note WHY [--amount N]
run.py settle ID authorized|approved|declined --note WHY [--code CODE]
run.py erase ID
run.py same-bank OLD NEW
run.py reconcile FILE.csv [--since T] [--until T] [--bank B] [--json]
run.py keys create MERCHANT [--live | --test] [--json]
run.py keys list [--json]
run.py keys revoke ID
run.py keys history [--json]
run.py fingerprint-keys [--json]
run.py migrate
run.py backup FILE
"""

import argparse
import textwrap
from collections.abc import Mapping
from typing import Protocol

from cli import actions, changes, database, fingerprint_keys, keys, payments, reconcile
from cli.answer import Answer
from cli.arguments import Parser
from config import VERSION
from merchants import Merchants


class Setting(Protocol):
    """What --help shows of a setting (config.py)."""

    @property
    def why(self) -> str: ...
    @property
    def allowed(self) -> str: ...
    @property
    def default(self) -> str: ...


def parser(settings: Mapping[str, Setting]) -> argparse.ArgumentParser:
    """Build the command line; its help lists every setting."""
    lines = []
    for name, setting in settings.items():
        text = f"{setting.why} ({setting.allowed}; default: {setting.default or 'unset'})"
        lines += textwrap.wrap(text, 100, initial_indent=f"  {name:<24}", subsequent_indent=" " * 26)
    top: argparse.ArgumentParser = Parser(
        prog="run.py",
        description="The payment gateway. Without a command it serves until Ctrl-C or SIGTERM.",
        epilog="settings, read from the environment, then .env, then the defaults:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"payment-gateway {VERSION}", help="print the version")
    top.add_argument("--host", dest="HOST", help="overrides HOST")
    top.add_argument("--port", dest="PORT", help="overrides PORT")
    top.add_argument("--bank-url", dest="BANK_URL", metavar="URL", help="overrides BANK_URL")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    payments.add_to(commands)
    actions.add_to(commands)
    changes.add_to(commands)
    reconcile.add_to(commands)
    keys.add_to(commands)
    fingerprint_keys.add_to(commands)
    database.add_to(commands)
    return top


async def run(options: argparse.Namespace, operator: str, merchants: Merchants, *, live: bool | None) -> Answer:
    """Run a command.

    operator: who runs it, for the audit trail (cli/operators.py)
    live: whether payments move money; None if that is not known
    """
    if options.command == "keys":
        return await keys.run(options, operator, merchants, live=live)
    if options.command == "fingerprint-keys":
        return await fingerprint_keys.run(options)
    if options.command == "reconcile":
        return await reconcile.run(options)
    if options.command in actions.COMMANDS:
        return await actions.run(options, operator)
    if options.command in {"settle", "erase", "same-bank"}:
        return await changes.run(options, operator)
    return await payments.run(options)
