"""Helpers that several tests use: a valid payment, a gateway process, a scripted bank, ports and stores."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

import requests
import uvicorn

import store
from bank import AuthorizationRequest, BankError, NoAnswer, NoLookUp, NotReached, Refused
from handlers.contract import Contract
from server.protocol import Protocol
from store import Payment, Status
from tests.contract import record
from tests.contract.record import Record
from tests.contract.writing import CheckedProtocol, Checker

if TYPE_CHECKING:  # `make bench` uses this module too, and its environment has no pytest
    import pytest

ROOT = Path(__file__).parent.parent
CHECKED = ROOT / "tests/contract/checked.py"

AUTHORIZED_CARD = "2222405343248877"
DECLINED_CARD = "2222405343248878"
UNAVAILABLE_CARD = "2222405343248870"

# The cards for which the simulator misbehaves (docs/qa.md).
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

# The id of a payment that does not exist.
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


def valid_payment(**changes: Any) -> dict[str, Any]:
    """Return the body of a payment that the simulator authorizes, with `changes`; None removes a field."""
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


def shown_payment(payment_id: str) -> dict[str, Any]:
    """Return an authorized payment as a gateway shows it."""
    return {
        "id": payment_id,
        "status": "AUTHORIZED",
        "response_code": "10000",
        "response_summary": "Approved",
        "authorization_code": None,
        "card_last4": "8877",
        "card_scheme": "visa",
        "expiry_month": 12,
        "expiry_year": 2099,
        "currency": "GBP",
        "amount": 1050,
        "balances": {
            "total_authorized": 1050,
            "total_captured": 0,
            "total_refunded": 0,
            "total_voided": 0,
            "available_to_capture": 1050,
            "available_to_void": 1050,
            "available_to_refund": 0,
        },
        "reference": None,
        "metadata": {"order": "7"},
        "created_at": "2026-11-22T10:15:30.123456Z",
        "updated_at": "2026-11-22T10:15:30.123456Z",
    }


def authorization_request(**changes: Any) -> AuthorizationRequest:
    """Return what a bank is asked for a payment that the simulator authorizes, with `changes`."""
    values = {
        "payment_id": uuid4(),
        "merchant": "acme",
        "card_number": AUTHORIZED_CARD,
        "expiry_month": 4,
        "expiry_year": 2030,
        "currency": "GBP",
        "amount": 100,
        "cvv": "123",
        "trace": {},
        "answer_by": time.monotonic() + 60,
    }
    return AuthorizationRequest(**{**values, **changes})


async def settle_found(payment_id: UUID, status: Status, changed_by: str, note: str = "") -> Payment:
    """Settle a payment of the store that is open in this process."""
    payment = await store.find(payment_id)
    assert payment is not None
    return await store.settle(payment, status, changed_by, note)


def pending_payment(**changes: Any) -> Payment:
    """Return the record of a payment whose outcome is not known, with `changes`."""
    values = {
        "id": uuid4(),
        "merchant": "acme",
        "status": Status.PENDING,
        "card_last4": "8877",
        "expiry_month": 12,
        "expiry_year": 2099,
        "currency": "GBP",
        "amount": 1050,
        "created_at": datetime.now(UTC),
    }
    return Payment(**{**values, **changes})


def lasting(payment: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a payment, as the gateway shows it, that do not change when it is settled or acted on."""
    changing = {"status", "response_code", "response_summary", "authorization_code", "balances", "updated_at"}
    return {name: value for name, value in payment.items() if name not in changing}


def kind_of(error: BankError) -> type[BankError]:
    """Return which of the classes an error belongs to that the caller of a bank tells apart."""
    return next(kind for kind in (NotReached, Refused, NoAnswer, NoLookUp) if isinstance(error, kind))


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Poll until `condition()` is true, and fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


class Gateway:
    """A process that runs `python run.py` on a free port, with `settings` in its environment.

    The bank is the built-in simulator, by name, if the settings name no other. Every answer is checked against the
    contract (docs/qa.md); one that breaks it fails the test.

    unchecked: why answers are not checked; then the script is run.py itself, if no other is given
    answers: the file with what the check has found (tests/contract/record.py)
    banner: what the process printed when it was ready, the line `"message": "ready"` with LOG_FORMAT=json
    log: what it has written since then, to standard output and standard error
    """

    def __init__(
        self,
        *arguments: str,
        script: Path | None = None,
        cwd: Path = ROOT,
        settings: dict[str, str] | None = None,
        key: str | None = None,
        verify: str | bool = True,
        unchecked: str = "",
        **more_settings: str,
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
        self.answers = record.new_file()
        script = script or (ROOT / "run.py" if unchecked else CHECKED)
        self._environment = {
            record.FILE: str(self.answers),
            "PORT": "0",
            "LOG_FORMAT": "text",
            "BANK_URL": "simulator:",
            **environment,
            **(settings or {}),
            **more_settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=self._environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._readers = [threading.Thread(target=self._collect, args=[self.process.stderr], daemon=True)]
        self._readers[0].start()
        self.banner = self._read_banner()
        self._readers.append(threading.Thread(target=self._collect, args=[self.process.stdout], daemon=True))
        self._readers[1].start()
        found = re.search(r'API +(\S+)/payments|"api": "(\S+)/payments"', self.banner)
        if found is None:
            self._wait_for_end()
            raise AssertionError(f"the gateway did not start: {self.banner}{self.log}")
        if not (unchecked or self.answers.exists()):
            self.stop()
            raise AssertionError(f"{script} does not import tests.contract.checked")
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
        self._wait_for_end()
        self.session.close()
        record.raise_if_broken()

    @property
    def log(self) -> str:
        """Return everything that the process has written after its banner."""
        return "".join(self._lines)

    def pay(self, **changes: Any) -> requests.Response:
        return self.session.post(f"{self.api}/payments", json=valid_payment(**changes), timeout=60)

    def find(self, payment_id: str) -> requests.Response:
        return self.session.get(f"{self.api}/payments/{payment_id}", timeout=60)

    def operate(self, *arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
        """Run an operator's command with the gateway's settings."""
        port = self.api.split(":")[2].split("/")[0]
        return subprocess.run(
            [sys.executable, str(ROOT / "run.py"), "--port", port, *arguments],
            env=self._environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def connect(self) -> socket.socket:
        """Open a TCP connection, to send what no HTTP client would send."""
        host, port = self.api.split("/")[2].split(":")
        return socket.create_connection((host, int(port)), timeout=20)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Ask the gateway to stop and return its exit status."""
        self.process.send_signal(with_signal)
        return self._wait_for_end()

    def _wait_for_end(self) -> int:
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

    def _read_banner(self) -> str:
        assert self.process.stdout is not None
        banner = ""
        while "curl" not in banner and '"ready"' not in banner:
            line = self.process.stdout.readline()  # empty when the process ends; pytest's timeout bounds the wait
            if not line:
                break
            banner += line
        return banner


def workers(gateway: Gateway) -> list[int]:
    """Return the process ids of the gateway's workers."""
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


class ScriptedBank:
    """A bank that answers each request as a test's script does.

    script: called with the connection once a whole request is read; it may send any bytes, or none
    tls: with it, the bank is at https
    requests: the bytes of each request, in order of arrival
    current: its attribute `request` has, inside of a script, the request that the script answers
    """

    def __init__(self, script: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.current = threading.local()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends `accept`, which closing alone does not on Linux
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, self._secured(connection) as secured:
            while request := _read_request(secured):
                self.requests.append(request)
                self.current.request = request
                self._script(secured)

    def _secured(self, connection: socket.socket) -> socket.socket:
        return self._tls.wrap_socket(connection, server_side=True) if self._tls else connection


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
def scripted_bank(script: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[ScriptedBank]:
    """Run a `ScriptedBank` until the block ends."""
    bank = ScriptedBank(script, tls)
    try:
        yield bank
    finally:
        bank.close()


@contextlib.contextmanager
def proxy(url: str, *, lies: int, about: str = "payments") -> Iterator[ScriptedBank]:
    """Run a proxy in front of the bank at `url` until the block ends.

    It passes every request on, but answers the first `lies` payments with 503 after the bank did its work.

    about: captures, voids or refunds: the proxy lies about these in place of payments
    """

    def is_lied_about(request: bytes) -> bool:
        method, path, _ = request.split(b" ", 2)
        return method == b"POST" and path.endswith(about.encode())

    def script(connection: socket.socket) -> None:
        request = bank.requests[-1]
        head, _, body = request.partition(b"\r\n\r\n")
        method, path, _ = head.decode().split(" ", 2)
        key = re.search(r"(?i)idempotency-key: (\S+)", head.decode())
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": key[1]} if key else {})}
        answer = requests.request(method, f"{url}{path}", data=body, headers=headers, timeout=60)
        lie = is_lied_about(request) and sum(map(is_lied_about, bank.requests)) <= lies
        reply(503 if lie else answer.status_code, answer.content)(connection)

    with scripted_bank(script) as bank:
        yield bank


def reply(status: int, body: bytes, *headers: str) -> Callable[[socket.socket], None]:
    """Return a script for `ScriptedBank` that answers with this status, body and additional headers."""
    head = "\r\n".join([f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""])
    return lambda connection: connection.sendall(head.encode() + body)


@contextlib.contextmanager
def serving(app: Any, contract: Contract | None = None) -> Iterator[str]:
    """Serve an app in a thread of this process, with the protocol of run.py, and yield the URL of its API.

    contract: what every answer is checked against; None if none is
    """
    protocol: Any = Protocol
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        if contract is not None:
            answers = opened.enter_context(contextlib.closing(Record(record.new_file())))
            protocol = partial(CheckedProtocol, checker=Checker(contract, answers))
        options = uvicorn.Config(
            app, http=protocol, ws="none", lifespan="on", log_config=None, access_log=False, server_header=False
        )
        server = uvicorn.Server(options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"
        finally:
            server.should_exit = True
            thread.join(20)


def store_url(kind: str, folder: Path, request: "pytest.FixtureRequest") -> str:
    """Return a STORE_URL of an empty store of this kind: memory, sqlite (in `folder`) or postgresql."""
    if kind == "memory":
        return "memory:"
    if kind == "sqlite":
        return f"sqlite:///{folder / 'payments.db'}"
    url: str = request.getfixturevalue("postgresql").new_database()
    return url


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """Yield a port that is held until the block ends; afterwards nothing listens on it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def answers(url: str) -> bool:
    """Return whether a server answers at this URL within 5 s."""
    try:
        requests.get(url, timeout=5)
    except requests.RequestException:
        return False
    return True
