"""The open connections of a process: how many there may be, and which one makes room for a new one.

A connection is idle while no request of it is being answered. At a limit, the connection that has been idle longest is
closed for the new one; if none is idle, the new one is closed.
"""

import ipaddress
import resource
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from server import addresses

# Open files besides connections, the bank's and the store's: listeners, logs, /metrics, Redis, resolver, health checks.
SPARE_FILES: Final = 128

# Open files of a connection to the store: SQLite has a database, its log and its index open.
FILES_PER_STORE_CONNECTION: Final = 3


class Connection:
    """A connection that `Connections` count, or that has no limits without them."""

    counted_by: "Connections | None" = None

    def admit(self, host: str) -> bool:
        """Count the connection, which begins; return False where there is no room for it."""
        return self.counted_by is None or self.counted_by.enter(self, host)

    def leave(self) -> None:
        """Count the connection no more."""
        if self.counted_by is not None:
            self.counted_by.leave(self)

    def make_room(self) -> None:
        """Close the connection now."""
        raise NotImplementedError


class Clients:
    """Whose connections are counted together: those of an IPv4 address, or of an IPv6 network of a customer (/64).

    exempt: networks whose connections are many clients' (TRUSTED_PROXIES)
    """

    def __init__(self, exempt: Sequence[IPv4Network | IPv6Network]) -> None:
        self._exempt = exempt

    def of(self, host: str) -> str | None:
        """Return the client at this address; None if its connections are not limited, as those of loopback."""
        address = addresses.read(host.partition("%")[0])
        if address.is_loopback or addresses.is_in(address, self._exempt):
            return None
        return str(address) if address.version == 4 else str(ipaddress.ip_network((int(address), 64), strict=False))


class _Group:
    """Connections with a common limit, and those of them that are idle, longest first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open: set[Connection] = set()
        self.idle: dict[Connection, None] = {}


class Connections:
    """Admits the connections of a process.

    limit: how many there may be
    limit_per_client: how many of them may be one client's
    """

    def __init__(self, limit: int, limit_per_client: int, clients: Clients) -> None:
        self._all = _Group(limit)
        self._limit_per_client = limit_per_client
        self._clients = clients
        self._of_client: dict[str, _Group] = {}
        self._client_of: dict[Connection, str] = {}

    def enter(self, connection: Connection, host: str) -> bool:
        """Count a new, idle connection; return False where there is no room for it."""
        client = self._clients.of(host)
        own = self._of_client.get(client) or _Group(self._limit_per_client) if client else None
        if own is not None and not self._has_room(own):
            return False
        if not self._has_room(self._all):
            return False
        if client is not None and own is not None:
            self._of_client[client] = own
            self._client_of[connection] = client
        for group in self._groups(connection):
            group.open.add(connection)
            group.idle[connection] = None
        return True

    def busy(self, connection: Connection) -> None:
        """Note that a request of the connection is being answered."""
        for group in self._groups(connection):
            group.idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """Note that no request of the connection is being answered any more."""
        for group in self._groups(connection):
            if connection in group.open:
                group.idle[connection] = None

    def leave(self, connection: Connection) -> None:
        """Count a connection no more."""
        for group in self._groups(connection):
            group.open.discard(connection)
            group.idle.pop(connection, None)
        client = self._client_of.pop(connection, None)
        if client is not None and not self._of_client[client].open:
            del self._of_client[client]

    def _groups(self, connection: Connection) -> Sequence[_Group]:
        client = self._client_of.get(connection)
        return (self._all,) if client is None else (self._all, self._of_client[client])

    def _has_room(self, group: _Group) -> bool:
        """Return whether one more connection fits into the group, after the one that is idle longest was closed."""
        if len(group.open) >= group.limit and group.idle:
            oldest = next(iter(group.idle))
            self.leave(oldest)
            oldest.make_room()
        return len(group.open) < group.limit


def files_left(reserved: int) -> int:
    """Return how many connections this process may have open besides `reserved` files and SPARE_FILES."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - reserved - SPARE_FILES
