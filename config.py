"""The settings (settings.py) as they are for this process: read from the environment over .env, and checked.

Nothing else in the gateway reads the environment.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dotenv import dotenv_values
from limits import RateLimitItem

import values
from settings import SETTINGS

MEMORY: Final = values.MEMORY
MERCHANT_NAME: Final = values.MERCHANT_NAME


class ConfigError(Exception):
    """One line for each wrong setting: the variable, what is wrong with it and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Checked settings; the repr shows no secret.

    bank_url: None is the built-in simulator
    supported_currencies: none are the contract's
    api_keys: merchants by the digests of their keys
    metrics_port: None is none
    """

    bank_url: str | None
    bank_connect_timeout_s: float
    bank_timeout_s: float
    bank_retries: int
    bank_concurrency: int
    bank_queue: int
    breaker_failures: int
    breaker_open_s: float
    bank_ca_file: str | None
    bank_client_cert: str | None
    supported_currencies: tuple[str, ...]
    store_url: str = field(repr=False)
    fingerprint_key: bytes = field(repr=False)
    api_keys: dict[str, str] = field(repr=False)
    rate_limit: tuple[RateLimitItem, ...]
    rate_limit_store: str = field(repr=False)
    cors_origins: tuple[str, ...]
    host: str
    port: int
    tls_cert: str | None
    tls_key: str | None
    workers: int
    drain_s: float
    metrics_port: int | None
    log_level: str
    log_format: str


def load(overrides: Mapping[str, str] | None = None) -> Config:
    """Read the settings: `overrides` over the environment over .env in the current directory over defaults.

    An empty value is an unset one. Raises `ConfigError`.
    """
    try:
        kept = dotenv_values(".env", interpolate=False)
    except UnicodeDecodeError:
        raise ConfigError(".env is not UTF-8; allowed: NAME=VALUE lines, see .env.example") from None
    given = {**kept, **os.environ, **(overrides or {})}
    read: dict[str, Any] = {}
    wrong: list[str] = []
    for name, setting in SETTINGS.items():
        try:
            read[name.lower()] = setting.parse(given.get(name) or setting.default)
        except ValueError as error:
            wrong.append(f"{name} {error}; allowed: {setting.allowed}")
    wrong += [] if wrong else _wrong_together(read)
    if wrong:
        raise ConfigError("\n".join(wrong))
    read["fingerprint_key"] = read["fingerprint_key"] or secrets.token_bytes(32)
    if read["bank_queue"] is None:
        read["bank_queue"] = read["bank_concurrency"]
    return Config(**read)


def hand_on(settings: Mapping[str, str]) -> None:
    """Put settings into the environment, for the processes that this one starts."""
    os.environ.update(settings)


def _wrong_together(read: Mapping[str, Any]) -> list[str]:
    wrong = []
    if read["store_url"] == MEMORY:
        if read["workers"] > 1:
            wrong.append("WORKERS is more than 1 with STORE_URL=memory:, which one process can't share; allowed: 1")
    elif not read["fingerprint_key"]:
        allowed = SETTINGS["FINGERPRINT_KEY"].allowed
        wrong.append(f"FINGERPRINT_KEY is not set, and this STORE_URL needs it; allowed: {allowed}")
    if read["rate_limit"] and read["workers"] > 1 and read["rate_limit_store"] == MEMORY:
        allowed = SETTINGS["RATE_LIMIT_STORE"].allowed
        wrong.append(f"RATE_LIMIT_STORE is {MEMORY}, which several WORKERS can't share; allowed: {allowed}")
    if not (read["bank_url"] or "").startswith("https:"):
        wrong += [
            f"{name} is set, and BANK_URL is no https; allowed: a BANK_URL with https"
            for name in ("BANK_CA_FILE", "BANK_CLIENT_CERT")
            if read[name.lower()]
        ]
    return wrong + _wrong_certificate(read["tls_cert"], read["tls_key"])


def _wrong_certificate(certificate: str | None, key: str | None) -> list[str]:
    if not certificate and not key:
        return []
    if not certificate or not key:
        return ["TLS_CERT and TLS_KEY go together; allowed: both, or none"]
    try:
        values.check_certificate(certificate, key)
    except ValueError as error:
        return [f"TLS_CERT with TLS_KEY {error}; allowed: files in PEM, the key without a password"]
    return []
