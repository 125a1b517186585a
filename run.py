"""The command line: serve, or do what the operator says.

Start the gateway with `python run.py`; `python run.py --help` lists every setting.
"""

import argparse
import asyncio
import contextlib
import getpass
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing.util import Finalize

# Connexion imports Starlette's test client, which warns at every start about the httpx that it finds.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

import uvicorn
from connexion import AsyncApp

import bank
import cli
import config as configuration
import store
from app import create_app, open_store, today_utc
from bank.simulator import Simulator
from cli import banner, control_socket
from config import Config, ConfigError
from handlers.contract import Contract
from merchants import Merchants
from server import uvicorn_server
from settings import SETTINGS
from telemetry import logs, metrics


def main() -> None:
    """Do what the command line says; serve, when it says nothing."""
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
        except ConfigError as error:
            sys.exit(str(error))
        except store.StoreMismatch as error:
            sys.exit(f"STORE_URL can't be used: {error}")
        except store.StoreUnavailable as error:
            sys.exit(f"the store at STORE_URL can't be reached now: {error}")
    # Served and stopped. A thread that hangs in a call to a database which vanished would keep the process.
    logs.close()
    os._exit(0)


def _operate(config: Config, options: argparse.Namespace) -> int:
    operator = getpass.getuser()
    if config.store_url == configuration.MEMORY:
        status, text = _operate_in_memory(config, options, operator)
    else:
        # The first key may be made before the first gateway starts: it may need one.
        open_store(config, create=options.command == "keys")
        status, text = asyncio.run(
            cli.run(options, operator, Merchants(config.api_keys), live=config.bank_url is not None)
        )
        store.close()
    print(text, file=sys.stderr if status else sys.stdout)
    return status


def _operate_in_memory(config: Config, options: argparse.Namespace, operator: str) -> tuple[int, str]:
    try:
        return control_socket.send(config.port, sys.argv[1:], operator)
    except OSError:
        if options.command == "keys" and options.keys == "create":  # for API_KEYS
            open_store(config)
            return asyncio.run(cli.run(options, operator, Merchants(config.api_keys), live=config.bank_url is not None))
        return 1, f"no gateway with payments in memory runs on PORT {config.port}"


def worker() -> AsyncApp:
    """Make the app in a process that uvicorn started, from what main() handed on."""
    config = configuration.load()
    logs.configure(config.log_level, config.log_format)
    Finalize(None, logs.close, exitpriority=0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return create_app(config, merchants=_merchants(config))


def _end_with_parent() -> None:
    """Stop when main()'s process was killed: nobody would replace this one, and the port would stay taken."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _serve(config: Config, overrides: dict[str, str]) -> None:
    logs.configure(config.log_level, config.log_format)
    uvicorn_server.raise_file_limit()
    merchants = _merchants(config)
    _check_who_may_call(config, merchants)
    listener = uvicorn_server.listen(config.host, config.port)
    with _bank(config) as bank_url, _metrics(config) as (metrics_url, workers_folder):
        contract = Contract(config.supported_currencies, today_utc, merchants.is_open)
        announce = partial(banner.announce, config, contract, merchants, listener, bank_url, metrics_url)
        if config.workers == 1:
            port = listener.getsockname()[1]
            serving = create_app(replace(config, bank_url=bank_url), merchants=merchants)
            try:
                uvicorn_server.serve(config, serving, listener, partial(_listening, config, merchants, port, announce))
            finally:
                control_socket.path_for(port).unlink(missing_ok=True)
        else:
            configuration.hand_on({**overrides, **workers_folder, "BANK_URL": bank_url})
            announce()
            uvicorn_server.serve_workers(config, "run:worker", listener)


def _merchants(config: Config) -> Merchants:
    return Merchants(config.api_keys, may_be_open=uvicorn_server.is_loopback(config.host))


def _check_who_may_call(config: Config, merchants: Merchants) -> None:
    """Open the store for a moment, so that what is wrong is said once, and ask it for keys."""
    open_store(config)
    keys = asyncio.run(merchants.list_keys())
    store.close()
    if not keys and not uvicorn_server.is_loopback(config.host):
        sys.exit(
            f"HOST {config.host} can be reached by others, and there are no API keys: make one with "
            "`run.py keys create MERCHANT`, or set API_KEYS, or let HOST be 127.0.0.1"
        )


@contextlib.contextmanager
def _bank(config: Config) -> Iterator[str]:
    """The bank's URL; without one, that of a simulator which runs as long as the gateway."""
    if config.bank_url is not None:
        bank.check_url(config.bank_url)  # here, because workers that end on an error are started again
        yield config.bank_url
        return
    simulator = Simulator()
    simulator.start()
    try:
        yield simulator.url
    finally:
        simulator.stop()


@contextlib.contextmanager
def _metrics(config: Config) -> Iterator[tuple[str | None, dict[str, str]]]:
    """Serve /metrics, if told so; with several workers, from a folder that they are told of by a setting."""
    if config.metrics_port is None:
        yield None, {}
        return
    with tempfile.TemporaryDirectory(prefix="payment-gateway-metrics-") as folder:
        shared = folder if config.workers > 1 else None
        try:
            port = metrics.serve(config.host, config.metrics_port, shared)
        except OSError as error:
            reason = uvicorn_server.reason(error)
            sys.exit(f"can't listen on HOST {config.host}, METRICS_PORT {config.metrics_port}: {reason}")
        yield banner.url(config.host, port, "/metrics"), {metrics.FOLDER_VARIABLE: folder} if shared else {}


async def _listening(
    config: Config, merchants: Merchants, port: int, announce: Callable[[], None], serving: uvicorn.Server
) -> None:
    """Take the operator's commands on payments in memory, and say that all is ready."""
    if config.store_url == configuration.MEMORY:
        with contextlib.suppress(OSError):  # without them the gateway still does what it is for
            live = config.bank_url is not None
            serving.servers.append(await control_socket.listen(port, cli.parser(SETTINGS), merchants, live=live))
    announce()


if __name__ == "__main__":
    main()
