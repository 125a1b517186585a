"""The command `fingerprint-keys`: which keys payments still need, so that an operator knows when to remove one."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Final

import store
from cli import table
from cli.answer import Answer

# Merchants do not repeat a payment after this time.
RECENT: Final = timedelta(days=90)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    keys = commands.add_parser(
        "fingerprint-keys", help="show how many payments of the last 90 days need each fingerprint key"
    )
    keys.add_argument("--json", action="store_true", help="print JSON")


async def run(options: argparse.Namespace) -> Answer:
    """Run the command."""
    uses = await store.fingerprint_key_uses(datetime.now(UTC) - RECENT)
    current, *old = store.fingerprint_key_ids()
    settings = {current: "FINGERPRINT_KEY", **dict.fromkeys(old, "FINGERPRINT_OLD_KEYS")}
    rows = [
        {"key": key_id, "setting": settings.get(key_id, "-"), "payments_90d": uses.get(key_id, 0)}
        for key_id in {**settings, **uses}
    ]
    return Answer(0, table.render(rows, as_json=options.json))
