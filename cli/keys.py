"""The operator's commands on API keys: create, list and revoke."""

import argparse
import json
import re
from typing import Any

import merchants
import store
from cli import table
from store import ApiKey


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    on_keys = commands.add_parser("keys", help="make, list and revoke merchants' API keys")
    what = on_keys.add_subparsers(dest="keys", metavar="create|list|revoke", required=True)
    making = what.add_parser("create", help="make a key for a merchant and show it, for the only time")
    making.add_argument("merchant", type=_merchant)
    kind = making.add_mutually_exclusive_group()
    kind.add_argument(
        "--live", action="store_const", dest="prefix", const=merchants.LIVE, help=f"begin it {merchants.LIVE}"
    )
    kind.add_argument(
        "--test", action="store_const", dest="prefix", const=merchants.TEST, help=f"begin it {merchants.TEST}"
    )
    listing = what.add_parser("list", help="list keys: whose, since when, last used, revoked")
    revoking = what.add_parser("revoke", help="let nobody in with a key any more")
    revoking.add_argument("id", help="as `keys list` shows it")
    for command in (making, listing):
        command.add_argument("--json", action="store_true", help="as JSON")


async def run(options: argparse.Namespace, *, live: bool) -> tuple[int, str]:
    """Do what the options say; returns the exit status and what to show.

    live: whether payments move money; then keys are live ones, unless the options say otherwise
    """
    match options.keys:
        case "create":
            key, kept = await merchants.create(
                options.merchant, options.prefix or (merchants.LIVE if live else merchants.TEST)
            )
            return 0, _created(key, kept, as_json=options.json)
        case "list":
            return 0, table.rows([_key(key) for key in await merchants.known()], as_json=options.json)
        case _:
            return await _revoke(options.id)


async def _revoke(key_id: str) -> tuple[int, str]:
    if merchants.is_configured(key_id):
        return 1, f"{key_id} stands in API_KEYS: take it out there, and start the gateway again"
    if not await merchants.revoke(key_id):
        return 1, f"there is no good key {key_id}"
    return 0, f"{key_id} revoked; every gateway on this store takes it no more within {merchants.REFRESH_S:g} s"


def _created(key: str, kept: ApiKey, *, as_json: bool) -> str:
    entry = f"{kept.merchant}:{kept.digest}"
    if as_json:
        return json.dumps({"key": key, "id": kept.id, "merchant": kept.merchant, "api_keys_entry": entry}, indent=2)
    lines = [key, f"This is key {kept.id} of {kept.merchant}; it is not shown again."]
    if not store.is_lasting():
        lines.append(f"Nothing keeps it, the store is memory; a gateway takes it with API_KEYS={entry}")
    return "\n".join(lines)


def _key(key: ApiKey) -> dict[str, Any]:
    configured = merchants.is_configured(key.id)
    return {
        "id": key.id,
        "merchant": key.merchant,
        "kept_in": "API_KEYS" if configured else "store",
        "created_at": "-" if configured else key.created_at.isoformat(timespec="seconds"),
        "last_used_at": key.last_used_at.isoformat(timespec="minutes") if key.last_used_at else "-",
        "revoked_at": key.revoked_at.isoformat(timespec="seconds") if key.revoked_at else "-",
    }


def _merchant(text: str) -> str:
    if not re.fullmatch(merchants.MERCHANT_PATTERN, text):
        raise argparse.ArgumentTypeError("a letter and up to 63 letters, digits or any of ._- are wanted")
    return text
