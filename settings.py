"""Every setting: its default, what is allowed and why.

The whole truth: loading, `run.py --help` and the tests that hold .env.example and README.md to it all
read this table.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import values
from values import MEMORY


class Setting(NamedTuple):
    """How to read one variable. `parse` raises `ValueError` saying what is wrong."""

    parse: Callable[[str], Any]
    default: str
    allowed: str
    why: str


def _setting(default: str, why: str, parse_and_allowed: tuple[Callable[[str], Any], str]) -> Setting:
    parse, allowed = parse_and_allowed
    return Setting(parse, default, allowed, why)


SETTINGS: Final[dict[str, Setting]] = {
    "BANK_URL": _setting(
        "",
        "where the acquiring bank is; unset, the built-in simulator is started and no money moves",
        (values.unchecked, "http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]"),
    ),
    "BANK_CONNECT_TIMEOUT_S": _setting(
        "2", "how long one attempt to connect may take, and the wait for a free place", values.seconds(0.05, 60)
    ),
    "BANK_TIMEOUT_S": _setting(
        "10", "how long a whole call may take, retries included; then the payment is PENDING", values.seconds(0.05, 300)
    ),
    "BANK_RETRIES": _setting(
        "2", "how often to try again what certainly did not happen: no connection, or a 503", values.integer(0, 10)
    ),
    "BANK_CONCURRENCY": _setting("128", "how many calls to the bank may be under way at once", values.integer(1, 2000)),
    "BANK_QUEUE": _setting(
        "",
        "how many payments may wait for a free place besides; beyond, they are refused at once; "
        "unset, as many as BANK_CONCURRENCY",
        values.integer_or_unset(0, 10_000),
    ),
    "BREAKER_FAILURES": _setting(
        "10",
        "after how many calls in a row that did not reach the bank, or got a 503, it is not asked for a while",
        values.integer(1, 10_000),
    ),
    "BREAKER_OPEN_S": _setting(
        "5", "how long it is not asked then, until one payment tries", values.seconds(0.05, 3600)
    ),
    "BANK_CA_FILE": _setting(
        "",
        "the authorities that may vouch for a bank at https, instead of the usual ones",
        (values.authorities_file, "a file of certificates in PEM"),
    ),
    "BANK_CLIENT_CERT": _setting(
        "",
        "what the gateway shows to a bank at https (mutual TLS)",
        (values.certificate_file, "a file with a certificate and its key in PEM, without a password"),
    ),
    "SUPPORTED_CURRENCIES": _setting(
        "",
        "the currencies to accept, instead of the contract's",
        (values.currencies, "ISO 4217 codes separated by commas"),
    ),
    "STORE_URL": _setting(
        MEMORY,
        "where payments are kept; memory is gone when the gateway stops",
        (values.store_url, f"{MEMORY} or sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"),
    ),
    "FINGERPRINT_KEY": _setting(
        "",
        "the secret that fingerprints of requests are made with; every gateway on a store needs the same, "
        "and memory makes its own",
        (values.fingerprint_key, "64 hex digits, made by `openssl rand -hex 32`"),
    ),
    "API_KEYS": _setting(
        "",
        "merchants' keys besides those in the store, by their digests",
        (values.api_keys, "MERCHANT:DIGEST separated by commas, as `run.py keys create` prints them"),
    ),
    "RATE_LIMIT": _setting(
        "",
        "how many requests a merchant may make; unset, any number",
        (values.rate_limits, "rates like 100/second;5000/minute"),
    ),
    "RATE_LIMIT_STORE": _setting(
        MEMORY,
        "where requests are counted; processes that share a limit need a Redis",
        (values.rate_limit_store, f"{MEMORY} or redis://[USER:PASSWORD@]HOST[:PORT][/DB]"),
    ),
    "CORS_ORIGINS": _setting(
        "",
        "the origins whose pages may call the API from a browser",
        (values.origins, "origins like https://shop.example.com separated by commas, or *"),
    ),
    "HOST": _setting(
        "127.0.0.1",
        "the address to listen on; any but loopback needs API keys",
        (values.host, "an address or a host name"),
    ),
    "PORT": _setting("8000", "the port to listen on; 0 takes a free one", values.integer(0, 65535)),
    "TLS_CERT": _setting(
        "", "the certificate to serve https with, and its chain; unset, http", (values.path, "a file in PEM")
    ),
    "TLS_KEY": _setting("", "the key of TLS_CERT", (values.path, "a file in PEM, without a password")),
    "WORKERS": _setting("1", "how many processes serve", values.integer(1, 64)),
    "DRAIN_S": _setting(
        "0",
        "how long to go on serving after SIGTERM, for load balancers to see that /health/ready is 503",
        values.seconds(0, 300),
    ),
    "METRICS_PORT": _setting(
        "",
        "the port that /metrics is served on, at HOST; 0 takes a free one; unset, none",
        values.integer_or_unset(0, 65535),
    ),
    "LOG_LEVEL": _setting("INFO", "how much to log", values.one_of("DEBUG", "INFO", "WARNING", "ERROR")),
    "LOG_FORMAT": _setting(
        "auto", "how to log; auto is text on a terminal and json elsewhere", values.one_of("auto", "json", "text")
    ),
}
