"""What is said on standard output when the gateway is ready: where everything is, and what to try."""

import json
import socket
import time

import merchants
from app import today_utc
from config import Config
from handlers.contract import Contract
from telemetry import logs


def announce(config: Config, listener: socket.socket, bank_url: str, metrics_url: str | None) -> None:
    """Say it; as JSON if that is how the gateway logs."""
    contract = Contract(config.supported_currencies, today_utc, merchants.is_open)
    places = _places(config, listener, contract.base_path, bank_url, metrics_url)
    if logs.is_json(config.log_format):
        line = {"time": logs.time_of(time.time()), "level": "INFO", "logger": "gateway.ready", "message": "ready"}
        print(json.dumps(line | {name.lower(): place for name, place in places.items()}), flush=True)
        return
    lines = [f"  {name:<7} {place}" for name, place in places.items()]
    print("\n".join(["Payment gateway", *lines, "", "Try:", f"  {_curl(contract, places['API'])}"]), flush=True)


def url(host: str, port: int, path: str, scheme: str = "http") -> str:
    """Return a URL at an address that is listened on, as somebody on this machine can open it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # shown, not bound
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


def _places(
    config: Config, listener: socket.socket, base: str, bank_url: str, metrics_url: str | None
) -> dict[str, str]:
    host, port = listener.getsockname()[:2]
    scheme = "https" if config.tls_cert else "http"
    places = {
        "API": url(host, port, f"{base}/payments", scheme),
        "UI": url(host, port, f"{base}/ui/", scheme),
        "Bank": f"{bank_url} ({'set by BANK_URL' if config.bank_url else 'the built-in simulator: no money moves'})",
        "Store": config.store_url.partition(":")[0],
        "Keys": "none: open to everybody on this machine" if merchants.is_open() else "needed",
    }
    return places if metrics_url is None else {**places, "Metrics": metrics_url}


def _curl(contract: Contract, api: str) -> str:
    payment = json.dumps(contract.document["components"]["examples"]["Authorized"]["value"])
    key = "" if merchants.is_open() else " -H 'Authorization: Bearer KEY'"
    return f"curl -i {api}{key} -H 'Content-Type: application/json' -d '{payment}'"
