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
import queue
import sys
import threading
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any, Final

import exchange
from masking import mask

ACCESS: Final = "gateway.access"
QUEUED: Final = 10_000

# So many characters are written at once: of a little more a pipe still makes one piece, so that the lines
# of several workers do not mix (POSIX: 4096 on Linux).
ATOMIC: Final = 2048

# How long to wait at the end for lines that are still to be written.
FLUSH_S: Final = 2.0


def is_json(log_format: str) -> bool:
    """Whether LOG_FORMAT means JSON here: `auto` is text on a terminal."""
    return log_format == "json" or (log_format == "auto" and not sys.stdout.isatty())


def configure(level: str, log_format: str) -> None:
    """Log what the gateway says from `level` on, and that libraries warn, where they do."""
    close()
    formatter = _Json() if is_json(log_format) else _Text()
    out, err = _Writer(sys.stdout, formatter), _Writer(sys.stderr, formatter)
    out.addFilter(lambda record: record.name == ACCESS)
    err.addFilter(lambda record: record.name != ACCESS)
    root = logging.getLogger()
    root.handlers[:] = [out, err]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    logging.getLogger("gateway").setLevel(level)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of every malformed request


def close() -> None:
    """Write what waits to be written, if that can be done."""
    for handler in logging.getLogger().handlers[:]:
        if isinstance(handler, _Writer):
            logging.getLogger().removeHandler(handler)
            handler.close()


class _Writer(logging.Handler):
    """Lines for one stream, written by a thread of its own, as many at once as there are."""

    def __init__(self, stream: IO[str], formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._stream = stream
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() < QUEUED:  # to say that some are lost would need the same stream
            self._lines.put(self.format(record))

    def close(self) -> None:
        self._lines.put(None)
        self._thread.join(FLUSH_S)
        super().close()

    def _write(self) -> None:
        going_on = True
        while going_on:
            lines = [self._lines.get()]
            while not self._lines.empty() and sum(map(len, filter(None, lines))) < ATOMIC:
                lines.append(self._lines.get())
            going_on = lines[-1] is not None
            with contextlib.suppress(OSError, ValueError):  # nobody reads them any more
                self._stream.write("".join(f"{line}\n" for line in lines if line is not None))
                self._stream.flush()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": time_of(record.created), "level": record.levelname, "logger": record.name, **_said(record)}
        return mask(json.dumps(line, default=str))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        words = " ".join(
            str(word) if name == "message" else f"{name}={'-' if word is None else word}"
            for name, word in _said(record).items()
        )
        return mask(f"{time_of(record.created)} {record.levelname} {record.name} {words}")


def time_of(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339, in UTC and to the millisecond."""
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _said(record: logging.LogRecord) -> dict[str, Any]:
    """What there is to say: a request's facts, or a message and the request that it is about."""
    facts: dict[str, Any] | None = getattr(record, "facts", None)
    if facts is not None:
        return facts
    serving = exchange.current.get()
    said = {"request_id": serving.id} if serving else {}
    if not record.name.startswith("gateway."):
        place = f"at {record.filename}:{record.lineno}"
        return {**said, "message": f"{place} (its words are withheld: they may hold a card)"}
    return {**said, "message": record.getMessage()}
