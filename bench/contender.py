"""The stacks that are compared. Each is a server process with uvicorn, uvloop and httptools, without an access log."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from bench import load
from bench.process import until_it_answers
from tests.postgres import Postgres

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Contender:
    """A stack to measure.

    name: its name in the table; module: the ASGI module, None for this gateway; settings: environment of the process.
    """

    name: str
    module: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


GATEWAY = Contender("this gateway", settings={"LOG_LEVEL": "ERROR"})
LOGGING = Contender("this gateway, logging on", settings={"LOG_LEVEL": "INFO", "LOG_FORMAT": "json"})
CONNEXION = Contender("Connexion FlaskApp + requests", "bench.contenders.connexion_flask")
HTTPX_NAIVE = Contender("FastAPI + httpx, a client per request", "bench.contenders.fastapi_httpx_naive")
HTTPX = Contender("FastAPI + pooled httpx", "bench.contenders.fastapi_httpx")
AIOHTTP = Contender("FastAPI + aiohttp", "bench.contenders.fastapi_aiohttp")
ASYNCPG = "FastAPI + aiohttp + asyncpg"
SQLALCHEMY = "FastAPI + aiohttp + SQLAlchemy asyncio"
FLOOR = Contender("bare ASGI, constant answer", "bench.contenders.floor")


def on(name: str, store_url: str, **settings: str) -> Contender:
    """Return the gateway with its payments in a database."""
    key = {"FINGERPRINT_KEY": "5e" * 32}
    return Contender(f"this gateway, {name}", settings={**GATEWAY.settings, **key, "STORE_URL": store_url, **settings})


def durable_peers(server: Postgres) -> list[Contender]:
    """Return the stacks that keep payments in PostgreSQL, each with a database of its own."""
    modules = {ASYNCPG: "bench.contenders.fastapi_asyncpg", SQLALCHEMY: "bench.contenders.fastapi_sqlalchemy"}

    def database() -> str:
        url = sa.make_url(server.new_database())
        return url.set(drivername="postgresql").render_as_string(hide_password=False)

    return [Contender(name, module, {"DATABASE": database()}) for name, module in modules.items()]


@dataclass(frozen=True, slots=True)
class Server:
    """A running contender.

    payments: the URL to post to; payment: the URL of a payment that exists; started_s: seconds until the first answer.
    """

    pid: int
    payments: str
    payment: str
    started_s: float


@contextlib.contextmanager
def running(contender: Contender, bank_url: str) -> Iterator[Server]:
    """Start a contender, measure how long that takes, and make a payment in it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"PATH": os.environ["PATH"], "BANK_URL": bank_url, "PORT": str(port), **contender.settings}
    command = [sys.executable, "run.py"]
    if contender.module is not None:
        command = [sys.executable, "-m", "uvicorn", f"{contender.module}:app", "--port", str(port)]
        command += ["--no-access-log", "--log-level", "warning", "--backlog", "4096"]
    url = f"http://127.0.0.1:{port}/api/v1/payments"
    began = time.monotonic()
    null = subprocess.DEVNULL  # the gateway writes a copy of the audit trail to standard error
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=null, stderr=null) as process:
        try:
            until_it_answers(process, f"{url}/00000000-0000-4000-8000-000000000000")
            started_s = time.monotonic() - began
            yield Server(process.pid, url, f"{url}/{_pay(url)}", started_s)
        finally:
            process.terminate()


def _pay(url: str) -> str:
    body, headers = json.dumps(load.PAYMENT).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:  # noqa: S310
        made = json.load(answer)
    assert answer.status == 201
    assert made["status"] == "AUTHORIZED"
    payment_id: str = made["id"]
    return payment_id
