"""The acquiring bank of a chaos run: a simulator behind a proxy that makes some payments go wrong.

The bank itself keeps its promises, and its ledger is true. The proxy draws a fault for a payment when it sees its id
for the first time: it answers 503 after the bank did its work, passes the request on late, answers late, or sends a
second reply that belongs to no request. The gateways reach the proxy over TLS, because a stray reply hides best there.
"""

import contextlib
import json
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import requests
import trustme

from bank.simulator import Simulator

# Faults of the proxy, by the name of the option that leaves them out.
FAULTS: Final = {
    "lies": ["503 after the work"],
    "late": ["late decision", "late answer"],
    "strays": ["stray in the same packet", "stray a moment later"],
}

# How often a payment has a fault.
SHARE: Final = 0.25

# Seconds that the proxy is late. BANK_TIMEOUT_S is 0.5 in a chaos run, and the resolver first asks after 2.
LATE_S: Final = (0.3, 8.0)

# Attempts for one payment that are answered with 503. A call makes three.
LIES: Final = (1, 7)

# A reply with its head is made as large as the buffer of Python's readers: what follows it stays in OpenSSL.
PADDED_BYTES: Final = 8192

# Seconds to wait for the simulator, which does not answer some cards.
FORWARD_S: Final = 2.0


class FaultyBank:
    """A bank that listens on `url` as soon as it is created.

    faults: the names in `FAULTS` to draw from
    counts: how often each fault was drawn
    """

    def __init__(self, authority: trustme.CA, faults: Sequence[str], seed: int) -> None:
        self._faults = [fault for name in FAULTS if name in faults for fault in FAULTS[name]]
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._drawn: dict[str, str | None] = {}
        self._lies: Counter[str] = Counter()
        self._held: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._simulator = Simulator(latency_s=0.02)
        self._simulator.start()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self._server = _Server(self, context)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def ledger(self) -> dict[str, dict[str, Any]]:
        """Return the bank's decisions by payment id."""
        ledger: dict[str, dict[str, Any]] = requests.get(f"{self._simulator.url}/ledger", timeout=30).json()
        return ledger

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._simulator.stop()

    def fault_of(self, payment_id: str) -> str | None:
        """Return the fault of a payment, which is the same for every attempt, until the proxy has lied often enough."""
        with self._lock:
            if payment_id not in self._drawn:
                drawn = self._rng.choice(self._faults) if self._faults and self._rng.random() < SHARE else None
                self._drawn[payment_id] = drawn
                self._lies[payment_id] = self._rng.randint(*LIES)
                self.counts.update([drawn] if drawn else [])
            if self._drawn[payment_id] == "503 after the work":
                self._lies[payment_id] -= 1
                return None if self._lies[payment_id] < 0 else "503 after the work"
            return self._drawn[payment_id]

    def wait(self, longest_s: float | None = None) -> None:
        """Wait as long as the proxy is late."""
        with self._lock:
            seconds = self._rng.uniform(0, longest_s) if longest_s else self._rng.uniform(*LATE_S)
        time.sleep(seconds)

    @contextlib.contextmanager
    def holding(self, payment_id: str) -> Any:
        """Hold a request: while it is on its way, the bank knows nothing of the payment and promises nothing."""
        self._held.add(payment_id)
        try:
            yield
        finally:
            self._held.discard(payment_id)

    def is_held(self, payment_id: str) -> bool:
        return payment_id in self._held

    def forward(self, method: str, path: str, body: bytes, payment_id: str | None) -> tuple[int, bytes]:
        """Pass a request on to the simulator. Raises `requests.RequestException` when it does not answer."""
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": payment_id} if payment_id else {})}
        with requests.Session() as session:
            session.trust_env = False
            url = f"{self._simulator.url}{path}"
            answer = session.request(method, url, data=body, headers=headers, timeout=FORWARD_S, allow_redirects=False)
        return answer.status_code, answer.content


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, bank: FaultyBank, context: ssl.SSLContext) -> None:
        self.bank, self.context = bank, context
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """A gateway that was killed or gave up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def do_GET(self) -> None:
        asked = self.path.rpartition("/")[2]
        if self.server.bank.is_held(asked):
            name = "action_id" if "/actions/" in self.path else "payment_id"
            self._answer(200, json.dumps({name: asked, "status": "unknown"}).encode())
        else:
            self._answer(*self.server.bank.forward("GET", self.path, b"", None))

    def do_POST(self) -> None:
        bank = self.server.bank
        payment_id = self.headers["Idempotency-Key"]  # or the id of an action
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = bank.fault_of(payment_id)
        if fault == "late decision":
            with bank.holding(payment_id):
                bank.wait()
        status, answer = bank.forward("POST", self.path, body, payment_id)
        if fault == "late answer":
            bank.wait()
        if fault == "503 after the work":
            self._answer(503, b"")
        elif fault == "stray in the same packet" and status == 200:
            self._answer(200, answer, behind=_message(200, _contrary(answer, with_id=False)), padded=True)
        elif fault == "stray a moment later" and status == 200:
            self._answer(status, answer)
            bank.wait(0.05)
            # It may arrive after the next request on the connection. Only the id says then that it is not its answer.
            self.wfile.write(_message(200, _contrary(answer, with_id=True)))
        else:
            self._answer(status, answer)

    def _answer(self, status: int, body: bytes, *, behind: bytes = b"", padded: bool = False) -> None:
        message = _message(status, body)
        if padded:
            length = PADDED_BYTES - len(message) + len(body)
            message = _message(status, body.ljust(length))
            message = _message(status, body.ljust(length - len(message) + PADDED_BYTES))
        self.wfile.write(message + behind)

    def log_message(self, *_: object) -> None:
        """Be quiet: the report has the counts."""


def _message(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


def _contrary(answer: bytes, *, with_id: bool) -> bytes:
    """Return the answer with the other decision."""
    decision = json.loads(answer)
    contrary = {name: not value for name, value in decision.items() if name in {"authorized", "approved"}}
    ids = {name: value for name, value in decision.items() if name in {"payment_id", "action_id"} and with_id}
    return json.dumps({**contrary, "authorization_code": "x", **ids}).encode()
