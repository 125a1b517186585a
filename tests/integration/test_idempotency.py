"""Idempotency: requests with the same key are one payment, in memory and in databases."""

import hmac
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from bank.simulator import Simulator
from tests import older_store, support
from tests.support import ROOT, Gateway, lasting, valid_payment, wait_until

FINGERPRINT_KEY = "0f" * 32


def settings(url: str) -> dict[str, str]:
    return {"STORE_URL": url, "FINGERPRINT_KEY": FINGERPRINT_KEY}


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgresql"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway on each store for the whole file; every test uses its own keys."""
    url = support.store_url(request.param, tmp_path_factory.mktemp("store"), request)
    with Gateway(BANK_TIMEOUT_S="1", BANK_CONNECT_TIMEOUT_S="0.2", settings=settings(url)) as running:
        yield running


def pay(gateway: Gateway, key: str, **changes: object) -> requests.Response:
    return requests.post(
        f"{gateway.api}/payments", json=valid_payment(**changes), headers={"Idempotency-Key": key}, timeout=30
    )


def test_a_repeated_key_is_replayed_refused_or_in_use(gateway: Gateway) -> None:
    """A settled payment is replayed, another payment is a 422, a running request is a 409, and PENDING stays a 202."""
    for card_number, status in ((support.AUTHORIZED_CARD, "AUTHORIZED"), (support.DECLINED_CARD, "DECLINED")):
        first = pay(gateway, f"settled {status}", card_number=card_number)
        again = pay(gateway, f"settled {status}", card_number=card_number)
        assert first.json()["status"] == status
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["Location"] == first.headers["Location"]
        assert again.headers["Idempotent-Replayed"] == "true"
        assert "Idempotent-Replayed" not in first.headers

    reordered = json.dumps(dict(reversed(valid_payment().items())), indent=3)
    headers = {"Idempotency-Key": '"settled AUTHORIZED"', "Content-Type": "application/json"}
    again = requests.post(f"{gateway.api}/payments", data=reordered, headers=headers, timeout=10)
    assert again.headers.get("Idempotent-Replayed") == "true", "quotes, order and white space do not matter"

    again = pay(gateway, "settled AUTHORIZED", cvv="9999")
    assert again.headers.get("Idempotent-Replayed") == "true", "the CVV takes part in nothing that is kept"

    for change in ({"amount": 1051}, {"expiry_month": 11}, {"card_number": support.DECLINED_CARD}):
        reused = pay(gateway, "settled AUTHORIZED", **change)
        assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
        assert "1050" not in reused.text
        assert "8877" not in reused.text

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(pay, gateway, "in use", card_number=support.SILENT) for _ in range(2)]
        pending, in_use = sorted((call.result() for call in calls), key=lambda answer: answer.status_code)
    assert (pending.status_code, pending.json()["status"]) == (202, "PENDING")
    assert (in_use.status_code, in_use.json()["code"]) == (409, "idempotency_key_in_use")
    assert in_use.headers["Retry-After"] == "1"
    again = pay(gateway, "in use", card_number=support.SILENT)
    assert (again.status_code, again.json()["id"]) == (202, pending.json()["id"])
    assert again.headers["Location"] == pending.headers["Location"]
    wait_until(lambda: pay(gateway, "in use", card_number=support.SILENT).status_code == 201)
    settled = pay(gateway, "in use", card_number=support.SILENT).json()
    assert settled["status"] == "AUTHORIZED", "the resolver has settled it"
    assert lasting(settled) == lasting(pending.json())


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"cvv": "12"}, 400), ({"card_number": support.REFUSED}, 500), ({"card_number": support.UNAVAILABLE_CARD}, 503)],
)
def test_a_key_is_free_after_a_failure(gateway: Gateway, changes: dict[str, str], status: int) -> None:
    """A payment that failed leaves no record, so its key may be used for another payment."""
    key = str(uuid.uuid4())
    assert pay(gateway, key, **changes).status_code == status
    fresh = pay(gateway, key)
    assert fresh.status_code == 201
    assert "Idempotent-Replayed" not in fresh.headers


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("a", 201),
        ("a b", 201),
        ("~" * 255, 201),
        ('"' + "x" * 255 + '"', 201),
        (r'"a\"b\\c"', 201),
        ("x" * 256, 400),
        ('"' + "x" * 256 + '"', 400),
        ('""', 400),
        ('"a', 400),
        ('"a"b', 400),
        (r'"a\b"', 400),
        ("a\tb", 400),
        ("é", 400),
        ("", 400),
        ("2222405343248877", 400),
        ("order-4000-0000-0000-0119 (1)", 400),
        ('"3782 822463 10005"', 400),
        ("order/6304000000000000000", 400),
        ("1764001234567890", 201),
        ("20261124101530-000017", 201),
        ("order-1764000000000", 201),
        ("c0ffee22224053432488770123456789", 201),
        ("12345678-2345-4345-8345-123456789012", 201),
    ],
)
def test_a_key_is_printable_ascii_quoted_or_bare(gateway: Gateway, header: str, status: int) -> None:
    """A key has 1 to 255 characters, and no 14 to 19 digits that may be a card number."""
    headers = {"Idempotency-Key": header.encode("latin-1")}
    answer = requests.post(f"{gateway.api}/payments", json=valid_payment(), headers=headers, timeout=10)
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["errors"] == [
            {
                "field": "Idempotency-Key",
                "code": "wrong_format",
                "message": "must be 1 to 255 printable ASCII characters, bare or quoted, without a card number",
            }
        ]


def test_a_wrong_key_and_wrong_fields_are_one_400(gateway: Gateway) -> None:
    """The answer lists errors in headers and in the body together."""
    answer = pay(gateway, "x" * 256, cvv="1", amount=0)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["Idempotency-Key", "amount", "cvv"]


def test_fifty_concurrent_requests_to_two_processes_are_one_authorization(database_url: str) -> None:
    """The bank is asked once; every request gets that payment or a 409."""
    simulator = Simulator(latency_s=0.3)
    simulator.start()
    common = {"BANK_URL": simulator.url, **settings(database_url)}
    with Gateway(settings=common) as one, Gateway(settings=common) as other, ThreadPoolExecutor(50) as pool:
        key = str(uuid.uuid4())
        answers = list(pool.map(lambda n: pay((one, other)[n % 2], key), range(50)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {201, 409}
        assert statuses.count(201) >= 1
        ids = {answer.json()["id"] for answer in answers if answer.status_code == 201}
        assert [pay(gateway, key).json()["id"] for gateway in (one, other)] == [*ids] * 2
        assert list(requests.get(f"{simulator.url}/ledger", timeout=10).json()) == [*ids]
    simulator.stop()


def test_several_workers_share_a_database(database_url: str) -> None:
    """With WORKERS=2, every worker finds every payment."""
    with Gateway(WORKERS="2", settings=settings(database_url)) as gateway:
        wait_until(lambda: gateway.pay().status_code == 201, 30)
        made = [pay(gateway, f"key {number}").json()["id"] for number in range(5)]
        for payment_id in made * 4:
            assert requests.get(f"{gateway.api}/payments/{payment_id}", timeout=10).status_code == 200
        assert gateway.stop() == 0


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """When that process is killed, the workers stop by themselves, and the port is free again."""
    url = f"sqlite:///{tmp_path}/payments.db"
    with Gateway(WORKERS="2", settings=settings(url)) as gateway:
        wait_until(lambda: gateway.pay().status_code == 201, 30)
        gateway.process.kill()
        wait_until(lambda: not support.answers(f"{gateway.root}/health/live"), 20)
    port = gateway.api.split(":")[2].split("/")[0]
    with Gateway(WORKERS="2", settings=settings(url), PORT=port) as again:
        wait_until(lambda: again.pay().status_code == 201, 30)


def test_the_fingerprint_key_must_be_known_to_the_database(tmp_path: Path) -> None:
    """With another key the gateway does not start, and says why in one line."""
    url = f"sqlite:///{tmp_path}/payments.db"
    with Gateway(settings=settings(url)):
        pass
    with pytest.raises(AssertionError, match=r"STORE_URL can't be used: was made with another FINGERPRINT_KEY"):
        Gateway(STORE_URL=url, FINGERPRINT_KEY="aa" * 32)
    with pytest.raises(AssertionError, match=r"FINGERPRINT_KEY is not set"):
        Gateway(STORE_URL=url)


def test_the_fingerprint_key_is_replaced_while_gateways_run(database_url: str) -> None:
    """Both recognize the payments of the other; `fingerprint-keys` says how many payments need each key."""
    new = {"STORE_URL": database_url, "FINGERPRINT_KEY": "aa" * 32, "FINGERPRINT_OLD_KEYS": FINGERPRINT_KEY}
    same_last4 = "4000000000008877"
    old = {**settings(database_url), "FINGERPRINT_OLD_KEYS": "aa" * 32}
    with Gateway(settings=old) as one, Gateway(settings=new) as other:
        for maker, repeater in ((one, other), (other, one)):
            key = str(uuid.uuid4())
            made = pay(maker, key)
            assert pay(repeater, key).content == made.content
            assert pay(repeater, key, card_number=same_last4).status_code == 422
    command = [sys.executable, str(ROOT / "run.py"), "fingerprint-keys", "--json"]
    ran = subprocess.run(command, env=new, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    current, older = json.loads(ran.stdout)
    assert (current["setting"], current["payments_90d"]) == ("FINGERPRINT_KEY", 1)
    assert (older["setting"], older["payments_90d"]) == ("FINGERPRINT_OLD_KEYS", 1)
    assert FINGERPRINT_KEY not in ran.stdout


def insert_older(connection: sa.Connection, key: str, fingerprint_key: bytes, **changes: Any) -> uuid.UUID:
    """Insert an AUTHORIZED payment as gateways did that made its digests under FINGERPRINT_KEY, with the CVV."""
    payment = valid_payment(**changes)
    values = json.dumps(payment, sort_keys=True, separators=(",", ":"))
    digests = {
        "idempotency_key": hmac.new(fingerprint_key, f"key {key}".encode(), "sha256").hexdigest(),
        "fingerprint": hmac.new(fingerprint_key, values.encode(), "sha256").hexdigest(),
    }
    last4 = payment.pop("card_number")[-4:]
    del payment["cvv"]
    payment_id = uuid.uuid4()
    at = datetime.now(UTC).replace(tzinfo=None)
    row = {"merchant": "default", "status": "AUTHORIZED", "card_last4": last4, "look_ups": 0, **payment, **digests}
    row |= {"id": payment_id, **dict.fromkeys(("created_at", "working_until", "look_up_at"), at)}
    table = sa.table("payments", sa.column("id", sa.Uuid), *(sa.column(name) for name in row if name != "id"))
    connection.execute(sa.insert(table).values(row))
    return payment_id


def test_a_payment_of_an_older_gateway_is_found_without_its_fingerprint(database_url: str, tmp_path: Path) -> None:
    """The upgrade clears fingerprints that the CVV took part in; what is kept of the card and the amount decide."""
    key = bytes.fromhex(FINGERPRINT_KEY)
    with older_store.made(database_url, "0002") as connection:
        key_check = hmac.new(key, b"key check", "sha256").hexdigest()
        connection.execute(sa.text("INSERT INTO meta VALUES ('key_check', :check)"), {"check": key_check})
        payment_id = insert_older(connection, "order-1", key)
        (cleared,) = connection.execute(sa.text("SELECT fingerprint FROM payments")).scalars()
    with Gateway(settings=settings(database_url)) as gateway:
        for cvv in ("123", "9999"):
            replayed = pay(gateway, "order-1", cvv=cvv)
            assert (replayed.status_code, replayed.json()["id"]) == (201, str(payment_id))
            assert replayed.headers["Idempotent-Replayed"] == "true"
        changes: tuple[dict[str, Any], ...] = (
            {"amount": 1051},
            {"card_number": support.DECLINED_CARD},
            {"expiry_month": 11},
        )
        for change in changes:
            assert pay(gateway, "order-1", **change).status_code == 422
        assert pay(gateway, "order-2").json()["id"] != str(payment_id)
    for file in tmp_path.glob("payments.db*"):
        assert cleared.encode() not in file.read_bytes(), "what was cleared is overwritten"


def test_an_older_gateway_that_still_runs_makes_no_payment_with_a_key(database_url: str) -> None:
    """It would not find the newer digests, so its statements fail and it answers with a 503; it charges nothing."""
    with older_store.made(database_url, "0002"):
        pass
    with Gateway(settings=settings(database_url)):
        pass
    engine = sa.create_engine(database_url)
    with engine.begin() as connection, pytest.raises(sa.exc.DBAPIError):
        insert_older(connection, "order-1", bytes(32))
    engine.dispose()
