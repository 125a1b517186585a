"""The banner: what the gateway prints on standard output when it is ready.

It says where to find the API, the bank, the store and the metrics, and which command to try first.
"""

import json
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from config import Config
from merchants import Merchants
from telemetry import logs


class Api(NamedTuple):
    """What the banner shows of the contract: the path of the API and a payment to try."""

    base_path: str
    example: Mapping[str, Any]


def announce(  # noqa: PLR0917  # each argument has its own type
    config: Config,
    api: Api,
    merchants: Merchants,
    listener: socket.socket,
    bank_url: str,
    metrics_url: str | None,
) -> None:
    """Print the banner; as one line of JSON when the gateway logs JSON.

    bank_url: the bank's, or that of the built-in simulator, which the gateway has started
    metrics_url: None when METRICS_PORT is unset
    """
    facts = _facts(config, api, merchants, listener, bank_url)
    if metrics_url is not None:
        facts["Metrics"] = metrics_url
    if logs.is_json(config.log_format):
        line = {"time": logs.time_of(time.time()), "level": "INFO", "logger": "gateway.ready", "message": "ready"}
        print(json.dumps(line | {name.lower(): fact for name, fact in facts.items()}), flush=True)
        return
    lines = [f"  {name:<7} {fact}" for name, fact in facts.items()]
    curl = _curl(api, facts["API"], with_key=not merchants.is_open())
    print("\n".join(["Payment gateway", *lines, "", "Try:", f"  {curl}"]), flush=True)


def url(host: str, port: int, path: str, scheme: str = "http") -> str:
    """Return a URL for an address that a process listens on, as a client on this machine can open it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # shown, not bound
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


def _facts(config: Config, api: Api, merchants: Merchants, listener: socket.socket, bank_url: str) -> dict[str, str]:
    host, port = listener.getsockname()[:2]
    scheme = "https" if config.tls_cert else "http"
    simulator = "the built-in simulator: no money moves"
    return {
        "API": url(host, port, f"{api.base_path}/payments", scheme),
        "UI": url(host, port, f"{api.base_path}/ui/", scheme),
        "Bank": f"{bank_url} ({simulator if config.simulates_bank() else 'set by BANK_URL'})",
        "Store": config.store_url.partition(":")[0],
        "Keys": "none: accepts any caller on this machine" if merchants.is_open() else "required",
    }


def _curl(api: Api, payments: str, *, with_key: bool) -> str:
    payment = json.dumps(api.example)
    key = " -H 'Authorization: Bearer KEY'" if with_key else ""
    return f"curl -i {payments}{key} -H 'Content-Type: application/json' -d '{payment}'"
