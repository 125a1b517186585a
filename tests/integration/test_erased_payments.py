"""Erasure: what an operator and a merchant see of an erased payment."""

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

import store
from bank.simulator import Simulator
from store import Status
from tests import support
from tests.support import Gateway, pending_payment, valid_payment, wait_until


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
def test_an_erased_payment_is_not_found_and_its_key_charges_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """GET is a 404, the key a 422 whatever is sent with it, and the bank gets no second payment."""
    settings = {"STORE_URL": support.store_url(kind, tmp_path, request), "FINGERPRINT_KEY": "0f" * 32}
    simulator = Simulator()
    simulator.start()
    with Gateway(settings=settings, BANK_URL=simulator.url) as gateway:

        def pay(**changes: object) -> requests.Response:
            headers = {"Idempotency-Key": "order-1"}
            return gateway.session.post(f"{gateway.api}/payments", json=valid_payment(**changes), headers=headers)

        payment_id = pay().json()["id"]
        erased = gateway.operate("erase", payment_id)
        assert (erased.returncode, erased.stdout) == (0, f"{payment_id} is erased\n")
        missing = gateway.find(payment_id)
        assert (missing.status_code, missing.json()["code"]) == (404, "payment_not_found")
        for again in (pay(), pay(amount=1)):
            assert (again.status_code, again.json()["code"]) == (422, "idempotency_key_reused")
        assert list(requests.get(f"{simulator.url}/ledger", timeout=10).json()) == [payment_id]
        (listed,) = json.loads(gateway.operate("payments", "--json").stdout)
        assert (listed["id"], listed["status"], listed["amount"]) == (payment_id, "AUTHORIZED", 1050)
        assert (listed["card_last4"], listed["expiry"]) == ("-", "-")
        line = json.loads(gateway.operate("history", payment_id, "--json").stdout)[-1]
        assert line["changed_by"].startswith(f"operator {os.getuid()}")
        assert (line["from"], line["to"]) == ("AUTHORIZED", "ERASED")
        twice = gateway.operate("erase", payment_id)
        assert (twice.returncode, twice.stderr) == (1, f"there is no payment {payment_id} that is not erased already\n")

        in_doubt = gateway.pay(card_number=support.FAILED).json()["id"]
        refused = gateway.operate("erase", in_doubt)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"{in_doubt} is PENDING: record first how it ended")
        assert gateway.find(in_doubt).status_code == 200
    simulator.stop()


def test_old_payments_are_erased_by_a_gateway_with_retention_days(database_url: str) -> None:
    """A payment that is younger, and an old one without the setting, stay."""
    settings = {"STORE_URL": database_url, "FINGERPRINT_KEY": "0f" * 32}
    old, young = (pending_payment(created_at=datetime.now(UTC) - timedelta(days=days)) for days in (31, 29))

    async def fill() -> None:
        for payment in (old, young):
            await store.claim(payment, None, 60)
            await store.settle(payment, Status.AUTHORIZED, "gateway")

    async def is_erased() -> list[bool]:
        found = [await store.find(payment.id) for payment in (old, young)]
        return [payment is not None and payment.erased_at is not None for payment in found]

    store.configure(database_url, fingerprint_key=bytes.fromhex("0f" * 32))
    asyncio.run(fill())
    with Gateway(settings=settings, RETENTION_DAYS="30") as gateway:
        wait_until(lambda: "1 payments older than 30 days are erased" in gateway.log)
        assert asyncio.run(is_erased()) == [True, False]
        (line,) = json.loads(gateway.operate("history", str(old.id), "--json").stdout)[1:]
        assert (line["changed_by"], line["to"], line["note"]) == ("retention", "ERASED", "older than 30 days")
