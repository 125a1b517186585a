"""Corrections: the bank's answer turns DECLINED into AUTHORIZED, and everybody learns of it."""

import asyncio
import json
import re
import socket
import threading
from uuid import UUID

import requests

import store
from store import Status
from tests.integration.test_operator import command, settings
from tests.support import Gateway, lasting, reply, scripted_bank, settle_found, wait_until

KEY = {"Idempotency-Key": "the only payment"}


def conflicts(gateway: Gateway) -> float:
    metrics = gateway.banner.split("Metrics")[1].split()[0]
    found = re.search(r"^payment_gateway_conflicts_total (\S+)$", requests.get(metrics, timeout=10).text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def changes(database_url: str, payment_id: str) -> list[tuple[str, str, str]]:
    history = json.loads(command(database_url, "history", payment_id, "--json").stdout)
    return [(change["from"], change["to"], change["code"]) for change in history]


def test_a_look_up_corrects_what_an_operator_recorded(database_url: str) -> None:
    """The operator records DECLINED while the bank is asked, and the bank says AUTHORIZED."""
    settled = threading.Event()
    asked: list[str] = []

    def answer(connection: socket.socket) -> None:
        request = bank.requests[-1].decode()
        looked_up = re.match(r"GET /payments/(\S+)", request)
        if looked_up is None:
            reply(500, b"")(connection)
            return
        asked.append(looked_up[1])
        settled.wait(30)
        known = {"payment_id": looked_up[1], "status": "authorized", "authorization_code": "C1"}
        reply(200, json.dumps(known).encode())(connection)

    store.configure(database_url, fingerprint_key=bytes.fromhex(settings(database_url)["FINGERPRINT_KEY"]))
    with scripted_bank(answer) as bank:
        options = {**settings(database_url), "BANK_URL": bank.url, "BANK_TIMEOUT_S": "30"}
        with Gateway(settings=options, METRICS_PORT="0") as gateway:
            pending = gateway.pay()
            assert (pending.status_code, pending.json()["status"]) == (202, "PENDING")
            payment_id = pending.json()["id"]
            assert conflicts(gateway) == 0
            wait_until(lambda: payment_id in asked)
            # In this process, because the look-up ends after 3 s, and a command may take longer to start.
            asyncio.run(settle_found(UUID(payment_id), Status.DECLINED, "operator", "a statement"))
            settled.set()
            wait_until(lambda: gateway.find(payment_id).json()["status"] == "AUTHORIZED")
            wait_until(lambda: conflicts(gateway) == 1)
            error = f"payment {payment_id} was recorded as DECLINED, but the bank's answer is AUTHORIZED"
            wait_until(lambda: f"ERROR gateway.payments {error}" in gateway.log)
            expected = [("PENDING", "DECLINED", ""), ("DECLINED", "AUTHORIZED", "C1")]
            assert changes(database_url, payment_id) == expected


def test_an_operator_corrects_declined_and_never_authorized(database_url: str) -> None:
    """A repeated request is answered with the corrected payment."""
    bank_declines = scripted_bank(reply(200, b'{"authorized": false}'))
    with bank_declines as bank, Gateway(settings=settings(database_url), BANK_URL=bank.url) as gateway:
        gateway.session.headers.update(KEY)
        declined = gateway.pay().json()
        assert declined["status"] == "DECLINED"
        by_hand = ("--note", "bank statement 12 May", "--code", "C1")
        corrected = command(database_url, "settle", declined["id"], "authorized", *by_hand)
        assert (corrected.returncode, corrected.stdout) == (0, f"{declined['id']} AUTHORIZED, was DECLINED\n")
        shown = gateway.find(declined["id"]).json()
        assert (shown["status"], shown["authorization_code"], shown["response_code"]) == ("AUTHORIZED", "C1", "10000")
        assert lasting(shown) == lasting(declined)
        assert gateway.pay().json() == shown
        for outcome in ("declined", "authorized"):
            refused = command(database_url, "settle", declined["id"], outcome, "--note", "no")
            assert (refused.returncode, refused.stderr) == (1, f"{declined['id']} is already AUTHORIZED\n")
        expected = [("PENDING", "DECLINED", ""), ("DECLINED", "AUTHORIZED", "C1")]
        assert changes(database_url, declined["id"]) == expected
