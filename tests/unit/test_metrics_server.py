"""The server of /metrics serves a bounded number of connections, each for a bounded time."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
import requests

from telemetry import metrics
from tests.support import wait_until


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server whose connections may take 3 seconds."""
    monkeypatch.setattr(metrics, "CONNECTION_S", 3.0)
    server = metrics.serve("127.0.0.1", 0)
    yield server.server_port
    server.shutdown()
    server.server_close()


def scrape(port: int) -> bool:
    """Return whether the server answers with the metrics."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
    except requests.ConnectionError:
        return False
    return "payment_gateway_requests_total" in answer.text


def test_slow_clients_hold_no_more_than_a_few_threads_and_not_for_long(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The surplus is closed at once; clients that send a byte now and then are cut off like those that send none."""
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            for _ in range(metrics.MAX_CONNECTIONS)
        ]
        for client in slow:
            client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        wait_until(lambda: not scrape(port))

        def drip() -> bool:
            with contextlib.suppress(ConnectionError):
                slow[0].sendall(b"x")
            return scrape(port)

        wait_until(drip)
        for client in slow[1:]:
            assert client.recv(1000) == b""
    assert capfd.readouterr().err == ""
