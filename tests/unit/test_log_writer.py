"""Logs: how lines are written, in which order, what is withheld, and that a reader that stops delays nobody."""

import io
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from telemetry import logs, request_context
from telemetry.request_context import RequestContext
from tests.support import AUTHORIZED_CARD, wait_until


class Stream(io.StringIO):
    """A stream whose reader may stop: then the next write waits until it reads again."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.waiting = threading.Event()
        self.error: Exception | None = None
        self.failures = 0
        self._reads = threading.Event()
        self._reads.set()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def stop_reading(self) -> None:
        self._reads.clear()

    def read_again(self) -> None:
        self._reads.set()

    def write(self, text: str) -> int:
        if not self._reads.is_set():
            self.waiting.set()
        self._reads.wait()
        if self.error is not None:
            self.failures += 1
            raise self.error
        self.writes.append(text)
        return len(text)

    @property
    def lines(self) -> list[str]:
        """The lines that were written."""
        return "".join(self.writes).splitlines()


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """Standard output; pytest replaces that of `sys` when the test itself begins."""
    stream = Stream()
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stdout=stream, stderr=Stream()))
    yield stream
    stream.read_again()
    logs.close()


@pytest.fixture
def err(out: Stream, monkeypatch: pytest.MonkeyPatch) -> Stream:
    """Standard error."""
    stream = Stream()
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stdout=out, stderr=stream))
    return stream


def numbered(number: int) -> dict[str, Any]:
    return {"request_id": f"order-{number}", "status": 201}


def numbers(stream: Stream) -> list[int]:
    return [int(json.loads(line)["request_id"].removeprefix("order-")) for line in stream.lines]


def test_a_request_is_a_line_on_standard_output_and_everything_else_on_standard_error(out: Stream, err: Stream) -> None:
    """Neither stream has a line of the other's."""
    logs.configure("INFO", "json")
    logs.access(logging.INFO, {"status": 201, "payment_id": UUID(int=1), "merchant": None})
    logging.getLogger("gateway.payments").warning("payment %s is PENDING", 1)
    logs.close()
    (line,) = map(json.loads, out.lines)
    assert line.pop("time").endswith("Z")
    assert list(line.items()) == [
        ("level", "INFO"),
        ("logger", "gateway.access"),
        ("status", 201),
        ("payment_id", str(UUID(int=1))),
        ("merchant", None),
    ]
    (line,) = map(json.loads, err.lines)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "WARNING", "logger": "gateway.payments", "message": "payment 1 is PENDING"}


def test_a_line_of_text_has_the_same_fields(out: Stream, err: Stream) -> None:
    """A message stands without its name, and `-` for what there is none of."""
    logs.configure("INFO", "text")
    logs.access(logging.ERROR, {"request_id": "order-1", "merchant": None, "status": 500})
    logging.getLogger("gateway.payments").warning("payment %s is PENDING", 1)
    logs.close()
    assert out.lines[0].split(" ", 1)[1] == "ERROR gateway.access request_id=order-1 merchant=- status=500"
    assert err.lines[0].split(" ", 1)[1] == "WARNING gateway.payments payment 1 is PENDING"


@pytest.mark.parametrize(
    ("log_format", "is_terminal", "is_json"),
    [("auto", True, False), ("auto", False, True), ("json", True, True), ("text", False, False)],
)
def test_auto_is_text_on_a_terminal_and_json_elsewhere(
    monkeypatch: pytest.MonkeyPatch, log_format: str, is_terminal: bool, is_json: bool
) -> None:
    """What standard output is decides for both streams."""
    stream = Stream(is_terminal=is_terminal)
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stdout=stream, stderr=Stream()))
    assert logs.is_json(log_format) == is_json
    logs.configure("INFO", log_format)
    logs.access(logging.INFO, {"status": 201})
    logs.close()
    assert stream.lines[0].startswith("{") == is_json


def test_times_are_in_utc_to_the_millisecond() -> None:
    """RFC 3339, never rounded up into the next second."""
    assert logs.time_of(0) == "1970-01-01T00:00:00.000Z"
    assert logs.time_of(1_795_515_330.0625) == "2026-11-24T10:15:30.062Z"
    assert logs.time_of(1_795_515_330.9999) == "2026-11-24T10:15:30.999Z"


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("DEBUG", "gateway DEBUG, gateway INFO, gateway WARNING, gateway ERROR, library WARNING, library ERROR"),
        ("INFO", "gateway INFO, gateway WARNING, gateway ERROR, library WARNING, library ERROR"),
        ("WARNING", "gateway WARNING, gateway ERROR, library WARNING, library ERROR"),
        ("ERROR", "gateway ERROR, library ERROR"),
    ],
)
def test_lines_are_written_from_a_level_on(out: Stream, err: Stream, level: str, shown: str) -> None:
    """LOG_LEVEL is the gateway's own; of libraries at most warnings are shown, and of malformed requests none."""
    logs.configure(level, "json")
    for name in ("gateway.payments", "urllib3.connectionpool"):
        for severity in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(severity, "x")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    for severity in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logs.access(severity, {"status": 201})
    logs.close()
    names = {"gateway.payments": "gateway", "urllib3.connectionpool": "library"}
    lines = [json.loads(line) for line in err.lines]
    assert ", ".join(f"{names[line['logger']]} {line['level']}" for line in lines) == shown
    levels = [json.loads(line)["level"] for line in out.lines]
    assert levels == re.findall("gateway ([A-Z]+)", shown)


def test_a_line_has_the_id_of_the_request_that_it_belongs_to(out: Stream, err: Stream) -> None:
    """Also the line of a library; outside of requests there is none."""
    logs.configure("INFO", "json")
    logging.getLogger("gateway.payments").warning("before")
    token = request_context.current.set(RequestContext("order-66"))
    logging.getLogger("gateway.payments").warning("during")
    logging.getLogger("urllib3").warning("during")
    request_context.current.reset(token)
    logging.getLogger("gateway.payments").warning("after")
    logs.close()
    assert out.lines == []
    assert [json.loads(line).get("request_id") for line in err.lines] == [None, "order-66", "order-66", None]


def test_the_message_of_a_library_is_withheld(out: Stream, err: Stream) -> None:
    """Only its place is shown: it may quote a reply, a header or a card. So is what an exception says."""
    logs.configure("DEBUG", "json")
    try:
        int("Lovelace")
    except ValueError:
        logging.getLogger("urllib3.connectionpool").exception("Invalid header %s", "Lovelace")
        logging.getLogger("gateways").error("Lovelace")
        logging.getLogger().error("Lovelace")
        logging.getLogger("gateway.payments").exception("a payment failed")
    logs.close()
    assert out.lines == []
    *withheld, own = [json.loads(line)["message"] for line in err.lines]
    assert own == "a payment failed"
    assert len(withheld) == 3
    for message in withheld:
        assert message.startswith("at test_log_writer.py:")
        assert message.endswith(" (message withheld: it may contain a card number)")
    assert "Lovelace" not in "".join(err.writes)


def test_no_other_handler_writes_what_is_logged(out: Stream, err: Stream) -> None:
    """A handler that a library has added to the root logger would write messages as they are."""
    other = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(other))
    logs.configure("DEBUG", "json")
    logging.getLogger("urllib3").error("Lovelace")
    logging.getLogger("gateway.payments").error("a payment failed")
    logs.access(logging.INFO, numbered(0))
    logs.close()
    assert (len(out.lines), len(err.lines)) == (1, 2)
    assert other.getvalue() == ""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_looks_like_a_card_number_is_masked_everywhere(out: Stream, err: Stream, log_format: str) -> None:
    """The last filter: in messages, fields and their names."""
    logs.configure("INFO", log_format)
    logs.access(logging.INFO, {"route": AUTHORIZED_CARD, AUTHORIZED_CARD: 1, "amount": int(AUTHORIZED_CARD)})
    logging.getLogger("gateway.payments").warning("card %s", AUTHORIZED_CARD)
    logs.close()
    assert (len(out.lines), len(err.lines)) == (1, 1)
    assert AUTHORIZED_CARD not in "".join(out.writes + err.writes)
    assert "*" * 16 in out.lines[0]


def test_lines_are_collected_and_keep_their_order(out: Stream) -> None:
    """Pieces of whole lines, each small enough for a pipe to take at once, and far fewer than lines."""
    logs.configure("INFO", "json")
    out.stop_reading()
    logs.access(logging.INFO, numbered(0))
    assert out.waiting.wait(10)
    for number in range(1, 500):
        logs.access(logging.INFO, numbered(number))
    out.read_again()
    logs.close()
    assert numbers(out) == list(range(500))
    assert all(piece.endswith("\n") and len(piece) <= 4096 for piece in out.writes)
    assert len(out.writes) < 50


def test_lines_of_several_threads_are_whole(out: Stream) -> None:
    """Each thread's in its order."""
    logs.configure("INFO", "json")

    def log(thread: int) -> None:
        for number in range(200):
            logs.access(logging.INFO, numbered(1000 * thread + number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(log, range(4)))
    logs.close()
    logged = numbers(out)
    for thread in range(4):
        assert [number % 1000 for number in logged if number // 1000 == thread] == list(range(200))


def test_a_reader_that_stops_delays_nobody_and_loses_only_what_is_too_much(out: Stream) -> None:
    """`QUEUED` lines wait for it; the next are lost and counted, the log says how many, and later ones are written."""
    before = lost_lines()
    logs.configure("INFO", "json")
    out.stop_reading()
    logs.access(logging.INFO, numbered(0))
    assert out.waiting.wait(10)
    for number in range(1, logs.QUEUED + 501):  # with the thread that writes waiting, this would never end
        logs.access(logging.INFO, numbered(number))
    assert lost_lines() - before == 500
    out.read_again()
    wait_until(lambda: len(out.lines) == logs.QUEUED + 2, 30)
    report = json.loads(out.lines[-1])
    assert (report["level"], report["logger"]) == ("WARNING", "gateway.log")
    assert report["message"] == "lines of this log that were lost because nothing read it: 500"
    logs.access(logging.INFO, numbered(99_999))
    logs.close()
    del out.writes[-2]  # the report
    assert numbers(out) == [*range(logs.QUEUED + 1), 99_999]


def lost_lines() -> float:
    return REGISTRY.get_sample_value("payment_gateway_log_lines_lost_total") or 0.0


def test_closing_writes_what_waits(out: Stream, err: Stream) -> None:
    """On both streams, before it returns; later lines are not written."""
    logs.configure("INFO", "json")
    for number in range(100):
        logs.access(logging.INFO, numbered(number))
        logging.getLogger("gateway.payments").info("payment %d", number)
    logs.close()
    assert numbers(out) == list(range(100))
    assert [json.loads(line)["message"] for line in err.lines] == [f"payment {number}" for number in range(100)]
    logs.access(logging.INFO, numbered(100))
    logs.close()
    assert len(out.lines) == 100
    assert not [thread for thread in threading.enumerate() if thread.name == "log"]


def test_flushing_writes_what_waits_and_the_log_goes_on(
    out: Stream, err: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting until lines are collected."""
    monkeypatch.setattr(logs, "COLLECT_S", 60)
    logs.configure("INFO", "json")
    logs.access(logging.INFO, numbered(0))
    logging.getLogger("gateway.payments").info("payment 0")
    logs.flush()
    assert (numbers(out), len(err.lines)) == ([0], 1)
    logs.access(logging.INFO, numbered(1))
    logs.flush()
    assert numbers(out) == [0, 1]


def test_closing_does_not_wait_for_a_reader_that_stopped(out: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """For `FLUSH_S` at most, so a gateway can stop whatever becomes of its output."""
    monkeypatch.setattr(logs, "FLUSH_S", 0.1)
    logs.configure("INFO", "json")
    out.stop_reading()
    logs.access(logging.INFO, numbered(0))
    assert out.waiting.wait(10)
    started = time.monotonic()
    logs.close()
    assert time.monotonic() - started < 10
    assert out.writes == []


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file")])
def test_a_stream_that_fails_does_not_end_the_log(out: Stream, error: Exception) -> None:
    """The lines are lost and counted, those that come when it works again are written, and the log says it."""
    before = lost_lines()
    logs.configure("INFO", "json")
    out.error = error
    logs.access(logging.INFO, numbered(0))
    wait_until(lambda: out.failures)
    out.error = None
    logs.access(logging.INFO, numbered(1))
    logs.close()
    assert lost_lines() - before == 1
    *written, report = out.lines
    assert [json.loads(line)["request_id"] for line in written] == ["order-1"]
    assert json.loads(report)["message"] == "lines of this log that were lost because nothing read it: 1"


def test_configuring_again_replaces_what_was_configured(out: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is written first, and no line is written twice."""
    logs.configure("INFO", "json")
    logs.access(logging.INFO, numbered(0))
    later = Stream()
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stdout=later, stderr=Stream()))
    logs.configure("WARNING", "text")
    assert numbers(out) == [0]
    logs.access(logging.INFO, numbered(1))
    logs.access(logging.WARNING, numbered(2))
    logs.close()
    assert len(out.lines) == 1
    assert [line.split("request_id=")[1] for line in later.lines] == ["order-2 status=201"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_audit_trail_is_logged_as_json_whatever_the_settings_are(out: Stream, err: Stream, log_format: str) -> None:
    """Its lines go to standard error; LOG_LEVEL and LOG_FORMAT do not apply to them."""
    logs.configure("ERROR", log_format)
    logging.getLogger("gateway.store").warning("not logged")
    logs.audit({"payment_id": UUID(int=1), "changed_at": datetime(2026, 11, 24, 9, 5, tzinfo=UTC)})
    logs.close()
    assert out.lines == []
    (line,) = err.lines
    fields = json.loads(line)
    assert fields.pop("time").endswith("Z")
    assert fields == {
        "level": "INFO",
        "logger": "gateway.audit",
        "payment_id": str(UUID(int=1)),
        "changed_at": "2026-11-24T09:05:00+00:00",
    }
