"""Errors of a bank call say whether any attempt was sent, however the last one ended."""

import asyncio
import socket
import time
from contextlib import suppress

import pytest

import bank
from bank import BankError, NotReached, Overloaded, Refused
from bank.errors import Unavailable
from tests.support import authorization_request, free_port, reply, scripted_bank


def configure(url: str, **changes: float) -> None:
    options = {"retries": 0, "concurrency": 1, "breaker_failures": 100, "breaker_open_s": 60, **changes}
    bank.configure(url, connect_timeout_s=0.3, timeout_s=5, **options)  # type: ignore[arg-type]


def error() -> BankError:
    """Authorize a payment, and return the error."""
    with pytest.raises(BankError) as caught:
        asyncio.run(bank.authorize(authorization_request()))
    return caught.value


@pytest.mark.parametrize(("status", "kind"), [(503, Unavailable), (400, Refused)])
def test_a_bank_that_answers_was_sent_the_payment(status: int, kind: type[BankError]) -> None:
    """A 503 may come from a proxy after the bank did its work."""
    with scripted_bank(reply(status, b"{}")) as scripted:
        configure(scripted.url)
        answered = error()
    assert type(answered) is kind
    assert answered.sent


def test_a_payment_without_a_connection_was_not_sent() -> None:
    """Nothing listens there, whatever the number of attempts."""
    with free_port() as free:
        pass
    configure(f"http://127.0.0.1:{free}", retries=2)
    refused = error()
    assert type(refused) is NotReached
    assert not refused.sent


def test_an_earlier_attempt_counts() -> None:
    """The bank answers 503 and then listens no more: the last attempt was not sent, the first one was."""

    def answer_and_close(connection: socket.socket) -> None:
        scripted.close()
        with suppress(OSError):  # wakes the thread that accepts connections, which then ends
            socket.create_connection(("127.0.0.1", int(scripted.url.rpartition(":")[2])), timeout=1).close()
        reply(503, b"{}", "Connection: close")(connection)

    with scripted_bank(answer_and_close) as scripted:
        configure(scripted.url, retries=1)
        refused = error()
    assert type(refused) is NotReached
    assert str(refused) != "the bank answered 503"
    assert refused.sent
    assert len(scripted.requests) == 1


def test_a_payment_that_the_circuit_breaker_refuses_was_not_sent() -> None:
    """The circuit opens with the first failure."""
    with scripted_bank(reply(503, b"{}")) as scripted:
        configure(scripted.url, breaker_failures=1)
        assert error().sent
        assert not error().sent
    assert len(scripted.requests) == 1


def test_a_payment_without_a_slot_was_not_sent() -> None:
    """The only slot is taken for longer than the payment waits for it."""

    async def scenario() -> BankError:
        hanging = asyncio.create_task(bank.authorize(authorization_request()))
        await asyncio.sleep(0)
        try:
            await bank.authorize(authorization_request())
        except Overloaded as error:
            return error
        finally:
            hanging.cancel()
            await asyncio.gather(hanging, return_exceptions=True)
        raise AssertionError("it got a slot")

    with scripted_bank(lambda _connection: time.sleep(1)) as scripted:
        configure(scripted.url)
        assert not asyncio.run(scenario()).sent
