"""The private and undocumented names of libraries that the gateway relies on (docs/decisions/private-names.md)."""

import asyncio
import logging
import multiprocessing
import re
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Final

import pytest
import requests
import uvicorn
from urllib3 import PoolManager
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from bank import breaker, client, deadline, simulator
from server import uvicorn_server
from server.middleware.cors import Cors
from server.middleware.routing import Routing
from server.protocol import Protocol
from telemetry import logs, metrics
from tests.support import DROPPED_BEFORE, ROOT, valid_payment

PAGE = (ROOT / "docs/decisions/private-names.md").read_text()

# Our subclasses of classes of libraries.
SUBCLASSES: Final = (
    Protocol,
    uvicorn_server.Loop,
    uvicorn_server.Server,
    uvicorn_server.Workers,
    Routing,
    Cors,
    client._Adapter,
    client._Retry,
    deadline._HTTPConnection,
    breaker._Listener,
    simulator._Protocol,
    metrics._Server,
    metrics._Handler,
)


@pytest.mark.parametrize("subclass", SUBCLASSES, ids=lambda subclass: subclass.__qualname__)
def test_each_overridden_method_exists_in_the_library(subclass: type) -> None:
    """A method whose name is gone from the library would never be called, and nothing would report it."""
    overridden = {name for name, value in vars(subclass).items() if callable(value) or isinstance(value, property)}
    methods = {name for name in overridden if not name.startswith("_")}
    inherited = {name for base in subclass.__mro__[1:] for name in vars(base)}
    assert methods <= inherited


def test_the_attributes_that_select_our_connections_exist_in_urllib3() -> None:
    """urllib3 would go on with its own connections, which have no deadline, if it read other attributes."""
    for pool in (deadline._HTTPPool, deadline._HTTPSPool):
        assert "ConnectionCls" in vars(pool.__mro__[1])
    assert "pool_classes_by_scheme" in vars(PoolManager())


def test_uvicorn_logs_malformed_requests_where_logs_expects_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each malformed request would be a line on standard error."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    levels = {logger: logger.level for logger in map(logging.getLogger, ("", "gateway", "uvicorn.error"))}

    async def protocol() -> HttpToolsProtocol:
        return HttpToolsProtocol(uvicorn.Config(_app, ws="none", log_config=None), ServerState(), {})

    logs.configure("DEBUG", "json")
    try:
        logger = asyncio.run(protocol()).logger
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
    finally:
        logs.close()
        for changed, level in levels.items():
            changed.setLevel(level)


async def _app(_scope: object, _receive: object, _send: object) -> None:
    """Answer nothing."""


def test_the_simulator_resets_a_connection() -> None:
    """It finds the connection through uvicorn's protocol and a2wsgi's environment."""
    simulated = simulator.Simulator()
    simulated.start()
    try:
        with pytest.raises(requests.ConnectionError):
            requests.post(
                f"{simulated.url}/payments",
                json=valid_payment(card_number=DROPPED_BEFORE, expiry_date="12/2099"),
                timeout=10,
            )
    finally:
        simulated.stop()


def _finalize(path: Path) -> None:
    Finalize(None, path.touch, exitpriority=0)


def test_multiprocessing_calls_finalizers_at_the_end_of_a_process(tmp_path: Path) -> None:
    """A worker writes its last log lines there: multiprocessing skips atexit in the processes that it starts."""
    process = multiprocessing.get_context("spawn").Process(target=_finalize, args=[tmp_path / "finalized"])
    process.start()
    process.join(30)
    assert (tmp_path / "finalized").exists()


def test_the_page_names_the_versions_that_are_pinned() -> None:
    """After an update, each entry of the page has to be checked again."""
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    named = dict(re.findall(r"^## ([\w.-]+) ([\d.]+)$", PAGE, re.MULTILINE))
    assert named, "the headings of the page have a library and its version"
    assert {name: pins[name.lower()] for name in named} == named
