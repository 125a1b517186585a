"""The state that modules and the process keep, and how a test leaves it as it was."""

import contextlib
import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import bank
import store
from telemetry import logs, request_context

# Loggers that telemetry/logs.py or uvicorn configure; the first is the root.
LOGGERS = ("", "gateway", "gateway.access", "uvicorn.access", "uvicorn.error")


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restore all of it at the end of the block: bank, store, logging, request context, environment, collector."""
    loggers = [
        (logger, logger.handlers[:], logger.level, logger.propagate, logger.disabled)
        for logger in map(logging.getLogger, LOGGERS)
    ]
    environment, folder, thresholds = dict(os.environ), Path.cwd(), gc.get_threshold()
    try:
        yield
    finally:
        bank.close()
        store.close()
        logs.close()
        for logger, handlers, level, propagate, disabled in loggers:
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
        request_context.current.set(None)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        os.chdir(folder)
        gc.unfreeze()
        gc.set_threshold(*thresholds)
