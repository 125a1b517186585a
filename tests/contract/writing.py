"""The protocol of run.py, with every answer checked before it leaves."""

import asyncio
import re
from collections import deque
from typing import Any, ClassVar, Final, cast
from urllib.parse import unquote

from httptools import HttpParserCallbackError, HttpParserError, HttpResponseParser

from handlers.contract import Contract
from server.protocol import Protocol
from tests.contract import checking
from tests.contract.checking import Answer, Request, Verdict
from tests.contract.promises import Promises
from tests.contract.record import Record

# Method and path of a request, whose target may be a URL (RFC 9112, 3.2).
_REQUEST_LINE: Final = re.compile(rb"([A-Z]+) (?:https?://[^/\s]+)?(/[^?\s]*)\S* HTTP/1\.[01]\r\n")


class Checker:
    """Checks the answers of one gateway against the contract that it serves at that time."""

    def __init__(self, contract: Contract, record: Record) -> None:
        self._contract = contract
        self._record = record
        self._served = b""
        self._promises: Promises | None = None

    def head(self, answer: Answer) -> Verdict:
        """Check the head of an answer, and record what it breaks."""
        verdict = checking.head(self._current(), answer)
        self._report(verdict, answer, verdict.errors)
        return verdict

    def body(self, verdict: Verdict, answer: Answer) -> None:
        """Check the body of an answer, and record what it breaks, and that the status was seen."""
        errors = checking.body(verdict, answer)
        self._report(verdict, answer, errors)
        if verdict.operation is not None and answer.request.method != "HEAD":
            self._record.saw(self._current().kind, verdict.operation.id, answer.status)

    def failed(self, why: str) -> None:
        """Record that an answer was not checked."""
        self._record.broken(why)

    def _current(self) -> Promises:
        served = self._contract.served_json()
        if self._promises is None or served != self._served:
            self._served, self._promises = served, Promises(served)
        return self._promises

    def _report(self, verdict: Verdict, answer: Answer, errors: list[str]) -> None:
        if errors:
            request = answer.request.method or "an unread request"
            name = verdict.operation.id if verdict.operation else "no operation"
            self._record.broken(f"{answer.status} to {request} ({name}): {'; '.join(errors)}")


class Watch:
    """Follows one connection: its requests, and the bytes that are written, of which it makes answers."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._requests: deque[Request] = deque()
        self._first_bytes = b""
        self._parser: HttpResponseParser | None = None  # of the answer that is being written
        self._answer = Answer(Request())
        self._verdict: Verdict | None = None

    def reads(self, head: bytes, *, begins: bool) -> None:
        """Note a part of a request's head, whose first line says what was requested, if the head is refused."""
        self._first_bytes = (head if begins else self._first_bytes + head)[:1024]

    def requested(self, method: str, path: str) -> None:
        """Note that the head of a request is complete."""
        self._first_bytes = b""
        self._requests.append(Request(method, path, is_complete=True))

    def writes(self, data: bytes) -> None:
        """Check what is about to be written."""
        try:
            if self._parser is None and data:
                self._parser = HttpResponseParser(self)
            if self._parser is not None:
                self._parser.feed_data(data)
                if self._parser is not None and self._answer.request.method == "HEAD":
                    self.on_message_complete()  # the parser waits for a body
        except HttpParserCallbackError as error:
            self._fail(f"an answer could not be checked: {type(error.__context__).__name__}")
        except HttpParserError:
            self._fail("what is written is no HTTP answer")

    def closes(self) -> None:
        """Note that the gateway closes the connection. A client that leaves or does not read is no reason for it."""
        if self._parser is not None and self._verdict is not None and self._verdict.operation is not None:
            self._fail("an answer is not complete")

    def ends(self) -> None:
        """Note that the connection has ended."""
        self._parser = None

    def _fail(self, why: str) -> None:
        self._parser = None
        self._checker.failed(why)

    def _refused(self) -> Request:
        """Return what is known of a request whose head was not complete."""
        found = _REQUEST_LINE.match(self._first_bytes)
        return Request(found[1].decode(), unquote(found[2].decode("latin-1"))) if found else Request()

    def on_message_begin(self) -> None:
        self._answer, self._verdict = Answer(Request()), None

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self._answer.status = self._parser.get_status_code()
        if self._answer.status >= 200:
            self._answer.request = self._requests.popleft() if self._requests else self._refused()
            self._verdict = self._checker.head(self._answer)

    def on_body(self, part: bytes) -> None:
        self._answer.body += part

    def on_message_complete(self) -> None:
        self._parser = None
        if self._verdict is not None:
            self._checker.body(self._verdict, self._answer)


class _Watched:
    """A transport that is watched."""

    def __init__(self, transport: asyncio.Transport, watch: Watch) -> None:
        self._transport = transport
        self._watch = watch

    def write(self, data: bytes) -> None:
        self._watch.writes(data)
        self._transport.write(data)

    def close(self) -> None:
        self._watch.closes()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CheckedProtocol(Protocol):
    """The protocol of gateways under test.

    of_process: the checker of the gateway that this process is, where no other is given
    """

    of_process: ClassVar[Checker]

    def __init__(self, *arguments: Any, checker: Checker | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._watch = Watch(checker or self.of_process)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast("asyncio.Transport", _Watched(transport, self._watch)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.ends()
        super().connection_lost(exc)

    def _parse_head(self, data: bytes) -> None:
        self._watch.reads(data, begins=self._head_bytes == 0)
        super()._parse_head(data)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._watch.requested(self.scope["method"], self.scope["path"])
