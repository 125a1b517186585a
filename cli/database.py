"""The commands `migrate` and `backup`: how an operator creates, upgrades and copies a database."""

import argparse
from pathlib import Path

import store
from cli.answer import Answer
from config import MEMORY, Config


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    commands.add_parser("migrate", help="create the tables of the database at STORE_URL, or upgrade them")
    copy = commands.add_parser("backup", help="copy the SQLite database at STORE_URL while gateways use it")
    copy.add_argument("file", type=Path, metavar="FILE", help="the file to create")


def run(options: argparse.Namespace, config: Config) -> Answer:
    """Run a command. Raises what `store.configure` raises."""
    if config.store_url == MEMORY:
        return Answer(1, message=f"STORE_URL is {MEMORY}, which is no database")
    if options.command == "backup":
        return _back_up(config, options.file)
    before, now = store.migrate(
        config.store_url, fingerprint_key=config.fingerprint_key, old_fingerprint_keys=config.fingerprint_old_keys
    )
    match before:
        case None:
            return Answer(0, f"created the tables, schema version {now}")
        case _ if before < now:
            return Answer(0, f"upgraded the tables from schema version {before} to {now}")
        case _:
            return Answer(0, f"the tables have schema version {before}: nothing to do")


def _back_up(config: Config, file: Path) -> Answer:
    try:
        commands = store.back_up(config.store_url, file)
    except store.BackupFailed as error:
        return Answer(1, message=str(error))
    if commands is None:
        return Answer(0, f"copied the store to {file}")
    copy, restore = commands
    how = f"To copy:\n  {copy}\nTo restore:\n  {restore}"
    return Answer(1, message=f"nothing is copied: PostgreSQL's own tools do that. {how}")
