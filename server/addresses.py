"""Addresses of clients and proxies."""

import ipaddress
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


def read(text: str) -> IPv4Address | IPv6Address:
    """Return the address; an IPv4 address that is written as IPv6 becomes IPv4. Raises `ValueError`."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def is_in(address: IPv4Address | IPv6Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Return whether the address is in one of the networks."""
    return any(address in network for network in networks)
