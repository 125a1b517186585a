"""Hundreds of payments in progress in one process take memory but no threads."""

import asyncio
import contextlib
import http.client
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import Gateway, valid_payment, wait_until

MANY = 500
JSON = {"Content-Type": "application/json"}


class WaitingBank:
    """A bank that authorizes every payment, but answers none before it has `MANY` of them.

    It runs on its own event loop in a thread.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.url = ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        wait_until(lambda: self.url)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._all, self._end = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=MANY)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await self._end.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
            while await reader.readuntil(b"}"):
                self.requests += 1
                if self.requests == MANY:
                    self._all.set()
                await self._all.wait()
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"authorized": true}')


@pytest.fixture
def bank() -> Iterator[WaitingBank]:
    running = WaitingBank()
    yield running
    running.close()


def test_500_payments_are_in_progress_in_one_process_with_few_threads(bank: WaitingBank) -> None:
    """All of them are at the bank at the same time, none is refused, and each is answered 201."""
    settings = {"BANK_URL": bank.url, "BANK_CONCURRENCY": str(MANY), "BANK_TIMEOUT_S": "30"}
    with Gateway(settings=settings) as gateway, ThreadPoolExecutor(MANY) as pool:

        def pay() -> int:
            client = http.client.HTTPConnection(gateway.root.removeprefix("http://"), timeout=60)
            client.request("POST", "/api/v1/payments", json.dumps(valid_payment()), JSON)
            with client.getresponse() as answer:
                status = answer.status
            client.close()
            return status

        paying = [pool.submit(pay) for _ in range(MANY)]
        wait_until(lambda: bank.requests == MANY, 60)
        status = Path(f"/proc/{gateway.process.pid}/status").read_text()
        assert int(re.findall(r"Threads:\s+(\d+)", status)[0]) < 50
        assert {payment.result() for payment in paying} == {201}
