"""How logs are written, and what never gets into them.

One line for each request goes to standard output, everything else to standard error, as JSON or as
text. What the gateway's own modules say is safe by construction: no card number, no CVV, no path, no
exception's words. What libraries say is not: urllib3, for one, quotes the broken header of a bank's
reply, which may echo the card. So of theirs only the place is shown; and whatever is said, a last
filter masks what looks like a card number.

Lines are written by a thread: a reader of standard output that stops reading holds up no payment. It
loses lines when `QUEUED` of them wait.
"""

import contextlib
import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any, Final

from telemetry import request_context
from telemetry.masking import mask

ACCESS: Final = "gateway.access"
QUEUED: Final = 10_000

# So many characters are written at once: of a little more a pipe still makes one piece, so that the lines
# of several workers do not mix (POSIX: 4096 on Linux).
ATOMIC: Final = 2048

# Lines are collected for so long. To wake the thread for each would cost 100 us of a request's CPU: it
# takes the interpreter's lock from the event loop, and the loop has to take it back.
TOGETHER_S: Final = 0.02

# How long to wait at the end for lines that are still to be written.
FLUSH_S: Final = 2.0

# How a line is written: when it was said, in seconds since the epoch, how loud, by whom, and what.
_Line = Callable[[float, str, str, dict[str, Any]], str]

_answers: "_Writer | None" = None
_answers_from = 0

_encode: Final = json.JSONEncoder(default=str).encode


def is_json(log_format: str) -> bool:
    """Whether LOG_FORMAT means JSON here: `auto` is text on a terminal."""
    return log_format == "json" or (log_format == "auto" and not sys.stdout.isatty())


def configure(level: str, log_format: str) -> None:
    """Log what the gateway says from `level` on, and that libraries warn, where they do."""
    global _answers, _answers_from
    close()
    line = _json if is_json(log_format) else _text
    _answers, _answers_from = _Writer(sys.stdout, line), logging.getLevelNamesMapping()[level]
    root = logging.getLogger()
    root.handlers[:] = [_Writer(sys.stderr, line)]
    root.setLevel(max(logging.WARNING, _answers_from))
    logging.getLogger("gateway").setLevel(level)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of every malformed request


def answered(level: int, facts: dict[str, Any]) -> None:
    """Write the line of one request; without a LogRecord, which took half of the time."""
    if _answers is not None and level >= _answers_from:
        _answers.put(time.time(), logging.getLevelName(level), ACCESS, facts)


def close() -> None:
    """Write what waits to be written, if that can be done."""
    global _answers
    if _answers is not None:
        _answers.close()
        _answers = None
    for handler in logging.getLogger().handlers[:]:
        if isinstance(handler, _Writer):
            logging.getLogger().removeHandler(handler)
            handler.close()


class _Writer(logging.Handler):
    """Lines for one stream, written by a thread of its own, as many at once as came within `TOGETHER_S`."""

    def __init__(self, stream: IO[str], line: _Line) -> None:
        super().__init__()
        self._stream, self._line = stream, line
        self._lines: deque[str] = deque()
        self._some, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self.put(record.created, record.levelname, record.name, _said(record))

    def put(self, at: float, level: str, logger: str, said: dict[str, Any]) -> None:
        if len(self._lines) < QUEUED:  # to say that some are lost would need the same stream
            self._lines.append(mask(self._line(at, level, logger, said)))
            if not self._some.is_set():
                self._some.set()

    def close(self) -> None:
        self._closing.set()
        self._some.set()
        self._thread.join(FLUSH_S)
        super().close()

    def _write(self) -> None:
        while self._lines or not self._closing.is_set():
            self._some.wait()
            self._closing.wait(TOGETHER_S)
            self._some.clear()
            while self._lines:
                piece = ""
                while self._lines and len(piece) < ATOMIC:
                    piece += f"{self._lines.popleft()}\n"
                with contextlib.suppress(OSError, ValueError):  # nobody reads them any more
                    self._stream.write(piece)
                    self._stream.flush()


def _json(at: float, level: str, logger: str, said: dict[str, Any]) -> str:
    return _encode({"time": time_of(at), "level": level, "logger": logger, **said})


def _text(at: float, level: str, logger: str, said: dict[str, Any]) -> str:
    words = " ".join(
        str(word) if name == "message" else f"{name}={'-' if word is None else word}" for name, word in said.items()
    )
    return f"{time_of(at)} {level} {logger} {words}"


def time_of(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339, in UTC and to the millisecond."""
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _said(record: logging.LogRecord) -> dict[str, Any]:
    """A message, and the request that it is about."""
    serving = request_context.current.get()
    said = {"request_id": serving.id} if serving else {}
    if not record.name.startswith("gateway."):
        place = f"at {record.filename}:{record.lineno}"
        return {**said, "message": f"{place} (its words are withheld: they may hold a card)"}
    return {**said, "message": record.getMessage()}
