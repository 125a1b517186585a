"""The `keys` commands: how an operator creates, lists and revokes API keys, and sees who did."""

import argparse
import json
import re
from typing import Any

import store
from cli import free_text, table
from cli.answer import Answer
from config import MERCHANT_NAME
from merchants import LIVE_PREFIX, REFRESH_S, TEST_PREFIX, Merchants
from store import ApiKey, KeyChange


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    keys = commands.add_parser("keys", help="create, list and revoke merchants' API keys")
    actions = keys.add_subparsers(dest="keys", metavar="create|list|revoke|history", required=True)
    create = actions.add_parser("create", help="create a key for a merchant and show it, once")
    create.add_argument("merchant", type=_merchant)
    prefix = create.add_mutually_exclusive_group()
    for option, value in (("--live", LIVE_PREFIX), ("--test", TEST_PREFIX)):
        prefix.add_argument(
            option, action="store_const", dest="prefix", const=value, help=f"create a key that starts with {value}"
        )
    show = actions.add_parser("list", help="list keys with their merchant, creation, last use and revocation")
    revoke = actions.add_parser("revoke", help="revoke a key")
    revoke.add_argument("id", help="the key ID that `keys list` shows")
    history = actions.add_parser("history", help="show who created and revoked keys, and when")
    for command in (create, show, history):
        command.add_argument("--json", action="store_true", help="print JSON")


async def run(options: argparse.Namespace, operator: str, merchants: Merchants, *, live: bool | None) -> Answer:
    """Run a command.

    operator: who runs it, for the audit trail
    live: whether payments move money; then a new key is a live one, unless the options say otherwise. None if that is
        not known; then the options have to say it
    """
    match options.keys:
        case "create":
            if live is None and options.prefix is None:
                return Answer(
                    1,
                    message="BANK_URL is not set, so the kind of the key is unknown: set BANK_URL, or say --live or "
                    "--test",
                )
            prefix = options.prefix or (LIVE_PREFIX if live else TEST_PREFIX)
            key, record = await merchants.create_key(options.merchant, prefix, operator)
            return Answer(0, _created(key, record, simulator=live is False, as_json=options.json))
        case "list":
            rows = [_row(key, configured=merchants.is_configured(key.id)) for key in await merchants.list_keys()]
            return Answer(0, table.render(rows, as_json=options.json))
        case "history":
            return Answer(
                0, table.render([_change(change) for change in await store.key_history()], as_json=options.json)
            )
        case _:
            return await _revoke(options.id, operator, merchants)


async def _revoke(key_id: str, operator: str, merchants: Merchants) -> Answer:
    if merchants.is_configured(key_id):
        return Answer(1, message=f"{key_id} is in API_KEYS: remove it there and restart the gateway")
    if not await merchants.revoke_key(key_id, operator):
        return Answer(1, message=f"no valid key has the ID {key_id}")
    return Answer(0, f"{key_id} is revoked; every gateway on this store rejects it within {REFRESH_S:g} s")


def _created(key: str, record: ApiKey, *, simulator: bool, as_json: bool) -> str:
    entry = f"{record.merchant}:{record.digest}"
    if as_json:
        shown = {"key": key, "id": record.id, "merchant": record.merchant, "api_keys_entry": entry}
        return json.dumps({**shown, "simulator": simulator}, indent=2)
    lines = [key, f"This is key {record.id} of {record.merchant}. It is not shown again."]
    if simulator:
        lines.append("The bank is the built-in simulator: no money moves.")
    if not store.is_lasting():
        lines.append(f"The store is memory and does not keep the key. To use it, set API_KEYS={entry}")
    return "\n".join(lines)


def _row(key: ApiKey, *, configured: bool) -> dict[str, Any]:
    return {
        "id": key.id,
        "merchant": key.merchant,
        "kept_in": "API_KEYS" if configured else "store",
        "created_at": "-" if configured else key.created_at.isoformat(timespec="seconds"),
        "last_used_at": key.last_used_at.isoformat(timespec="minutes") if key.last_used_at else "-",
        "revoked_at": key.revoked_at.isoformat(timespec="seconds") if key.revoked_at else "-",
    }


def _change(change: KeyChange) -> dict[str, Any]:
    return {
        "changed_at": change.changed_at.isoformat(timespec="seconds"),
        "changed_by": change.changed_by,
        "change": change.change,
        "id": change.key_id,
        "merchant": change.merchant,
    }


def _merchant(text: str) -> str:
    if not re.fullmatch(MERCHANT_NAME, text):
        raise argparse.ArgumentTypeError(
            "not a merchant name; allowed: 1 to 64 letters, digits and any of ._- starting with a letter"
        )
    return free_text.checked(text, "merchant name")
