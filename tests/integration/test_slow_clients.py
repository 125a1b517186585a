"""Clients that hold connections open, on purpose or not: each is cut off, and no other client is delayed."""

import contextlib
import itertools
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import trustme

from tests.support import ROOT, Gateway

# Seconds that a connection may be held, and that a response to another client may take meanwhile.
CUT_OFF_S = 30
ANSWER_S = 3

DRIP_S = 1

BODY = "Host: localhost\r\nContent-Length: 10000\r\n"
CHUNKED = "Host: localhost\r\nTransfer-Encoding: chunked\r\n"
JSON = "Content-Type: application/json\r\n"

# What the clients send at once, and then every DRIP_S. Some send a body that the gateway reads, others one that it
# does not need for its answer.
IDLE = {"idle": ("", "")}
HEADS = {
    "method": ("", "G"),
    "path": ("GET /", "x"),
    "header": ("GET / HTTP/1.1\r\nX: ", "x"),
}
BODIES = {
    "payment": (f"POST /api/v1/payments HTTP/1.1\r\n{JSON}{BODY}\r\n", " "),
    "chunks": (f"POST /api/v1/payments HTTP/1.1\r\n{JSON}{CHUNKED}\r\n", "1\r\n \r\n"),
    "trailers": (f"POST /api/v1/payments HTTP/1.1\r\n{JSON}{CHUNKED}\r\n0\r\nX: ", "x"),
    "too large": (f"POST /api/v1/payments HTTP/1.1\r\n{JSON}Host: localhost\r\nContent-Length: 100000\r\n\r\n", " "),
    "wrong type": (f"POST /api/v1/payments HTTP/1.1\r\n{BODY}\r\n", " "),
    "nothing there": (f"POST /nothing HTTP/1.1\r\n{BODY}\r\n", " "),
    "unasked for": (f"GET /health/live HTTP/1.1\r\n{BODY}\r\n", " "),
}
BLANKS = {"blank lines": ("GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", "\r\n")}

LARGE = "GET /api/v1/ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
SMALL = "GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Client:
    """A held connection. A client that never reads notices only when it sends that it was cut off."""

    def __init__(self, gateway: Gateway, kind: str, first: str, drip: str, *, reads: bool = True) -> None:
        self.kind = kind
        self._drip = drip.encode()
        self._reads = reads
        self._connection = socket.socket()
        if not reads:
            # The kernel buffers as little as possible on both ends.
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        host, port = gateway.root.removeprefix("http://").split(":")
        self._started = time.monotonic()
        self._connection.connect((host, int(port)))
        self._connection.sendall(first.encode())
        self._connection.setblocking(False)
        self._ended: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @property
    def is_held(self) -> bool:
        return self._ended is None

    @property
    def held_s(self) -> float:
        """Seconds from the connection's start to its end, or to now."""
        return (self._ended or time.monotonic()) - self._started

    def proceed(self) -> None:
        """Send the next bytes, and read what has arrived."""
        if self._ended is not None:
            return
        try:
            if self._drip:
                self._connection.send(self._drip)
            while self._reads:
                if not self._connection.recv(65536):
                    raise ConnectionResetError
        except BlockingIOError:
            pass
        except ConnectionError:
            self._ended = time.monotonic()


def clients(gateway: Gateway) -> Iterator[Client]:
    """Connect 500 clients that are slow in different ways, and a few that never read."""
    for kinds, count in ((IDLE, 166), (HEADS, 167), (BODIES, 167), (BLANKS, 5)):
        for (kind, (first, drip)), _ in zip(itertools.cycle(kinds.items()), range(count), strict=False):
            yield Client(gateway, kind, first, drip)
    for _ in range(5):
        yield Client(gateway, "reads nothing", LARGE * 50, "\r\n", reads=False)
    # With some of these counts the last responses overflow the kernel's buffers but do not fill the gateway's own.
    for count in range(1, 17):
        yield Client(gateway, f"reads nothing of {count}", SMALL * count, "\r\n", reads=False)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise this process's limit of open files to what the test needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_500_slow_clients_are_cut_off_and_delay_no_other_client() -> None:
    """Each is cut off within CUT_OFF_S, and all the while payments and reads are answered within ANSWER_S."""
    with Gateway() as gateway, contextlib.ExitStack() as connections:
        held = [connections.enter_context(each) for each in clients(gateway)]
        started, took_s = time.monotonic(), []
        while any(each.is_held for each in held) and time.monotonic() - started < CUT_OFF_S:
            asked = time.monotonic()
            paid = gateway.pay()
            assert gateway.find(paid.json()["id"]).json()["status"] == "AUTHORIZED"
            took_s.append(time.monotonic() - asked)
            for each in held:
                each.proceed()
            if len(took_s) == 1:
                assert all(each.is_held for each in held), "all are connected at the same time"
            time.sleep(max(0, asked + DRIP_S - time.monotonic()))
        late = Counter(each.kind for each in held if each.is_held or each.held_s > CUT_OFF_S)
        assert late == Counter()
        assert max(took_s) < ANSWER_S
        gateway.stop()
        assert "Traceback" not in gateway.log


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("https", [False, True], ids=["http", "https"])
def test_1000_idle_connections_leave_files_for_payments(authority: trustme.CA, tmp_path: Path, *, https: bool) -> None:
    """With a limit of 1024 open files, each payment is made on a new connection. TLS handshakes may be idle, too."""
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = {"TLS_CERT": str(tmp_path / "cert.pem"), "TLS_KEY": str(tmp_path / "key.pem")} if https else {}
    script = ROOT / "tests/integration/few_files.py"
    with (
        Gateway(script=script, settings=tls, verify=str(tmp_path / "ca.pem")) as gateway,
        contextlib.ExitStack() as idle,
    ):
        for _ in range(1000):
            idle.enter_context(gateway.connect())
        for _ in range(20):
            gateway.session.close()
            assert gateway.pay().status_code == 201
        assert gateway.session.get(f"{gateway.root}/health/ready", timeout=10).status_code == 200
        files = len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))
        assert files < 1024 - 128, "files are left for the bank"


def test_connections_that_made_room_do_not_delay_a_stop() -> None:
    """20 clients connect where 6 may be connected; the gateway forgets all that it closed."""
    with Gateway(MAX_CONNECTIONS="6") as gateway, contextlib.ExitStack() as connections:
        for _ in range(20):
            connections.enter_context(gateway.connect())
        assert gateway.pay().status_code == 201
        connections.close()
        started = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - started < 10
        assert " ERROR " not in gateway.log
