"""A bank that refuses the client's certificate in TLS 1.3, which surfaces after the payment was sent."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from bank import BankError, NoAnswer, NotReached
from bank.client import AcquiringBank
from tests.support import authorization_request, kind_of, reply, scripted_bank

AUTHORIZED = reply(200, b'{"authorized": true}')

CERTIFICATE_ALERTS = [
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_ACCESS_DENIED",
    "TLSV1_ALERT_DECRYPT_ERROR",
    "TLSV1_ALERT_UNKNOWN_CA",
]
OTHER_ALERTS = [
    "SSLV3_ALERT_BAD_RECORD_MAC",
    "SSLV3_ALERT_UNEXPECTED_MESSAGE",
    "TLSV1_ALERT_INTERNAL_ERROR",
    "TLSV1_ALERT_USER_CANCELLED",
    "APPLICATION_DATA_AFTER_CLOSE_NOTIFY",
]


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    """The bank's TLS 1.3, without client certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def client(url: str, ca_file: str, certificate: str | None = None) -> AcquiringBank:
    return AcquiringBank(
        url, connect_timeout_s=5, timeout_s=10, retries=2, concurrency=1, ca_file=ca_file, client_cert=certificate
    )


def outcome(acquirer: AcquiringBank) -> bool | type[BankError]:
    """Authorize a payment, and return the answer or the kind of the error."""
    try:
        return asyncio.run(acquirer.authorize(authorization_request())).authorized
    except BankError as error:
        return kind_of(error)


@contextlib.contextmanager
def bank_that_checks_late(context: ssl.SSLContext) -> Iterator[tuple[str, list[int]]]:
    """Run a bank that looks at the certificate once the payment has arrived.

    Yield its URL, and for each connection the number of bytes that arrived until then.
    """
    arrived: list[int] = []

    def serve(connection: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(connection.recv(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        connection.sendall(outgoing.read())
        connection.settimeout(0.3)  # the rest of the handshake and the payment leave together
        rest = b""
        with contextlib.suppress(TimeoutError):
            while data := connection.recv(65536):
                rest += data
        arrived.append(len(rest))
        incoming.write(rest)
        with contextlib.suppress(ssl.SSLError):
            tls.do_handshake()
        connection.sendall(outgoing.read())  # the alert

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", arrived
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("certificate", ["none", "another authority's"])
def test_a_refused_certificate_is_not_reached_although_the_payment_was_sent(
    context: ssl.SSLContext, ca_file: str, tmp_path: Path, certificate: str
) -> None:
    """The alert comes in place of an answer, so the bank has not read the payment. It is sent once."""
    pem = trustme.CA().issue_cert("gateway.example.com").private_key_and_cert_chain_pem
    pem.write_to_path(str(tmp_path / "another.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    with bank_that_checks_late(context) as (url, arrived):
        acquirer = client(url, ca_file, None if certificate == "none" else str(tmp_path / "another.pem"))
        assert outcome(acquirer) is NotReached
        acquirer.close()
    assert len(arrived) == 1
    assert arrived[0] > 300, "the rest of a handshake without a certificate has fewer bytes"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [*[(alert, NotReached) for alert in CERTIFICATE_ALERTS], *[(alert, NoAnswer) for alert in OTHER_ALERTS]],
)
def test_only_alerts_about_the_handshake_say_that_nothing_was_read(
    monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext, ca_file: str, reason: str, expected: type[BankError]
) -> None:
    """After any other alert money may have moved."""

    def receives_alert(*_: object, **__: object) -> Any:
        alert = ssl.SSLError(1, f"[SSL: {reason}]")
        alert.reason = reason
        raise alert

    with scripted_bank(AUTHORIZED, context) as bank:
        monkeypatch.setattr(ssl.SSLSocket, "recv_into", receives_alert)
        acquirer = client(bank.url, ca_file)
        assert outcome(acquirer) is expected
        acquirer.close()


def test_an_alert_on_a_connection_that_had_a_reply_is_no_answer(context: ssl.SSLContext, ca_file: str) -> None:
    """The bank asks for a certificate after it has read the second payment, so money may have moved."""
    context.verify_mode = ssl.CERT_REQUIRED
    context.post_handshake_auth = True
    replies = [AUTHORIZED, _ask_for_certificate]
    with scripted_bank(lambda connection: replies.pop(0)(connection), context) as bank:
        acquirer = client(bank.url, ca_file)
        assert [outcome(acquirer) for _ in range(2)] == [True, NoAnswer]
        acquirer.close()
    assert len(bank.requests) == 2


def _ask_for_certificate(connection: socket.socket) -> None:
    assert isinstance(connection, ssl.SSLSocket)
    connection.verify_client_post_handshake()
    connection.sendall(b"")
    connection.recv(1)
