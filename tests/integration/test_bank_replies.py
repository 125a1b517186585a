"""What a merchant is told for each kind of reply of the bank, by a gateway process that calls a bank over HTTP."""

import contextlib
import http.server
import threading
from collections.abc import Iterator

import pytest

from tests.support import Gateway

IN_DOUBT = (408, 409, 425, 429, 499)


@contextlib.contextmanager
def bank_that_answers(statuses: list[int]) -> Iterator[str]:
    """Run a bank that answers each request for a payment with the next status, and has no look-up; yield its URL."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(statuses.pop(0))

        def do_GET(self) -> None:
            self._answer(404)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as bank:
        thread = threading.Thread(target=bank.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{bank.server_port}"
        finally:
            bank.shutdown()
            thread.join()


@pytest.mark.parametrize("before", [[], [503]], ids=["alone", "after a 503"])
def test_a_4xx_that_refuses_nothing_is_pending(before: list[int]) -> None:
    """The merchant gets 202. Any other 4xx refuses the request: 500, nothing was charged."""
    statuses = [status for in_doubt in IN_DOUBT for status in (*before, in_doubt)] + [404]
    with bank_that_answers(statuses) as url, Gateway(BANK_URL=url) as gateway:
        for _ in IN_DOUBT:
            made = gateway.pay()
            assert (made.status_code, made.json()["status"]) == (202, "PENDING")
        refused = gateway.pay()
        assert refused.status_code == 500
        assert "Nothing was charged" in refused.json()["detail"]
    assert statuses == []
