"""The metrics for Prometheus, and the server of /metrics.

With several workers each one writes its values into files in a common folder ("multiprocess mode" of
prometheus_client). The process that started the workers adds them up and serves the sum.
"""

import contextlib
import os
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import REGISTRY, Collector

# prometheus_client reads this variable when it is imported; if it is set, there are several processes.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

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
    "Unresolved payments.",
    multiprocess_mode="mostrecent",
)
PENDING_AGE: Final = Gauge(
    "payment_gateway_pending_oldest_age_seconds",
    "Age of the oldest unresolved payment in seconds.",
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


def serve(host: str, port: int, workers_folder: str | None = None) -> int:
    """Serve /metrics in a thread, and return the port. Raises `OSError`.

    workers_folder: the folder that several workers write their metrics to, None with one worker
    """
    registry = REGISTRY
    if workers_folder is not None:
        registry = CollectorRegistry()
        registry.register(_Workers(workers_folder))
    server, _ = start_http_server(port, host, registry)
    return server.server_port
