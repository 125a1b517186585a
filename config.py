"""Every setting of the gateway, once: its name, default, check and reason.

`Config` is the table. `load` reads the environment, then `.env`, then the defaults. `run.py --help` and `.env.example`
show the same table; `python config.py > .env.example` writes the file again after a change, and tests compare it and
docs/operations.md with the table. No other module reads the environment.
"""

import difflib
import io
import math
import os
import re
import secrets
import ssl
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple

import iso4217
import limits
from dotenv.parser import Binding, parse_stream

# The version of the gateway, which CHANGELOG.md describes (CONTRIBUTING.md says how a new one is made).
VERSION: Final = "1.0.0"

# The value of STORE_URL and RATE_LIMIT_STORE for one process's memory, which is lost when the process stops.
MEMORY: Final = "memory:"

# The value of BANK_URL for the built-in simulator. run.py adds the address of the simulator that it starts.
SIMULATOR: Final = "simulator:"

# Names in the environment that begin like settings and are none of them are reported.
_PREFIXES: Final = ("BANK_", "BREAKER_", "LOG_", "RATE_", "RETENTION_", "STORE_", "TLS_")

# A merchant's name; it appears in logs and on the command line.
MERCHANT_NAME: Final = r"[A-Za-z][A-Za-z0-9_.-]{0,63}"


class ConfigError(Exception):
    """Settings are invalid. The message has one line for each: its name, the problem and what is allowed; no secret."""


class Kind(NamedTuple):
    """How to read a setting.

    parse: returns the value of a text, or raises `ValueError` with the problem
    allowed: what `parse` accepts, in words
    """

    parse: Callable[[str], Any]
    allowed: str


class Setting(NamedTuple):
    """One setting: how to read it, its default as text, and the reason that it exists."""

    parse: Callable[[str], Any]
    allowed: str
    default: str
    why: str


def text(allowed: str) -> Kind:
    """Accept any text; the package that uses the setting checks it. Unset is None."""
    return Kind(lambda given: given or None, allowed)


def integer(low: int, high: int) -> Kind:
    """Accept an integer from `low` to `high`. Unset is None."""

    def parse(given: str) -> int | None:
        if given and not (given.isascii() and given.isdigit() and low <= int(given) <= high):
            raise ValueError(f"is {given!r}")
        return int(given) if given else None

    return Kind(parse, f"an integer from {low} to {high}")


def number(low: float, high: float, unit: str = "a number") -> Kind:
    """Accept a number from `low` to `high`."""

    def parse(given: str) -> float:
        try:
            parsed = float(given)
        except ValueError:
            parsed = math.nan
        if not low <= parsed <= high:
            raise ValueError(f"is {given!r}")
        return parsed

    return Kind(parse, f"{unit} from {low:g} to {high:g}")


def seconds(low: float, high: float) -> Kind:
    """Accept a number of seconds from `low` to `high`."""
    return number(low, high, "seconds")


def switch() -> Kind:
    """Accept 0 or 1."""

    def parse(given: str) -> bool:
        if given not in {"0", "1"}:
            raise ValueError(f"is {given!r}")
        return given == "1"

    return Kind(parse, "0 or 1")


def one_of(*words: str) -> Kind:
    """Accept one of these words, in upper or lower case."""

    def parse(given: str) -> str:
        for word in words:
            if word.casefold() == given.casefold():
                return word
        raise ValueError(f"is {given!r}")

    return Kind(parse, ", ".join(words))


def _host(given: str) -> str:
    if not given.isprintable() or any(character.isspace() or character in "/[]" for character in given):
        raise ValueError(f"is {given!r}")
    return given


def _currencies(given: str) -> tuple[str, ...]:
    known = iso4217.Currency.__members__
    codes = _list(given)
    for code in codes:
        if not re.fullmatch("[A-Z]{3}", code) or code not in known or known[code].exponent is None:
            raise ValueError(f"contains {code!r}, which is not an ISO 4217 code of a currency with a minor unit")
    if len(set(codes)) < len(codes):
        raise ValueError("contains a code twice")
    return codes


def _fingerprint_key(given: str) -> bytes:
    if given and not re.fullmatch(r"[0-9a-fA-F]{64}", given):
        raise ValueError("is not 64 hex digits")
    key = bytes.fromhex(given)
    if given and not any(key):
        raise ValueError("is all zeros, which anybody can guess")
    return key


def _fingerprint_keys(given: str) -> tuple[bytes, ...]:
    try:
        return tuple(_fingerprint_key(key) for key in _list(given) if key)
    except ValueError as error:
        raise ValueError(f"contains a key that {error}") from None


def _api_keys(given: str) -> dict[str, str]:
    """Return merchants by the digests of their keys."""
    merchants = {}
    for entry in _list(given):
        found = re.fullmatch(rf"({MERCHANT_NAME}):([0-9a-f]{{64}})", entry)
        if found is None:
            raise ValueError("contains an entry that is not MERCHANT:DIGEST")
        merchants[found[2]] = found[1]
    return merchants


def _rates(given: str) -> tuple[limits.RateLimitItem, ...]:
    try:
        rates = tuple(limits.parse_many(given)) if given else ()
    except ValueError:
        raise ValueError(f"is {given!r}") from None
    if any(rate.amount < 1 for rate in rates):
        raise ValueError(f"is {given!r}")
    if len({rate.get_expiry() for rate in rates}) < len(rates):
        raise ValueError("contains a period twice")
    return rates


def _hosts(given: str) -> frozenset[str]:
    for host in _list(given):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]", host):
            raise ValueError(f"contains {host!r}, which is not a host without a port")
    return frozenset(host.lower() for host in _list(given))


def _networks(given: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(entry) for entry in _list(given))
    except ValueError as error:
        raise ValueError(f"contains an entry that is not an address or a network: {error}") from None


def _origins(given: str) -> tuple[str, ...]:
    for origin in _list(given):
        if not re.fullmatch(r"\*|https?://([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?", origin):
            raise ValueError(f"contains {origin!r}, which is not an origin")
    return _list(given)


def _authorities_file(given: str) -> str | None:
    try:
        ssl.create_default_context(cafile=given or None)
    except (OSError, ValueError):
        raise ValueError("can't be read as certificates") from None
    return given or None


def _certificate_file(given: str) -> str | None:
    if given:
        _check_certificate(given, None)
    return given or None


def _check_certificate(certificate: str, key: str | None) -> None:
    """Raise `ValueError` unless the key belongs to the certificate and neither needs a password."""
    try:
        # Without a password argument, OpenSSL would ask for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError):
        raise ValueError("can't be read as a certificate and its key") from None


def _list(given: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in given.split(",")) if given else ()


def _setting(kind: Kind, default: str, why: str, *, secret: bool = False) -> Any:
    """Describe one setting; a secret one is left out of `repr(config)`."""
    return field(repr=not secret, metadata={"setting": Setting(kind.parse, kind.allowed, default, why)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings, checked. A setting's name is the field's in upper case."""

    bank_url: str | None = _setting(
        text(f"http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH] or {SIMULATOR}"),
        "",
        f"URL of the acquiring bank, or {SIMULATOR} for the built-in simulator, with which no money moves; unset, the "
        "simulator in a trial: HOST is loopback, STORE_URL is memory: and there are no API keys",
    )
    bank_connect_timeout_s: float = _setting(
        seconds(0.05, 60), "2", "longest time for one attempt to connect, and for a payment's wait for a free slot"
    )
    bank_timeout_s: float = _setting(
        seconds(0.05, 300), "10", "longest time for a whole call, retries included; after it the payment is PENDING"
    )
    bank_retries: int = _setting(
        integer(0, 10), "2", "how often to retry a call that certainly moved no money: no connection, or a 503"
    )
    bank_concurrency: int = _setting(
        integer(1, 2000), "128", "number of slots: calls that may be in progress at the bank at once, per process"
    )
    bank_queue: int = _setting(
        integer(0, 10_000),
        "",
        "how many more payments may wait for a slot, per process; further ones are refused with 503; "
        "unset, as many as BANK_CONCURRENCY",
    )
    merchant_share: float = _setting(
        number(0.05, 1),
        "0.75",
        "the largest part of BANK_CONCURRENCY and of BANK_QUEUE that one merchant's payments may take, where more "
        "than one merchant has a key",
    )
    breaker_failures: int = _setting(
        integer(1, 10_000),
        "10",
        "consecutive payments that did not reach the bank, got a 503 from it or no reply, after which a circuit opens",
    )
    breaker_open_s: float = _setting(
        seconds(0.05, 3600), "5", "how long the circuit stays open before it lets one call through"
    )
    bank_ca_file: str | None = _setting(
        Kind(_authorities_file, "a file of certificates in PEM"),
        "",
        "certificate authorities that may sign the certificate of an https bank, instead of the usual ones",
    )
    bank_client_cert: str | None = _setting(
        Kind(_certificate_file, "a file with a certificate and its key in PEM, without a password"),
        "",
        "certificate and key that the gateway presents to an https bank (mutual TLS)",
    )
    supported_currencies: tuple[str, ...] = _setting(
        Kind(_currencies, "ISO 4217 codes separated by commas"),
        "",
        "currencies to accept; unset, those of the contract",
    )
    store_url: str = _setting(
        text(f"{MEMORY} or sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"),
        MEMORY,
        "where payments are kept: in memory until the gateway stops, in SQLite on one machine, "
        "or in PostgreSQL for many gateways",
        secret=True,
    )
    store_durability: str = _setting(
        one_of("full", "any"),
        "full",
        "full refuses a PostgreSQL that may lose payments that were answered, with synchronous_commit or fsync off",
    )
    fingerprint_key: bytes = _setting(
        Kind(_fingerprint_key, "64 hex digits, made by `openssl rand -hex 32`"),
        "",
        "secret key of the fingerprints of requests, the same for all gateways on a database and kept separate "
        "from it; unset with memory, each start makes a new one",
        secret=True,
    )
    fingerprint_old_keys: tuple[bytes, ...] = _setting(
        Kind(_fingerprint_keys, "keys like FINGERPRINT_KEY separated by commas"),
        "",
        "keys that FINGERPRINT_KEY replaces or is about to replace: they verify fingerprints and make none",
        secret=True,
    )
    api_keys: dict[str, str] = _setting(  # noqa: RUF009  # a field, not a value
        Kind(_api_keys, "MERCHANT:DIGEST separated by commas, as `run.py keys create` prints them"),
        "",
        "merchants' API keys in addition to those in the store; without any key, the gateway accepts every caller "
        "and listens on loopback only",
        secret=True,
    )
    retention_days: int | None = _setting(
        integer(1, 36_500),
        "",
        "age in days from which the gateway erases what it keeps of a payment's card, and operators' notes; unset, "
        "nothing is erased",
    )
    rate_limit: tuple[limits.RateLimitItem, ...] = _setting(
        Kind(_rates, "rates like 100/second;5000/minute"), "", "requests that a merchant may make; unset, any number"
    )
    rate_limit_store: str = _setting(
        text(f"{MEMORY} or redis://[USER:PASSWORD@]HOST[:PORT][/DB]"),
        MEMORY,
        "where requests are counted: in each process, or in a Redis for all processes together",
        secret=True,
    )
    cors_origins: tuple[str, ...] = _setting(
        Kind(_origins, "origins like https://shop.example.com separated by commas, or *"),
        "",
        "origins whose pages may call the API from a browser; such a page needs the API key, which never belongs in a "
        "page for the public; unset, none",
    )
    host: str = _setting(
        Kind(_host, "an address or a host name"),
        "127.0.0.1",
        "address to listen on; an address other than loopback requires API keys, and TLS or ALLOW_PLAINTEXT",
    )
    allowed_hosts: frozenset[str] = _setting(
        Kind(_hosts, "host names and addresses separated by commas, without ports"),
        "",
        "further hosts that a gateway without API keys answers to, besides HOST and the names and addresses of "
        "loopback; to others it answers 421, so that no web page reaches it by DNS rebinding",
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(
        Kind(_networks, "addresses and networks separated by commas"),
        "",
        "proxies whose X-Forwarded-For names the client, for the log, and whose connections are limited in all only; "
        "unset, the header is ignored",
    )
    max_connections: int | None = _setting(
        integer(1, 1_000_000),
        "",
        "most open connections per process, 10,000 if unset, and never more than the limit of open files leaves; at "
        "the limit the one that has been idle longest makes room",
    )
    max_connections_per_client: int = _setting(
        integer(1, 1_000_000),
        "256",
        "most open connections of one client's address per process, not for loopback and TRUSTED_PROXIES",
    )
    port: int = _setting(integer(0, 65535), "8000", "port to listen on; 0 takes a free one")
    tls_cert: str | None = _setting(
        text("a file in PEM"), "", "certificate and its chain, to serve https; unset, the gateway serves http"
    )
    tls_key: str | None = _setting(text("a file in PEM, without a password"), "", "key of TLS_CERT")
    allow_plaintext: bool = _setting(
        switch(),
        "0",
        "1 starts the gateway although cards cross a network without TLS of its own: HOST is not loopback and TLS_CERT "
        "is unset, or BANK_URL is http and not on this machine; for a proxy in front, or a private network",
    )
    workers: int = _setting(integer(1, 64), "1", "number of processes that serve; more than one requires a database")
    drain_s: float = _setting(
        seconds(0, 300),
        "0",
        "how long to continue serving after SIGTERM while /health/ready is 503, so that load balancers notice",
    )
    metrics_host: str = _setting(
        Kind(_host, "an address or a host name"),
        "127.0.0.1",
        "address that /metrics is served on; it needs no key and has no TLS, so it belongs in a private network",
    )
    metrics_port: int | None = _setting(
        integer(0, 65535),
        "",
        "port of /metrics, at METRICS_HOST; 0 takes a free one; unset, no metrics are served",
    )
    log_level: str = _setting(one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "lowest level that is logged")
    log_format: str = _setting(
        one_of("auto", "json", "text"), "auto", "form of log lines; auto is text on a terminal and json otherwise"
    )

    def simulates_bank(self) -> bool:
        """Return whether the bank is the built-in simulator."""
        return self.bank_url is None or self.bank_url.startswith(SIMULATOR)


SETTINGS: Final[dict[str, Setting]] = {entry.name.upper(): entry.metadata["setting"] for entry in fields(Config)}


def load(overrides: Mapping[str, str] | None = None) -> Config:
    """Read the settings. Raises `ConfigError`.

    The first of these sources that has a setting counts: `overrides`, the environment, .env in the current directory,
    the defaults. An empty value counts as unset.
    """
    given = {**_in_file(), **os.environ, **(overrides or {})}
    values: dict[str, Any] = {}
    errors: list[str] = []
    for name, setting in SETTINGS.items():
        try:
            values[name.lower()] = setting.parse(given.get(name) or setting.default)
        except ValueError as error:
            errors.append(f"{name} {error}; allowed: {setting.allowed}")
    errors = errors or _conflicts(values)
    if errors:
        raise ConfigError("\n".join(errors))
    if values["bank_queue"] is None:
        values["bank_queue"] = values["bank_concurrency"]
    values["fingerprint_key"] = values["fingerprint_key"] or secrets.token_bytes(32)
    return Config(**values)


def misspelled() -> list[str]:
    """Return a line for each name in the environment that begins like a setting and is not one."""
    names = (name for name in sorted(os.environ) if name.startswith(_PREFIXES) and name not in SETTINGS)
    return [f"the environment sets {name}{_hint(name)}" for name in names]


def allows_colour() -> bool:
    """Return whether the environment leaves colour on (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")


def hand_on(settings: Mapping[str, str]) -> None:
    """Put settings into this process's environment, which the processes that it starts inherit."""
    os.environ.update(settings)


def wrong(name: str, problem: str) -> ConfigError:
    """Return the error for a value that the package using the setting refuses."""
    return ConfigError(f"{name} {problem}; allowed: {SETTINGS[name].allowed}")


def _in_file() -> dict[str, str | None]:
    """Return the settings in .env. Raises `ConfigError`, with a line for each name that is not a setting."""
    path = Path(".env")
    if not path.exists() or path.is_dir():
        return {}
    try:
        bindings = list(parse_stream(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except UnicodeDecodeError:
        raise ConfigError(".env is not UTF-8; allowed: NAME=VALUE lines, see .env.example") from None
    errors = [error for binding in bindings if (error := _error(binding))]
    if errors:
        raise ConfigError("\n".join(errors))
    return {binding.key: binding.value for binding in bindings if binding.key is not None}


def _error(binding: Binding) -> str | None:
    """Return what is wrong with a statement in .env; without its value, and without a name that may be a value."""
    text, name = binding.original.string, binding.key
    line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
    if binding.error or (name is not None and binding.value is None):
        return f".env line {line} can't be read; allowed: NAME=VALUE, see .env.example"
    if name is None or name in SETTINGS:
        return None
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,39}", name) and not _nearest(name):
        return f".env line {line} sets something that is not a setting; allowed: see .env.example"
    return f".env line {line} sets {name}{_hint(name)}"


def _hint(name: str) -> str:
    nearest = _nearest(name)
    return f": did you mean {nearest[0]}?" if nearest else ", which is not a setting; allowed: see .env.example"


def _nearest(name: str) -> list[str]:
    return difflib.get_close_matches(name.upper(), SETTINGS, n=1)


def _conflicts(values: Mapping[str, Any]) -> list[str]:
    """Return an error for each combination of valid settings that is invalid."""
    errors = []
    if values["store_url"] == MEMORY:
        if values["workers"] > 1:
            errors.append("WORKERS is more than 1, and processes can't share STORE_URL=memory:; allowed: 1")
    elif not values["fingerprint_key"]:
        errors.append(str(wrong("FINGERPRINT_KEY", "is not set, and this STORE_URL needs it")))
    if values["rate_limit"] and values["workers"] > 1 and values["rate_limit_store"] == MEMORY:
        errors.append(str(wrong("RATE_LIMIT_STORE", f"is {MEMORY}, which several WORKERS can't share")))
    if not (values["bank_url"] or "").startswith("https:"):
        errors += [
            f"{name} is set, and BANK_URL is not https; allowed: a BANK_URL with https"
            for name in ("BANK_CA_FILE", "BANK_CLIENT_CERT")
            if values[name.lower()]
        ]
    certificate, key = values["tls_cert"], values["tls_key"]
    if bool(certificate) != bool(key):
        errors.append("TLS_CERT and TLS_KEY require each other; allowed: both or neither")
    elif certificate:
        try:
            _check_certificate(certificate, key)
        except ValueError as error:
            errors.append(f"TLS_CERT with TLS_KEY {error}; allowed: files in PEM, the key without a password")
    return errors


def env_example() -> str:
    """Return the text of .env.example: every setting with its reason, what is allowed, and its default."""
    example = (
        "# All settings with their defaults. Copy this file to .env and edit it; the environment overrides .env.\n"
        "# Written by `python config.py > .env.example`.\n"
    )
    for name, setting in SETTINGS.items():
        reason = textwrap.fill(
            f"{setting.why[0].upper()}{setting.why[1:]}.", 118, initial_indent="# ", subsequent_indent="# "
        )
        example += f"\n{reason}\n# Allowed: {setting.allowed}\n{name}={setting.default}\n"
    return example


if __name__ == "__main__":
    sys.stdout.write(env_example())
