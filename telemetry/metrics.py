"""What is measured, for Prometheus; and the port that it is served on.

With several workers each writes its figures into files of a folder of their own, which prometheus_client
adds up (its "multiprocess mode"); the process that started them serves the sum.
"""

import contextlib
import os
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import REGISTRY, Collector

# By this variable prometheus_client knows, when it is imported, that there are several processes.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

# Seconds. A bank takes from tens of milliseconds to BANK_TIMEOUT_S, 10 by default.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0)

REQUESTS: Final = Counter(
    "payment_gateway_requests_total", "Requests answered, by operation and status.", ["operation", "status"]
)
REQUEST_SECONDS: Final = Histogram(
    "payment_gateway_request_seconds", "From a request's head to the answer's.", ["operation"], buckets=_BUCKETS
)
BANK_SECONDS: Final = Histogram("payment_gateway_bank_seconds", "What a payment took at the bank.", buckets=_BUCKETS)
PAYMENTS: Final = Counter(
    "payment_gateway_payments_total", "Payments made, by how they were answered.", ["outcome", "currency"]
)
RESOLVED: Final = Counter("payment_gateway_resolved_total", "PENDING payments that were ended later.", ["outcome"])
BANK_IN_FLIGHT: Final = Gauge(
    "payment_gateway_bank_in_flight", "Calls under way at the bank.", multiprocess_mode="livesum"
)
BANK_QUEUED: Final = Gauge(
    "payment_gateway_bank_queued", "Calls that wait for a place at the bank.", multiprocess_mode="livesum"
)
SHED: Final = Counter("payment_gateway_shed_total", "Payments refused because too many were under way.")
BANK_RETRIES: Final = Counter("payment_gateway_bank_retries_total", "Further attempts of calls to the bank.")
BREAKER_STATE: Final = Gauge(
    "payment_gateway_breaker_state", "0 closed, 1 half-open, 2 open.", multiprocess_mode="livemax"
)
PENDING: Final = Gauge(
    "payment_gateway_pending_payments",
    "PENDING payments that are in doubt.",
    multiprocess_mode="mostrecent",
)
PENDING_AGE: Final = Gauge(
    "payment_gateway_pending_oldest_age_seconds", "The age of the oldest of them.", multiprocess_mode="mostrecent"
)


class _Workers(Collector):
    """The sum over the workers. What one that died had under way is no longer under way."""

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

    workers_folder: where the workers write theirs, if there are several
    """
    registry = REGISTRY
    if workers_folder is not None:
        registry = CollectorRegistry()
        registry.register(_Workers(workers_folder))
    server, _ = start_http_server(port, host, registry)
    return server.server_port
