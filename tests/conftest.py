"""Fixtures that several folders of tests need."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests import machine, postgres, state
from tests.contract import record
from tests.support import Gateway, store_url

pytest_plugins = ["tests.contract.session"]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Every test begins with the state of modules and process as it was before the first."""
    with state.restored():
        yield
    record.raise_if_broken()


@pytest.fixture(autouse=True)
def _machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test marked `alone` runs while no other process of the run runs a test."""
    alone = request.node.get_closest_marker("alone") is not None
    with machine.use(tmp_path_factory.getbasetemp().parent, alone=alone):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with tests marked `alone` last: then no long test makes them, and those behind them, wait."""
    last = {item.path for item in items if item.get_closest_marker("alone")}
    items.sort(key=lambda item: item.path in last)


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """One gateway with the built-in simulator for the whole run; a test that changes its state starts its own."""
    with Gateway(BANK_TIMEOUT_S="3", LOG_LEVEL="DEBUG") as running:
        yield running


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Issues certificates that nobody but the tests trusts."""
    return trustme.CA()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.Postgres]:
    """One server for the whole run; each test takes a database of its own."""
    with postgres.running() as server:
        yield server


@pytest.fixture
def own_postgresql() -> Iterator[postgres.Postgres]:
    """A server of the test's own, to stop and start."""
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    return store_url(request.param, tmp_path, request)
