"""Fixtures that several files of this folder need."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from bank.simulator import Simulator
from tests import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser of the file's own."""
    with chromium.running() as running:
        yield running


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """A bank of the file's own, whose ledger shows what it decided."""
    running = Simulator()
    running.start()
    yield running
    running.stop()
