"""TLS on both sides: merchants call the gateway by HTTPS, and the gateway calls the bank by HTTPS."""

import contextlib
import http.server
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from tests.support import Gateway, scripted_bank

CUT_OFF_S = 30


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    """Return the file with the authority's certificate."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.fixture
def https(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """Return the settings of a gateway that serves HTTPS."""
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "served.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "served.key"))
    return {"TLS_CERT": str(tmp_path / "served.pem"), "TLS_KEY": str(tmp_path / "served.key")}


@pytest.mark.parametrize("workers", [1, 2])
def test_with_a_certificate_the_gateway_serves_https_only(
    https: dict[str, str], ca: str, tmp_path: Path, workers: int
) -> None:
    """A payment is made, its answer has Strict-Transport-Security, and plain HTTP gets no HTTP answer."""
    several = {"WORKERS": "2", "STORE_URL": f"sqlite:///{tmp_path / 'payments.db'}", "FINGERPRINT_KEY": "0f" * 32}
    with Gateway(verify=ca, settings={**https, **(several if workers > 1 else {})}) as gateway:
        assert gateway.api.startswith("https://")
        made = gateway.pay()
        assert (made.status_code, made.json()["status"]) == (201, "AUTHORIZED")
        assert int(made.headers["Strict-Transport-Security"].removeprefix("max-age=")) > 0
        assert gateway.find(made.json()["id"]).json() == made.json()
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{gateway.root}/health/live", timeout=10)  # it trusts the usual authorities, not the tests'
        with gateway.connect() as plain, plain.makefile("rb") as answer, contextlib.suppress(ConnectionError):
            plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP" not in answer.read()
        assert gateway.pay().status_code == 201


def test_with_a_certificate_other_addresses_need_no_plaintext(https: dict[str, str], ca: str) -> None:
    """HOST may be any address: the gateway has TLS, and its bank is on this machine."""
    key = f"acme:{'a' * 64}"
    with Gateway(verify=ca, settings=https, HOST="0.0.0.0", API_KEYS=key) as gateway:  # noqa: S104
        assert gateway.pay().status_code == 401


def test_plain_http_has_no_strict_transport_security(gateway: Gateway) -> None:
    """A proxy that serves HTTPS adds the header itself."""
    assert "Strict-Transport-Security" not in gateway.pay().headers


def test_an_idle_connection_does_not_delay_the_end(https: dict[str, str], ca: str) -> None:
    """A merchant's client keeps its connection for the next payment and reads nothing from it until then."""
    with Gateway(verify=ca, settings=https) as gateway:
        with gateway.connect():  # a client that has not begun the handshake
            assert gateway.pay().status_code == 201
            stopped = time.monotonic()
            assert gateway.stop() == 0
            assert time.monotonic() - stopped < 10, "no request is in progress"
        assert "Traceback" not in gateway.log


def test_a_client_that_is_silent_in_the_handshake_or_after_it_is_disconnected(https: dict[str, str], ca: str) -> None:
    """Within 30 s their connections end, without a TLS close alert if necessary, while payments go on."""
    with Gateway(verify=ca, settings=https) as gateway:
        started = time.monotonic()
        tls = ssl.create_default_context(cafile=ca).wrap_socket(gateway.connect(), server_hostname="localhost")
        with gateway.connect() as silent, gateway.connect() as stuck, socket.socket(fileno=tls.detach()) as deaf:
            stuck.sendall(b"\x16\x03\x01\x02\x00")  # the first bytes of a ClientHello
            # From here on `deaf` is a plain TCP socket, which does not answer a TLS close alert.
            held = {silent: "sent nothing", stuck: "began a ClientHello", deaf: "finished the handshake"}
            while held and time.monotonic() - started < CUT_OFF_S:
                sent = time.monotonic()
                assert gateway.pay().status_code == 201
                assert time.monotonic() - sent < 5
                for connection in select.select(held, [], [], 0.2)[0]:
                    if not connection.recv(65536):
                        del held[connection]
            assert list(held.values()) == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def test_a_bank_that_requires_a_client_certificate_gets_it(
    authority: trustme.CA, ca: str, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """With it the bank authorizes; with none or another authority's it gets no payment, and the merchant a 503."""
    for name, issuer in (("ours", authority), ("another", trustme.CA())):
        pem = issuer.issue_cert("gateway.example.com").private_key_and_cert_chain_pem
        pem.write_to_path(str(tmp_path / name))
    with tls_bank(authority, version) as (url, received):
        for certificate in ({}, {"BANK_CLIENT_CERT": str(tmp_path / "another")}):
            with Gateway(BANK_URL=url, BANK_CA_FILE=ca, settings=certificate) as gateway:
                answer = gateway.pay()
                assert (answer.status_code, answer.json()["code"]) == (503, "bank_unavailable")
        assert received == []
        with Gateway(BANK_URL=url, BANK_CA_FILE=ca, BANK_CLIENT_CERT=str(tmp_path / "ours")) as gateway:
            answer = gateway.pay(amount=4711)
            assert (answer.status_code, answer.json()["status"]) == (201, "AUTHORIZED")
        assert [payment["amount"] for payment in received] == [4711]


def test_a_bank_with_an_untrusted_certificate_gets_no_payment(authority: trustme.CA, ca: str) -> None:
    """Without BANK_CA_FILE its certificate is not trusted; with it the same bank authorizes."""
    with tls_bank(authority, None) as (url, received):
        with Gateway(BANK_URL=url) as gateway:
            answer = gateway.pay()
            assert (answer.status_code, answer.json()["code"]) == (503, "bank_unavailable")
        assert received == []
        with Gateway(BANK_URL=url, BANK_CA_FILE=ca) as gateway:
            assert gateway.pay().status_code == 201
        assert len(received) == 1


def test_a_stray_reply_authorizes_no_payment_that_the_bank_declined(authority: trustme.CA, ca: str) -> None:
    """The bank declines three payments; a stray reply stands behind 8 KiB of each, in the same TLS record."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %4d\r\n\r\n"
    body = b'{"authorized": false, "authorization_code": ""}'.ljust(8 * 1024 - len(head % 0))
    stray = b'{"authorized": true, "authorization_code": "x"}'
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def decline(connection: socket.socket) -> None:
        connection.sendall(head % len(body) + body + head % len(stray) + stray)

    with scripted_bank(decline, context) as bank, Gateway(BANK_URL=bank.url, BANK_CA_FILE=ca) as gateway:
        assert [gateway.pay().json()["status"] for _ in range(3)] == ["DECLINED"] * 3
        assert len(bank.requests) == 3


@contextlib.contextmanager
def tls_bank(authority: trustme.CA, required: ssl.TLSVersion | None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run a bank at HTTPS that authorizes every payment; yield its URL and the payments that reach it.

    required: the only TLS version it supports, with a client certificate of the authority; None requires neither
    """
    received: list[dict[str, Any]] = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"authorized": true, "authorization_code": "x"}')

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    class Bank(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Ignore the error: some handshakes fail on purpose."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if required is not None:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = context.maximum_version = required
    with Bank(("127.0.0.1", 0), Answers) as bank:
        # The handshake is made in the connection's own thread, so a failed one does not end the server.
        bank.socket = context.wrap_socket(bank.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=bank.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{bank.server_port}", received
        finally:
            bank.shutdown()
            thread.join()
