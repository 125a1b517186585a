"""What the tests share: a valid payment, a gateway started the way a user starts it, a scripted bank."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self

import pytest
import requests
import uvicorn

from server.protocol import Protocol

ROOT = Path(__file__).parent.parent

AUTHORIZED_CARD = "2222405343248877"
DECLINED_CARD = "2222405343248878"
UNAVAILABLE_CARD = "2222405343248870"

# The simulator's cards that misbehave (README.md).
SLOW = "4000000000000101"
SILENT = "4000000000000119"
DROPPED = "4000000000000127"
GARBAGE = "4000000000000135"
REFUSED = "4000000000000143"
FAILED = "4000000000000150"
DRIPPING = "4000000000000168"
NOT_A_BOOLEAN = "4000000000000176"
OVERSIZED = "4000000000000184"
REDIRECT = "4000000000000192"
ACCEPTED = "4000000000000209"
DROPPED_BEFORE = "4000000000000218"

# A payment that there is none of.
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


def valid_payment(**changes: Any) -> dict[str, Any]:
    """Return the body of a payment that the simulator authorizes, with `changes`; None takes a field out."""
    payment = {
        "card_number": AUTHORIZED_CARD,
        "expiry_month": 12,
        "expiry_year": 2099,
        "currency": "GBP",
        "amount": 1050,
        "cvv": "123",
        **changes,
    }
    return {name: value for name, value in payment.items() if value is not None}


def wait_until(true: Callable[[], object], seconds: float = 10) -> None:
    """Poll until `true()`, and fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


class Gateway:
    """`python run.py` as a process of its own, on a free port, with `settings` in its environment."""

    def __init__(
        self,
        *arguments: str,
        script: Path = ROOT / "run.py",
        cwd: Path = ROOT,
        settings: dict[str, str] | None = None,
        key: str | None = None,
        verify: str | bool = True,
        **more_settings: str,
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={"PORT": "0", "LOG_FORMAT": "text", **environment, **(settings or {}), **more_settings},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._readers = [threading.Thread(target=self._collect, args=[self.process.stderr], daemon=True)]
        self._readers[0].start()
        self.told = self._read_until_ready()
        self._readers.append(threading.Thread(target=self._collect, args=[self.process.stdout], daemon=True))
        self._readers[1].start()
        found = re.search(r'API +(\S+)/payments|"api": "(\S+)/payments"', self.told)
        if found is None:
            self._ended()
            raise AssertionError(f"the gateway did not start: {self.told}{self.log}")
        self.api = found[1] or found[2]
        self.root = self.api.removesuffix("/api/v1")
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = verify
        if key is not None:
            self.session.headers["Authorization"] = f"Bearer {key}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self._ended()
        self.session.close()

    @property
    def log(self) -> str:
        """Everything written so far, after what it said when it was ready."""
        return "".join(self._lines)

    def pay(self, **changes: Any) -> requests.Response:
        return self.session.post(f"{self.api}/payments", json=valid_payment(**changes), timeout=60)

    def find(self, payment_id: str) -> requests.Response:
        return self.session.get(f"{self.api}/payments/{payment_id}", timeout=60)

    def connect(self) -> socket.socket:
        """Open a bare connection, for what no HTTP client would send."""
        host, port = self.api.split("/")[2].split(":")
        return socket.create_connection((host, int(port)), timeout=20)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Ask the gateway to stop and return its exit status."""
        self.process.send_signal(with_signal)
        return self._ended()

    def _ended(self) -> int:
        status = self.process.wait(60)
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status

    def _collect(self, stream: IO[str]) -> None:
        with contextlib.suppress(ValueError):
            for line in stream:
                self._lines.append(line)

    def _read_until_ready(self) -> str:
        assert self.process.stdout is not None
        told = ""
        while "curl" not in told and '"ready"' not in told:
            line = self.process.stdout.readline()  # empty when the process ends; pytest's timeout does the rest
            if not line:
                break
            told += line
        return told


class ScriptedBank:
    """A bank on a bare socket that does exactly what a test says, once for each request it gets.

    `script` is called with the connection after the whole request was read. `requests` are the
    requests' bytes in order of arrival.
    """

    def __init__(self, script: Callable[[socket.socket], None]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while request := _read_request(connection):
                self.requests.append(request)
                self._script(connection)


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length is not None and len(body) < int(length[1]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def scripted_bank(script: Callable[[socket.socket], None]) -> Iterator[ScriptedBank]:
    bank = ScriptedBank(script)
    try:
        yield bank
    finally:
        bank.close()


def reply(status: int, body: bytes, *headers: str) -> Callable[[socket.socket], None]:
    """Return a script that answers with this status, body and further headers."""
    head = "\r\n".join([f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""])
    return lambda connection: connection.sendall(head.encode() + body)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an app of this process, as run.py does, and yield the URL of its API."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = uvicorn.Config(app, http=Protocol, ws="none", lifespan="on", log_config=None, access_log=False)
        server = uvicorn.Server(options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"
        finally:
            server.should_exit = True
            thread.join(20)


def store_url(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty store: memory, sqlite in `folder`, or a new database in postgresql."""
    if kind == "memory":
        return "memory:"
    if kind == "sqlite":
        return f"sqlite:///{folder / 'payments.db'}"
    url: str = request.getfixturevalue("postgresql").new_database()
    return url


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """Yield a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def answers(url: str) -> bool:
    """Whether anything answers there."""
    try:
        requests.get(url, timeout=5)
    except requests.ConnectionError:
        return False
    return True
