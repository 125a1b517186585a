"""The command line, and the composition root: `create_app(config)` wires everything together.

Start the gateway with `python run.py`; `python run.py --help` lists every setting.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import math
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Final

import uvicorn
from connexion import AsyncApp
from connexion.datastructures import MediaTypeDict
from connexion.exceptions import ProblemException
from connexion.middleware import MiddlewarePosition
from connexion.options import SwaggerUIOptions
from connexion.resolver import RelativeResolver
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

import bank
import config as configuration
import store
from bank.simulator import Simulator
from config import SETTINGS, Config, ConfigError
from handlers import problems
from handlers.access_log import AccessLog
from handlers.contract import Contract
from handlers.gate import Gate
from handlers.protocol import Protocol
from handlers.validation import BodyValidator, ParameterValidator

# What a payment in flight may still need when the gateway is told to stop, beyond the bank's own
# deadline: to be settled and answered.
SETTLE_S: Final = 3


def today_utc() -> date:
    """Return the current date in UTC, by which cards expire."""
    return datetime.now(UTC).date()


def create_app(config: Config, *, today: Callable[[], date] = today_utc, validate_responses: bool = False) -> AsyncApp:
    """Wire the gateway together. `config.bank_url` must be set: main() starts the simulator.

    `validate_responses` is for tests: in production a response that broke the contract would turn
    a payment that was made into a 500.
    """
    assert config.bank_url is not None
    contract = Contract(config.supported_currencies, today)
    bank.configure(
        config.bank_url,
        connect_timeout_s=config.bank_connect_timeout_s,
        timeout_s=config.bank_timeout_s,
        retries=config.bank_retries,
        concurrency=config.bank_concurrency,
    )
    app = AsyncApp(
        "run",
        lifespan=_lifespan,
        resolver=RelativeResolver("handlers.payments"),
        swagger_ui_options=SwaggerUIOptions(serve_spec=False, swagger_ui_config={"displayRequestDuration": True}),
        validate_responses=validate_responses,
        validator_map={
            "body": MediaTypeDict({"*/*json": partial(BodyValidator, contract=contract)}),
            "parameter": partial(ParameterValidator, contract=contract),
        },
    )
    app.add_api(contract.document)
    app.add_middleware(AccessLog, position=MiddlewarePosition.BEFORE_EXCEPTION, contract=contract)
    app.add_middleware(Gate, position=MiddlewarePosition.BEFORE_SWAGGER, contract=contract)
    for error in (ProblemException, HTTPException, Exception):
        app.add_error_handler(error, problems.render)
    _serve_contract(app, contract)
    return app


def _serve_contract(app: AsyncApp, contract: Contract) -> None:
    base = contract.base_path

    async def as_json(_request: Request) -> Response:
        return Response(contract.served_json(), media_type="application/json")

    async def as_yaml(_request: Request) -> Response:
        return Response(contract.served_yaml(), media_type="application/yaml")

    async def ui(_request: Request) -> Response:
        return RedirectResponse(f"{base}/ui/")

    app.add_url_rule(f"{base}/openapi.json", "openapi_json", as_json)
    app.add_url_rule(f"{base}/openapi.yaml", "openapi_yaml", as_yaml)
    app.add_url_rule("/", "ui", ui)


@contextlib.asynccontextmanager
async def _lifespan(_app: object) -> AsyncIterator[None]:
    yield
    await asyncio.to_thread(bank.close)
    store.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready."""

    def __init__(self, options: uvicorn.Config, ready: str) -> None:
        super().__init__(options)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._ready, flush=True)


def main() -> None:
    """Start the gateway, and the simulator when there is no bank; serve until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        config = _config_or_exit()
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        logging.getLogger("gateway").setLevel(config.log_level)
        _serve(config)


def _config_or_exit() -> Config:
    options = vars(_parser().parse_args())
    overrides = {name: value for name, value in options.items() if value is not None}
    try:
        return configuration.load(overrides)
    except ConfigError as error:
        sys.exit(f"{error}")


def _parser() -> argparse.ArgumentParser:
    lines = []
    for name, setting in SETTINGS.items():
        text = f"{setting.why} ({setting.allowed}; default: {setting.default or 'unset'})"
        lines += textwrap.wrap(text, 100, initial_indent=f"  {name:<24}", subsequent_indent=" " * 26)
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="The payment gateway.",
        epilog="settings, from the environment over .env over the default:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", dest="HOST", help="overrides HOST")
    parser.add_argument("--port", dest="PORT", help="overrides PORT")
    parser.add_argument("--bank-url", dest="BANK_URL", metavar="URL", help="overrides BANK_URL")
    return parser


def _serve(config: Config) -> None:
    listener = _listen_or_exit(config.host, config.port)
    simulator = None
    bank_url = config.bank_url
    if bank_url is None:
        simulator = Simulator()
        simulator.start()
        bank_url = simulator.url
    app = create_app(replace(config, bank_url=bank_url))
    options = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(config.bank_connect_timeout_s + config.bank_timeout_s) + SETTLE_S,
    )
    try:
        _Server(options, _ready(config, listener, bank_url, simulated=simulator is not None)).run(sockets=[listener])
    finally:
        if simulator is not None:
            simulator.stop()


def _listen_or_exit(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # Python adds what it attempted
        sys.exit(f"can't listen on HOST {host}, PORT {port}: {why}")


def _ready(config: Config, listener: socket.socket, bank_url: str, *, simulated: bool) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # shown, not bound
    contract = Contract(config.supported_currencies, today_utc)
    api = f"http://{f'[{host}]' if ':' in host else host}:{port}{contract.base_path}"
    payment = json.dumps(contract.document["components"]["examples"]["Authorized"]["value"])
    kind = "the built-in simulator: no money moves" if simulated else "set by BANK_URL"
    return f"""\
Payment gateway
  API   {api}/payments
  UI    {api}/ui/
  Bank  {bank_url} ({kind})

Try:
  curl -i {api}/payments -H 'Content-Type: application/json' -d '{payment}'
"""


if __name__ == "__main__":
    main()
