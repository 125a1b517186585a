"""The command line: without a command it starts the gateway, with one it runs an operator's command.

Start the gateway with `python run.py`; `python run.py --help` lists the commands and every setting.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import cli
import config as configuration
import store
from cli import actions, control_socket, database, failure, operators, table, trial
from cli.answer import Answer
from config import MEMORY, SETTINGS, Config, ConfigError
from merchants import Merchants
from telemetry import logs

if TYPE_CHECKING:
    from connexion import AsyncApp


def main() -> None:
    """Parse the command line, and serve or run a command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        options = cli.parser(SETTINGS).parse_args()
        overrides = {name: value for name, value in vars(options).items() if name in SETTINGS and value is not None}
        try:
            config = configuration.load(overrides)
            if options.command is None:
                _serve(config, overrides)
            else:
                sys.exit(_operate(config, options))
        except (ConfigError, store.StoreMismatch, store.StoreUnavailable) as error:
            sys.exit(failure.reason(error))
    # A thread that hangs in a call to a lost database must not keep the process alive.
    logs.close()
    os._exit(0)


# Connexion, uvicorn and Flask are imported where they are needed: a command starts in half the time without them.
def _serve(config: Config, overrides: dict[str, str]) -> None:
    import app  # noqa: PLC0415
    from server import start  # noqa: PLC0415

    start.serve(config, overrides, app.create_app)


def worker() -> "AsyncApp":
    """Make the app in a process that uvicorn started."""
    import app  # noqa: PLC0415
    from server import start  # noqa: PLC0415

    return start.worker(app.create_app)


def _operate(config: Config, options: argparse.Namespace) -> int:
    if options.command in {"migrate", "backup"}:
        answer = database.run(options, config)
    elif config.store_url == MEMORY:
        answer = _operate_in_memory(config, options)
    else:
        answer = _run_command(config, options)
    if answer.output:
        coloured = sys.stdout.isatty() and configuration.allows_colour() and not getattr(options, "json", False)
        print(table.coloured(answer.output) if coloured else answer.output)
    if answer.message:
        print(answer.message, file=sys.stderr)
    return answer.status


def _operate_in_memory(config: Config, options: argparse.Namespace) -> Answer:
    """Let the gateway that runs on PORT run the command, because no other process can read its memory."""
    try:
        return control_socket.send(config.port, sys.argv[1:])
    except OSError:
        if options.command == "keys" and options.keys == "create":  # the operator puts the key into API_KEYS
            return _run_command(config, options)
        return Answer(1, message=f"no gateway with payments in memory runs on PORT {config.port}")


def _run_command(config: Config, options: argparse.Namespace) -> Answer:
    logs.configure_for_command()
    if options.command in actions.COMMANDS:
        if config.bank_url is None:
            return Answer(1, message="BANK_URL is not set: no command can reach a simulator inside a gateway")
        import app  # noqa: PLC0415

        app.configure_bank(config, lambda slots: slots)
    store.configure(
        config.store_url,
        fingerprint_key=config.fingerprint_key,
        old_fingerprint_keys=config.fingerprint_old_keys,
        migrate=False,
        durable=config.store_durability == "full",
    )
    try:
        operator = operators.this_process()
        return asyncio.run(cli.run(options, operator, Merchants(config.api_keys), live=trial.is_live(config)))
    finally:
        store.close()


if __name__ == "__main__":
    main()
