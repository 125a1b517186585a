"""How logs are written, and what never gets into them.

Standard output has one line for each request, standard error everything else, as JSON or as text. What the gateway's
own modules log is safe by construction: no card number, no CVV, no path, no exception's message. What libraries log
is not: urllib3, for one, quotes an invalid header of the bank's reply, which may repeat the card. Of a library's
message only the place in its code is shown. A final filter masks everything that looks like a card number.

A thread writes the lines, so a reader of standard output that stops reading delays no payment. It loses lines once
`QUEUED` of them wait. They are counted, and the log says how many when it is read again.
"""

import json
import logging
import sys
import syslog
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any, Final

from telemetry import metrics, request_context
from telemetry.masking import mask

QUEUED: Final = 10_000

# Bytes written at once, unless one line is longer. Linux writes so many to a pipe in one piece (POSIX's PIPE_BUF), so
# the lines of several workers do not mix.
ATOMIC_BYTES: Final = 4096

# Seconds for which lines are collected. Waking the thread for each line costs 100 us of a request's CPU, because both
# need the interpreter's lock.
COLLECT_S: Final = 0.1

# Seconds to wait at the end for lines that are not written yet.
FLUSH_S: Final = 2.0

# The log of requests. Its lines are written without LogRecords, which would take half of a line's time.
_ACCESS: Final = logging.getLogger("gateway.access")

# The copy of the audit trail. Its lines are written like those of requests, and as JSON whatever LOG_FORMAT is.
_AUDIT: Final = logging.getLogger("gateway.audit")

_LOGGERS: Final = (_ACCESS, _AUDIT, logging.getLogger())

# The logger of what a log says about itself.
_LOG: Final = "gateway.log"

# How a line is written: when it was logged, in seconds since the epoch, its level, its logger, and its fields.
_Line = Callable[[float, str, str, dict[str, Any]], str]


def _text_of(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


_encode: Final = json.JSONEncoder(default=_text_of).encode


def is_json(log_format: str) -> bool:
    """Return whether LOG_FORMAT means JSON here: `auto` is text on a terminal."""
    return log_format == "json" or (log_format == "auto" and not sys.stdout.isatty())


def configure(level: str, log_format: str) -> None:
    """Log what the gateway's modules say from `level` on, and libraries' warnings."""
    close()
    line = _json if is_json(log_format) else _text
    _ACCESS.addHandler(_Writer(sys.stdout, line))
    _ACCESS.propagate = False
    root = logging.getLogger()
    root.handlers[:] = _AUDIT.handlers[:] = [_Writer(sys.stderr, line)]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    logging.getLogger("gateway").setLevel(level)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of every malformed request


def configure_for_command() -> None:
    """Log what a command adds to the audit trail, to standard error and to the system's log (syslog(3))."""
    _AUDIT.handlers[:] = [_SystemLog()]


def access(level: int, fields: dict[str, Any]) -> None:
    """Write the line of one request."""
    if _ACCESS.isEnabledFor(level):
        for handler in _ACCESS.handlers:
            if isinstance(handler, _Writer):
                handler.put(time.time(), logging.getLevelName(level), _ACCESS.name, fields)


def audit(fields: dict[str, Any]) -> None:
    """Write a copy of a line of the audit trail, whatever LOG_LEVEL is."""
    context = request_context.current.get()
    if context is not None:
        fields = {"request_id": context.id, **fields}
    line = _json(time.time(), "INFO", _AUDIT.name, fields)
    for handler in _AUDIT.handlers:
        if isinstance(handler, _Writer | _SystemLog):
            handler.write(line)


def flush() -> None:
    """Write the lines that wait, for `FLUSH_S` at most."""
    deadline = time.monotonic() + FLUSH_S
    for writer in _writers():
        writer.write_until(deadline)


def close() -> None:
    """Write the lines that wait, if they can be written, and stop logging."""
    writers = _writers()
    for logger in _LOGGERS:
        logger.handlers[:] = [handler for handler in logger.handlers if handler not in writers]
    for writer in writers:
        writer.close()


def _writers() -> "set[_Writer]":
    return {handler for logger in _LOGGERS for handler in logger.handlers if isinstance(handler, _Writer)}


class _Writer(logging.Handler):
    """Writes lines to one stream in a thread, those of each `COLLECT_S` together."""

    def __init__(self, stream: IO[str], line: _Line) -> None:
        super().__init__()
        self._stream, self._line = stream, line
        self._lines: deque[str] = deque()
        self._some, self._hurry, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._writing = False
        self._lost, self._losing = 0, threading.Lock()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self.put(record.created, record.levelname, record.name, _fields(record))

    def put(self, at: float, level: str, logger: str, fields: dict[str, Any]) -> None:
        self.write(self._line(at, level, logger, fields))

    def write(self, line: str) -> None:
        if len(self._lines) >= QUEUED:
            self._lose(1)
            return
        self._lines.append(mask(line))
        if not self._some.is_set():
            self._some.set()

    def write_until(self, deadline: float) -> None:
        """Write the lines that wait, until `deadline` on the monotonic clock at most."""
        self._hurry.set()
        self._some.set()
        while (self._lines or self._writing) and time.monotonic() < deadline:
            time.sleep(0.001)
        self._hurry.clear()

    def close(self) -> None:
        self._closing.set()
        self._hurry.set()
        self._some.set()
        self._thread.join(FLUSH_S)
        super().close()

    def _write(self) -> None:
        while self._lines or not self._closing.is_set():
            self._some.wait()
            self._hurry.wait(COLLECT_S)
            self._some.clear()
            self._writing = True
            while self._lines:
                self._write_piece()
            self._writing = False

    def _write_piece(self) -> None:
        piece = self._piece()
        try:
            self._stream.write(piece)
            self._stream.flush()
        except (OSError, ValueError):  # nothing reads the stream any more
            self._lose(piece.count("\n"))
        else:
            if self._lost and not self._lines:
                self._report_lost()

    def _lose(self, lines: int) -> None:
        metrics.LOG_LINES_LOST.inc(lines)
        with self._losing:
            self._lost += lines

    def _report_lost(self) -> None:
        with self._losing:
            lost, self._lost = self._lost, 0
        self.put(
            time.time(),
            "WARNING",
            _LOG,
            {"message": f"lines of this log that were lost because nothing read it: {lost}"},
        )

    def _piece(self) -> str:
        """Take lines that are written at once."""
        lines: list[str] = []
        size = 0
        while self._lines and (not lines or size + _bytes(self._lines[0]) < ATOMIC_BYTES):
            lines.append(f"{self._lines.popleft()}\n")
            size += _bytes(lines[-1])
        return "".join(lines)


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


class _SystemLog(logging.Handler):
    """Writes lines to standard error and to the system's log at once."""

    def write(self, line: str) -> None:
        line = mask(line)
        sys.stderr.write(f"{line}\n")
        syslog.syslog(syslog.LOG_AUTH | syslog.LOG_INFO, f"payment-gateway: {line}")


def _json(at: float, level: str, logger: str, fields: dict[str, Any]) -> str:
    return _encode({"time": time_of(at), "level": level, "logger": logger, **fields})


def _text(at: float, level: str, logger: str, fields: dict[str, Any]) -> str:
    words = " ".join(
        str(value) if name == "message" else f"{name}={'-' if value is None else value}"
        for name, value in fields.items()
    )
    return f"{time_of(at)} {level} {logger} {words}"


def time_of(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339, in UTC and to the millisecond."""
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return a record's message and the id of the request that it belongs to."""
    context = request_context.current.get()
    fields = {"request_id": context.id} if context else {}
    if not record.name.startswith("gateway."):
        place = f"at {record.filename}:{record.lineno}"
        return {**fields, "message": f"{place} (message withheld: it may contain a card number)"}
    return {**fields, "message": record.getMessage()}
