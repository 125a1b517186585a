"""Every setting: its default, what is allowed and why, read from the environment over .env.

`SETTINGS` is the whole truth: loading, `run.py --help` and the test that holds `.env.example`
to it all read the same table. Nothing else in the gateway reads the environment.
"""

import math
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import iso4217
from dotenv import dotenv_values

from bank import BANKS
from store import MEMORY


class ConfigError(Exception):
    """One line for each wrong setting: the variable, what is wrong with it and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Checked settings; the repr shows no secret.

    bank_url: None is the built-in simulator
    supported_currencies: none are the contract's
    """

    bank_url: str | None
    bank_connect_timeout_s: float
    bank_timeout_s: float
    bank_retries: int
    bank_concurrency: int
    supported_currencies: tuple[str, ...]
    store_url: str = field(repr=False)
    fingerprint_key: bytes = field(repr=False)
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
    try:
        kept = dotenv_values(".env", interpolate=False)
    except UnicodeDecodeError:
        raise ConfigError(".env is not UTF-8; allowed: NAME=VALUE lines, see .env.example") from None
    given = {**kept, **os.environ, **(overrides or {})}
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for name, setting in SETTINGS.items():
        try:
            values[name.lower()] = setting.parse(given.get(name) or setting.default)
        except ValueError as error:
            wrong.append(f"{name} {error}; allowed: {setting.allowed}")
    wrong += [] if wrong else _wrong_together(values)
    if wrong:
        raise ConfigError("\n".join(wrong))
    return Config(**{**values, "fingerprint_key": values["fingerprint_key"] or secrets.token_bytes(32)})


def hand_on(settings: Mapping[str, str]) -> None:
    """Put settings into the environment, for the processes that this one starts."""
    os.environ.update(settings)


def _wrong_together(values: Mapping[str, Any]) -> list[str]:
    if values["store_url"] == MEMORY:
        if values["workers"] > 1:
            return ["WORKERS is more than 1 with STORE_URL=memory:, which one process can't share; allowed: 1"]
    elif not values["fingerprint_key"]:
        return [
            f"FINGERPRINT_KEY is not set, and this STORE_URL needs it; allowed: {SETTINGS['FINGERPRINT_KEY'].allowed}"
        ]
    return []


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
    if any(character in "?#@" or character.isspace() for character in text):
        raise ValueError("has credentials, a query, a fragment or white space")
    return text


def _currencies(text: str) -> tuple[str, ...]:
    known = iso4217.Currency.__members__
    codes = tuple(code.strip() for code in text.split(",")) if text else ()
    for code in codes:
        if not re.fullmatch("[A-Z]{3}", code) or code not in known or known[code].exponent is None:
            raise ValueError(f"has {code!r}, which is no ISO 4217 code of money with a minor unit")
    if len(set(codes)) < len(codes):
        raise ValueError("has a code twice")
    return codes


def _store_url(text: str) -> str:
    if text != MEMORY and not re.fullmatch(r"sqlite:///.+|postgresql\+psycopg://.+", text):
        raise ValueError("is not a store")  # not what was given: it may hold a password
    return text


def _fingerprint_key(text: str) -> bytes:
    if text and not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("is not 64 hex digits")
    return bytes.fromhex(text)


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
    "STORE_URL": _setting(
        MEMORY,
        "where payments are kept; memory is gone when the gateway stops",
        (_store_url, f"{MEMORY} or sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"),
    ),
    "FINGERPRINT_KEY": _setting(
        "",
        "the secret that fingerprints of requests are made with; every gateway on a store needs the same, "
        "and memory makes its own",
        (_fingerprint_key, "64 hex digits, made by `openssl rand -hex 32`"),
    ),
    "HOST": _setting(
        "127.0.0.1", "the address to listen on; loopback unless you say otherwise", (_host, "an address or a host name")
    ),
    "PORT": _setting("8000", "the port to listen on; 0 takes a free one", _integer(0, 65535)),
    "WORKERS": _setting("1", "how many processes serve", _integer(1, 64)),
    "LOG_LEVEL": _setting("INFO", "how much to log, to standard error", (_log_level, ", ".join(LOG_LEVELS))),
}
