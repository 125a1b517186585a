"""A test leaves nothing behind that another test could depend on."""

import gc
import logging
import os
import threading
from pathlib import Path

import bank
import store
from telemetry import logs, request_context
from telemetry.request_context import RequestContext
from tests import state
from tests.support import scripted_bank, wait_until


def snapshot() -> dict[str, object]:
    loggers = {
        name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level, logging.getLogger(name).propagate)
        for name in state.LOGGERS
    }
    return {
        **loggers,
        "bank": bank._configured,
        "store": store._store,
        "context": request_context.current.get(),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "collector": (gc.get_threshold(), gc.get_freeze_count()),
        "log threads": [thread for thread in threading.enumerate() if thread.name == "log"],
    }


def test_all_state_is_restored(tmp_path: Path) -> None:
    """Whatever modules, logging, the environment and the collector were set to."""
    before = snapshot()
    with state.restored():
        logs.configure("DEBUG", "json")
        store.configure("memory:", fingerprint_key=bytes(32))
        bank.configure(
            "http://127.0.0.1:9",
            connect_timeout_s=1,
            timeout_s=1,
            retries=0,
            concurrency=1,
            breaker_failures=1,
            breaker_open_s=1,
        )
        request_context.current.set(RequestContext())
        os.environ["PORT"] = "1"
        os.environ.pop("PATH", None)
        os.chdir(tmp_path)
        gc.freeze()
        gc.set_threshold(1, 1, 1)
        logging.getLogger("uvicorn.access").propagate = not logging.getLogger("uvicorn.access").propagate
        changed = snapshot()
        assert {name for name in before if before[name] == changed[name]} == set()
    assert snapshot() == before


def test_a_scripted_bank_leaves_no_thread() -> None:
    """It would otherwise wait for a connection as long as the tests run."""
    before = set(threading.enumerate())
    with scripted_bank(lambda _connection: None):
        assert set(threading.enumerate()) > before
    wait_until(lambda: set(threading.enumerate()) <= before)
