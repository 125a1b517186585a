"""How many connections there may be, and which is closed for a new one."""

import asyncio
import socket
from ipaddress import ip_network
from typing import Any

import pytest

from server.connections import Clients, Connection, Connections
from server.listener import Listener

PROXIES = [ip_network("10.0.0.0/8")]


class Noting(Connection):
    """A connection that notes whether it had to make room."""

    made_room = False

    def make_room(self) -> None:
        self.made_room = True


def connections(limit: int = 100, limit_per_client: int = 100) -> Connections:
    return Connections(limit, limit_per_client, Clients(PROXIES))


def entered(counted: Connections, host: str) -> Noting:
    connection = Noting()
    assert counted.enter(connection, host)
    return connection


def test_the_connection_that_is_idle_longest_makes_room() -> None:
    """Idle begins with the connection, and anew with the end of each request."""
    counted = connections(limit=3)
    first, second, third = (entered(counted, f"192.0.2.{number}") for number in (1, 2, 3))
    counted.busy(first)
    counted.idle(first)
    entered(counted, "192.0.2.4")
    assert (first.made_room, second.made_room, third.made_room) == (False, True, False)
    entered(counted, "192.0.2.5")
    assert (first.made_room, third.made_room) == (False, True)
    entered(counted, "192.0.2.6")
    assert first.made_room


def test_a_connection_with_a_request_in_progress_never_makes_room() -> None:
    """If none is idle, the new one is refused, until one leaves."""
    counted = connections(limit=2)
    both = [entered(counted, "192.0.2.1") for _ in range(2)]
    for connection in both:
        counted.busy(connection)
    assert not counted.enter(Noting(), "192.0.2.2")
    assert not any(connection.made_room for connection in both)
    counted.leave(both[0])
    entered(counted, "192.0.2.2")


@pytest.mark.parametrize("hosts", [["192.0.2.1"] * 3, ["2001:db8::1", "2001:db8::2", "2001:db8::3"]], ids=["4", "6"])
def test_a_client_has_a_limit_of_its_own(hosts: list[str]) -> None:
    """Its own connections make room, not another client's that is idle for longer."""
    counted = connections(limit_per_client=2)
    other = entered(counted, "198.51.100.1")
    first, second, third = (entered(counted, host) for host in hosts)
    assert (first.made_room, second.made_room, other.made_room) == (True, False, False)
    counted.busy(second)
    counted.busy(third)
    assert not counted.enter(Noting(), hosts[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.9", "10.1.2.3", "::ffff:10.1.2.3"])
def test_loopback_and_proxies_have_the_limit_of_all_only(host: str) -> None:
    """Their connections are those of many clients."""
    counted = connections(limit=5, limit_per_client=2)
    five = [entered(counted, host) for _ in range(5)]
    assert not any(connection.made_room for connection in five)
    entered(counted, host)
    assert five[0].made_room


def test_nothing_is_kept_of_connections_that_left() -> None:
    """Also of clients that come and go, and of those that end while they make room."""
    counted = connections(limit=2, limit_per_client=1)
    for number in range(200):
        connection = entered(counted, f"192.0.2.{number}")
        counted.busy(connection)
        counted.idle(connection)
        counted.leave(connection)
        counted.idle(connection)
    assert (counted._of_client, counted._client_of, counted._all.open, counted._all.idle) == ({}, {}, set(), {})


def test_few_connections_are_accepted_in_one_turn() -> None:
    """A burst of connections does not hold the event loop."""
    turns: list[int] = []

    class Refusing:
        def admit(self, _host: str) -> bool:
            turns[-1] += 1
            return False

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            make_protocol: Any = Refusing
            listener = Listener(listening, make_protocol, None)
            clients = [socket.create_connection(listening.getsockname()) for _ in range(50)]
            turns.append(0)
            while sum(turns) < 50:
                await asyncio.sleep(0)
                turns.append(0)
            listener.close()
            for client in clients:
                assert client.recv(1) == b""
                client.close()

    asyncio.run(scenario())
    assert max(turns) <= 8
