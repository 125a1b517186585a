"""The metrics for Prometheus, and the server of /metrics.

The server of prometheus_client starts a thread for each connection, without limits of number and time. Ours has both.

With several workers each one writes its values into files in a common folder ("multiprocess mode" of
prometheus_client). The process that started the workers adds them up and serves the sum.
"""

import contextlib
import os
import socket
import threading
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import REGISTRY, Collector

# prometheus_client reads this variable when it is imported; if it is set, there are several processes.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

# Connections to the server of /metrics at once, and seconds that each may take. Prometheus needs one, for milliseconds.
MAX_CONNECTIONS: Final = 8
CONNECTION_S: Final = 10.0

# Seconds. A bank takes from tens of milliseconds to BANK_TIMEOUT_S, which is 10 by default.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0)

REQUESTS: Final = Counter(
    "payment_gateway_requests_total", "Requests answered, by operation and status.", ["operation", "status"]
)
REQUEST_SECONDS: Final = Histogram(
    "payment_gateway_request_seconds",
    "Seconds from a request's head to its response's head, by operation.",
    ["operation"],
    buckets=_BUCKETS,
)
BANK_SECONDS: Final = Histogram(
    "payment_gateway_bank_seconds",
    "Seconds that payments took at the bank, without the wait for a slot.",
    buckets=_BUCKETS,
)
PAYMENTS: Final = Counter(
    "payment_gateway_payments_total",
    "Payments, by the outcome of their first response and by currency.",
    ["outcome", "currency"],
)
ACTIONS: Final = Counter(
    "payment_gateway_actions_total",
    "Captures, voids and refunds, by type and by the outcome of their first response.",
    ["type", "outcome"],
)
RESOLVED: Final = Counter(
    "payment_gateway_resolved_total",
    "Payments that were PENDING and that the resolver settled, by outcome.",
    ["outcome"],
)
CONFLICTS: Final = Counter(
    "payment_gateway_conflicts_total", "Answers of the bank that contradicted what was recorded as final."
)
CLOCK_OFFSET: Final = Gauge(
    "payment_gateway_clock_offset_seconds",
    "Seconds by which the gateway's clock is ahead of the database's.",
    multiprocess_mode="mostrecent",
)
BANK_IN_FLIGHT: Final = Gauge(
    "payment_gateway_bank_in_flight", "Calls to the bank in progress.", multiprocess_mode="livesum"
)
BANK_QUEUED: Final = Gauge(
    "payment_gateway_bank_queued", "Calls to the bank that wait for a slot.", multiprocess_mode="livesum"
)
SHED: Final = Counter("payment_gateway_shed_total", "Payments refused because too many were in progress.")
BANK_RETRIES: Final = Counter("payment_gateway_bank_retries_total", "Repeated attempts of calls to the bank.")
BREAKER_STATE: Final = Gauge(
    "payment_gateway_breaker_state",
    "State of the bank's circuit: 0 closed, 1 half-open, 2 open.",
    multiprocess_mode="livemax",
)
MERCHANT_CIRCUITS_OPEN: Final = Gauge(
    "payment_gateway_merchant_circuits_open",
    "Merchants whose circuit is open or half-open.",
    multiprocess_mode="livemax",
)
RATE_LIMIT_UNCOUNTED: Final = Counter(
    "payment_gateway_rate_limit_uncounted_total",
    "Requests that were not limited because RATE_LIMIT_STORE did not answer.",
)
LOG_LINES_LOST: Final = Counter(
    "payment_gateway_log_lines_lost_total", "Log lines that were not written because nothing read the log."
)
PENDING: Final = Gauge(
    "payment_gateway_pending_payments",
    "Unresolved payments and actions.",
    multiprocess_mode="mostrecent",
)
PENDING_AGE: Final = Gauge(
    "payment_gateway_pending_oldest_age_seconds",
    "Age of the oldest unresolved payment or action in seconds.",
    multiprocess_mode="mostrecent",
)


class _Workers(Collector):
    """Adds up the workers' metrics. The calls in progress of a worker that died no longer count."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._sum = MultiProcessCollector(CollectorRegistry(), path=folder)

    def collect(self) -> Any:
        for file in Path(self._folder).glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                with contextlib.suppress(FileNotFoundError):  # another scrape was faster
                    mark_process_dead(pid, self._folder)
        return self._sum.collect()


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread, at most MAX_CONNECTIONS at once, and ends it after CONNECTION_S."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        end = threading.Timer(CONNECTION_S, _cut_off, [request])
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._free.release()

    def handle_error(self, *_: Any) -> None:
        """Print nothing: a client that is gone is no error."""


def _cut_off(connection: socket.socket) -> None:
    """End a connection, and with it the thread that waits for it."""
    with contextlib.suppress(OSError):  # it has ended
        connection.shutdown(socket.SHUT_RDWR)


def serve(host: str, port: int, workers_folder: str | None = None) -> WSGIServer:
    """Serve /metrics in a thread, and return the server. Raises `OSError`.

    workers_folder: the folder that several workers write their metrics to, None with one worker
    """
    registry = REGISTRY
    if workers_folder is not None:
        registry = CollectorRegistry()
        registry.register(_Workers(workers_folder))
    server = _Server(host, port)
    server.set_app(make_wsgi_app(registry))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
