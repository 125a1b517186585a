"""Fixtures that several folders of tests need."""

from collections.abc import Iterator

import pytest

import bank
import store
from tests.support import Gateway


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Modules that hold state are as new for every test."""
    yield
    bank.close()
    store.close()


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """One gateway with the built-in simulator for the whole run; a test that changes its state starts its own."""
    with Gateway(BANK_TIMEOUT_S="3", LOG_LEVEL="DEBUG") as running:
        yield running
