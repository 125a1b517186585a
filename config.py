"""Every setting: its default, what is allowed and why, read from the environment over .env.

`SETTINGS` is the whole truth: loading, `run.py --help` and the test that holds `.env.example`
to it all read the same table. Nothing else in the gateway reads the environment.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import iso4217
from dotenv import dotenv_values

from bank import BANKS

MEMORY: Final = "memory:"


class ConfigError(Exception):
    """One line for each wrong setting: the variable, what is wrong with it and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Checked settings. `bank_url` None is the built-in simulator; no `supported_currencies` are the contract's."""

    bank_url: str | None
    bank_connect_timeout_s: float
    bank_timeout_s: float
    bank_retries: int
    bank_concurrency: int
    supported_currencies: tuple[str, ...]
    store_url: str
    host: str
    port: int
    workers: int
    log_level: str


class Setting(NamedTuple):
    """How to read one variable. `parse` raises `ValueError` saying what is wrong."""

    parse: Callable[[str], Any]
    default: str
    allowed: str
    why: str


def load(overrides: Mapping[str, str] | None = None) -> Config:
    """Read the settings: `overrides` over the environment over .env in the current directory over defaults.

    An empty value is an unset one. Raises `ConfigError`.
    """
    given = {**dotenv_values(".env", interpolate=False), **os.environ, **(overrides or {})}
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for name, setting in SETTINGS.items():
        try:
            values[name.lower()] = setting.parse(given.get(name) or setting.default)
        except ValueError as error:
            wrong.append(f"{name} {error}; allowed: {setting.allowed}")
    if not wrong and values["workers"] > 1 and values["store_url"] == MEMORY:
        wrong.append("WORKERS is more than 1 with STORE_URL=memory:, which one process can't share; allowed: 1")
    if wrong:
        raise ConfigError("\n".join(wrong))
    return Config(**values)


def _bank_url(text: str) -> str | None:
    if not text:
        return None
    try:
        url = urlsplit(text)
        port_ok = url.port != 0
    except ValueError:
        raise ValueError("is not a URL") from None
    if url.scheme not in BANKS or not url.hostname or not port_ok:
        raise ValueError("is not a URL of a bank")
    if url.query or url.fragment or url.username or url.password:
        raise ValueError("has credentials, a query or a fragment")
    return text


def _currencies(text: str) -> tuple[str, ...]:
    codes = tuple(code.strip() for code in text.split(",")) if text else ()
    for code in codes:
        if code not in iso4217.Currency.__members__ or iso4217.Currency(code).exponent is None:
            raise ValueError(f"has {code!r}, which is no ISO 4217 code of money with a minor unit")
    if len(set(codes)) < len(codes):
        raise ValueError("has a code twice")
    return codes


def _store_url(text: str) -> str:
    if text != MEMORY:
        raise ValueError("is not a store")
    return text


def _host(text: str) -> str:
    if not text.isprintable() or any(character.isspace() or character in "/[]" for character in text):
        raise ValueError(f"is {text!r}")
    return text


def _log_level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise ValueError(f"is {text!r}")
    return text.upper()


def _integer(low: int, high: int) -> tuple[Callable[[str], int], str]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"is {text!r}")
        return int(text)

    return parse, f"an integer from {low} to {high}"


def _seconds(low: float, high: float) -> tuple[Callable[[str], float], str]:
    def parse(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not low <= seconds <= high:
            raise ValueError(f"is {text!r}")
        return seconds

    return parse, f"seconds from {low:g} to {high:g}"


def _setting(default: str, why: str, parse_and_allowed: tuple[Callable[[str], Any], str]) -> Setting:
    parse, allowed = parse_and_allowed
    return Setting(parse, default, allowed, why)


LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

SETTINGS: Final[dict[str, Setting]] = {
    "BANK_URL": _setting(
        "",
        "where the acquiring bank is; unset, the built-in simulator is started and no money moves",
        (_bank_url, " or ".join(f"{scheme}://HOST[:PORT][/PATH]" for scheme in BANKS)),
    ),
    "BANK_CONNECT_TIMEOUT_S": _setting(
        "2", "how long one attempt to connect may take, and the wait for a free place", _seconds(0.05, 60)
    ),
    "BANK_TIMEOUT_S": _setting(
        "10", "how long a whole call may take, retries included; then the payment is PENDING", _seconds(0.05, 300)
    ),
    "BANK_RETRIES": _setting(
        "2", "how often to try again what certainly did not happen: no connection, or a 503", _integer(0, 10)
    ),
    "BANK_CONCURRENCY": _setting("128", "how many calls to the bank may be under way at once", _integer(1, 2000)),
    "SUPPORTED_CURRENCIES": _setting(
        "",
        "the currencies to accept, instead of the contract's",
        (_currencies, "ISO 4217 codes separated by commas"),
    ),
    "STORE_URL": _setting(MEMORY, "where payments are kept", (_store_url, MEMORY)),
    "HOST": _setting(
        "127.0.0.1", "the address to listen on; loopback unless you say otherwise", (_host, "an address or a host name")
    ),
    "PORT": _setting("8000", "the port to listen on; 0 takes a free one", _integer(0, 65535)),
    "WORKERS": _setting("1", "how many processes serve", _integer(1, 64)),
    "LOG_LEVEL": _setting("INFO", "how much to log, to standard error", (_log_level, ", ".join(LOG_LEVELS))),
}
