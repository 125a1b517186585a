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
import logging.handlers
import queue
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Final

import exchange
from masking import mask

ACCESS: Final = "gateway.access"
QUEUED: Final = 10_000

# How long to wait at the end for lines that are still to be written.
FLUSH_S: Final = 2.0

_listener: logging.handlers.QueueListener | None = None


def is_json(log_format: str) -> bool:
    """Whether LOG_FORMAT means JSON here: `auto` is text on a terminal."""
    return log_format == "json" or (log_format == "auto" and not sys.stdout.isatty())


def configure(level: str, log_format: str) -> None:
    """Log what the gateway says from `level` on, and that libraries warn, where they do."""
    global _listener
    close()
    out, err = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    out.addFilter(lambda record: record.name == ACCESS)
    err.addFilter(lambda record: record.name != ACCESS)
    handler = _Handler(queue.Queue(QUEUED))
    handler.setFormatter(_Json() if is_json(log_format) else _Text())
    _listener = logging.handlers.QueueListener(handler.queue, out, err)
    _listener.start()
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    logging.getLogger("gateway").setLevel(level)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of every malformed request


def close() -> None:
    """Write what waits to be written, if that can be done."""
    global _listener
    if _listener is not None:
        stopping = threading.Thread(target=_listener.stop, daemon=True)
        stopping.start()
        stopping.join(FLUSH_S)
        _listener = None


class _Handler(logging.handlers.QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):  # to say so would need the same pipe
            self.queue.put_nowait(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname, "logger": record.name, **_said(record)}
        return mask(json.dumps(line, default=str))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        words = " ".join(str(word) if name == "message" else f"{name}={word}" for name, word in _said(record).items())
        return mask(f"{_time(record)} {record.levelname} {record.name} {words}")


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
