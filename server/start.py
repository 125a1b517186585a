"""How a gateway starts: what is checked, which parts run beside the app, and what is announced."""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing.util import Finalize
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import uvicorn
from connexion import AsyncApp

import bank
import cli
import config as configuration
import store
from bank.simulator import Simulator
from cli import banner, control_socket, failure, trial
from config import MEMORY, SETTINGS, SIMULATOR, VERSION, Config, ConfigError
from handlers.contract import Contract
from handlers.supported import UnsupportedContract
from merchants import Merchants
from server import uvicorn_server
from telemetry import logs, metrics

log = logging.getLogger("gateway.start")

_STOPS_A_START: Final = (ConfigError, UnsupportedContract, store.StoreMismatch, store.StoreUnavailable)


class Gateway(NamedTuple):
    """A gateway that is ready to serve, and the parts of it that a start uses."""

    app: AsyncApp
    contract: Contract
    merchants: Merchants


CreateApp = Callable[..., Gateway]


def serve(config: Config, overrides: dict[str, str], create_app: CreateApp) -> None:
    """Serve until a signal ends the process, or exit with the reason why it can't start.

    overrides: the settings of the command line, for workers
    """
    try:
        _serve(config, overrides, create_app)
    except _STOPS_A_START as error:
        sys.exit(failure.reason(error))


def worker(create_app: CreateApp) -> AsyncApp:
    """Make the app in a process that uvicorn started, from the environment that `serve` handed on."""
    uvicorn_server.forbid_core_dumps()
    config = configuration.load()
    logs.configure(config.log_level, config.log_format)
    Finalize(None, logs.close, exitpriority=0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        return create_app(config, may_be_open=trial.is_loopback(config.host)).app
    except _STOPS_A_START as error:  # the first start had none of these; a worker that replaces another may
        log.error("worker %d can't start: %s", os.getpid(), failure.reason(error))
        sys.exit(1)


def _serve(config: Config, overrides: dict[str, str], create_app: CreateApp) -> None:
    _check_bank(config)
    _check_plaintext(config)
    uvicorn_server.forbid_core_dumps()
    logs.configure(config.log_level, config.log_format)
    uvicorn_server.raise_file_limit()
    uvicorn_server.connection_limit(config)  # raises ConfigError before anything is opened
    listener = uvicorn_server.listen(config.host, config.port)
    with _bank(config) as (bank_url, shown_url), _metrics(config) as (metrics_url, workers_folder):
        gateway = create_app(replace(config, bank_url=bank_url), may_be_open=trial.is_loopback(config.host))
        _check_callers(config, gateway.merchants)
        log.info("payment gateway %s starts", VERSION)
        for line in configuration.misspelled():
            log.warning("%s", line)
        if config.bank_url == SIMULATOR:  # in a trial, the banner is enough
            log.warning("the bank is the built-in simulator, and no money moves: BANK_URL is %s", SIMULATOR)
        api = banner.Api(gateway.contract.base_path, gateway.contract.example())
        announce = partial(banner.announce, config, api, gateway.merchants, listener, shown_url, metrics_url)
        if config.workers == 1:
            port = listener.getsockname()[1]
            listening = partial(_listening, config, port, gateway.merchants, announce)
            try:
                uvicorn_server.serve(config, gateway.app, listener, listening)
            finally:
                control_socket.path_for(port).unlink(missing_ok=True)
        else:
            # Bank and store were opened here so that an error is reported once. Each worker opens its own.
            bank.close()
            store.close()
            configuration.hand_on({**overrides, **workers_folder, "BANK_URL": bank_url})
            announce()
            uvicorn_server.serve_workers(config, "run:worker", listener)


def _check_bank(config: Config) -> None:
    """Raise `ConfigError` if the simulator would be the bank by an oversight, or was not started by this gateway."""
    reason = trial.beyond_trial(config)
    if config.bank_url is None and reason:
        raise ConfigError(
            f"BANK_URL is not set, and {reason}: set BANK_URL to the bank's URL, or to {SIMULATOR} for the built-in "
            "simulator, with which no money moves"
        )
    if config.bank_url != SIMULATOR and (config.bank_url or "").startswith(SIMULATOR):
        raise configuration.wrong("BANK_URL", f"has more than {SIMULATOR}")


def _check_plaintext(config: Config) -> None:
    """Raise `ConfigError` if cards would cross a network without TLS, and ALLOW_PLAINTEXT does not choose that."""
    if config.allow_plaintext:
        return
    errors = []
    if config.tls_cert is None and not trial.is_loopback(config.host):
        errors.append(
            f"HOST {config.host} can be reached from other machines, and there is no TLS: set TLS_CERT and TLS_KEY, or "
            "ALLOW_PLAINTEXT=1 if a proxy in front of the gateway or a private network protects the cards"
        )
    bank_url = urlsplit(config.bank_url or "")
    if bank_url.scheme == "http" and not trial.is_loopback(bank_url.hostname or "", unresolved=False):
        errors.append(
            "BANK_URL is http, and the bank is not on this machine: set it to the bank's https URL, or "
            "ALLOW_PLAINTEXT=1 if a private network protects the cards"
        )
    if errors:
        raise ConfigError("\n".join(errors))


def _check_callers(config: Config, merchants: Merchants) -> None:
    """Read the keys; exit if there are none and the gateway listens on more than loopback."""
    if not asyncio.run(merchants.list_keys()) and not trial.is_loopback(config.host):
        sys.exit(
            f"HOST {config.host} can be reached from other machines, and there are no API keys: make one with "
            "`run.py keys create MERCHANT`, or set API_KEYS, or set HOST to 127.0.0.1"
        )


@contextlib.contextmanager
def _bank(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the bank's URL, for `bank.configure` and to show; if it is the built-in simulator, run one meanwhile."""
    if config.bank_url is not None and not config.simulates_bank():
        yield config.bank_url, config.bank_url
        return
    simulator = Simulator()
    simulator.start()
    try:
        yield simulator.bank_url, simulator.url
    finally:
        simulator.stop()


@contextlib.contextmanager
def _metrics(config: Config) -> Iterator[tuple[str | None, dict[str, str]]]:
    """Serve /metrics if METRICS_PORT is set; yield its URL, and the variable that gives workers their folder."""
    if config.metrics_port is None:
        yield None, {}
        return
    with tempfile.TemporaryDirectory(prefix="payment-gateway-metrics-") as folder:
        shared = folder if config.workers > 1 else None
        try:
            port = metrics.serve(config.metrics_host, config.metrics_port, shared).server_port
        except OSError as error:
            reason = uvicorn_server.reason(error)
            sys.exit(
                f"can't listen on METRICS_HOST {config.metrics_host}, METRICS_PORT {config.metrics_port}: {reason}"
            )
        yield banner.url(config.metrics_host, port, "/metrics"), {metrics.FOLDER_VARIABLE: folder} if shared else {}


async def _listening(
    config: Config, port: int, merchants: Merchants, announce: "partial[None]", serving: uvicorn.Server
) -> None:
    """Accept the operator's commands on payments in memory, and report that the gateway is ready."""
    if config.store_url == MEMORY:
        with contextlib.suppress(OSError):  # the gateway works without the commands
            live = not config.simulates_bank()
            commands = await control_socket.listen(port, cli.parser(SETTINGS), merchants, live=live)
            serving.servers.append(commands)
    announce()


def _end_with_parent() -> None:
    """Stop when the process that started this worker is killed.

    Otherwise the worker would keep the port, and nothing would replace it.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
