"""Which gateway is a trial: payments in memory, no API keys, and reached from this machine only."""

import ipaddress
import socket

from config import MEMORY, Config


def is_live(config: Config) -> bool | None:
    """Return whether payments move money; None if the settings of this command name no bank."""
    return None if config.bank_url is None and beyond_trial(config) else not config.simulates_bank()


def beyond_trial(config: Config) -> str | None:
    """Return which setting is more than a trial needs; None if this is a trial."""
    if config.store_url != MEMORY:
        return f"STORE_URL is not {MEMORY}"
    if config.api_keys:
        return "API_KEYS is set"
    return None if is_loopback(config.host) else "HOST is not loopback"


def is_loopback(host: str, *, unresolved: bool = True) -> bool:
    """Return whether this address or host name is on this machine only.

    unresolved: what a name is that does not resolve; nobody can connect to such a HOST, which `listen` reports
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return unresolved
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
