"""The command `migrate`: how an operator creates or upgrades the tables of a database."""

import argparse

import store
from config import MEMORY, Config


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    commands.add_parser("migrate", help="create the tables of the database at STORE_URL, or upgrade them")


def run(config: Config) -> tuple[int, str]:
    """Run a command; return its exit status and what to print. Raises what `store.configure` raises."""
    if config.store_url == MEMORY:
        return 1, f"STORE_URL is {MEMORY}, which has no tables"
    before, now = store.migrate(config.store_url, fingerprint_key=config.fingerprint_key)
    match before:
        case None:
            return 0, f"created the tables, schema version {now}"
        case _ if before < now:
            return 0, f"upgraded the tables from schema version {before} to {now}"
        case _:
            return 0, f"the tables have schema version {before}: nothing to do"
