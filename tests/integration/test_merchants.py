"""Merchants: API keys are created, used and revoked, and a merchant sees only its own payments."""

import hashlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from cli import operators
from tests import support
from tests.support import ROOT, Gateway, valid_payment, wait_until

FINGERPRINT_KEY = "0f" * 32
KEY = "pgw_test_" + "k" * 43
OTHER_KEY = "pgw_test_" + "o" * 43
ENTRIES = {
    key: f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for key, name in ((KEY, "acme"), (OTHER_KEY, "other"))
}
API_KEYS = ",".join(ENTRIES.values())


def command(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run `python run.py ...` as an operator does."""
    return subprocess.run(
        [sys.executable, "run.py", *arguments],
        env={"PATH": "", "FINGERPRINT_KEY": FINGERPRINT_KEY, **settings},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def create_key(*arguments: str, **settings: str) -> dict[str, str]:
    created: dict[str, str] = json.loads(command("keys", "create", *arguments, "--json", **settings).stdout)
    return created


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **more}


def pay(gateway: Gateway, headers: dict[str, str] | None = None, **changes: Any) -> requests.Response:
    return requests.post(f"{gateway.api}/payments", json=valid_payment(**changes), headers=headers, timeout=30)


def answers(gateway: Gateway, key: str, status: int) -> bool:
    return pay(gateway, bearer(key)).status_code == status


def requires_key(gateway: Gateway) -> bool:
    """Return whether the served contract requires a key."""
    served = requests.get(f"{gateway.api}/openapi.json", timeout=10).json()
    statements = {bool(served["security"]), "securitySchemes" in served["components"]}
    statements |= {"401" in operation["responses"] for item in served["paths"].values() for operation in item.values()}
    assert len(statements) == 1, "the contract says the same everywhere"
    return statements.pop()


def test_without_keys_any_caller_is_accepted(gateway: Gateway) -> None:
    """The banner says so, and the served contract requires no key."""
    assert "none: accepts any caller on this machine" in gateway.banner
    assert not requires_key(gateway)
    assert pay(gateway).status_code == 201


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104  # the subject of this test
def test_listening_on_other_addresses_than_loopback_requires_keys(host: str) -> None:
    """Without a key the gateway does not start, and says what to do; with one it starts and requires it."""
    settings = {"BANK_URL": "simulator:", "ALLOW_PLAINTEXT": "1"}
    refused = command("--host", host, "--port", "0", **settings)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"HOST {host} can be reached from other machines, and there are no API keys: ")
    assert refused.stdout == ""
    with Gateway("--host", host, API_KEYS=API_KEYS, ALLOW_PLAINTEXT="1") as gateway:
        assert requires_key(gateway)
        assert pay(gateway).status_code == 401
        assert pay(gateway, bearer(KEY)).status_code == 201


def test_a_key_is_accepted_as_a_bearer_token_only() -> None:
    """A missing, malformed, repeated or wrong key is a 401 with WWW-Authenticate, before the body is checked."""
    with Gateway(API_KEYS=API_KEYS) as gateway:
        for valid in (f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY} "):
            assert pay(gateway, {"Authorization": valid}).status_code == 201
        wrong = [
            "",
            "Bearer",
            "Bearer ",
            KEY,
            f"Basic {KEY}",
            f"Bearer {KEY}x",
            f"Bearer {KEY[:-1]}",
            f"Bearer {KEY} {KEY}",
        ]
        wrong += [f"Bearer {hashlib.sha256(KEY.encode()).hexdigest()}", "Bearer é", f"Token {KEY}"]
        for header in wrong:
            answer = pay(gateway, {"Authorization": header.encode("latin-1")})  # type: ignore[dict-item]
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), header
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert KEY not in answer.text
        payment = f"{gateway.api}/payments"
        for answer in (
            requests.post(payment, timeout=10),
            requests.post(payment, data=b"x" * 20_000, timeout=10),
            requests.get(f"{payment}/no-uuid", timeout=10),
        ):
            assert answer.status_code == 401, "the caller is checked before the request"
        assert requests.get(f"{gateway.api}/nothing", timeout=10).status_code == 404
        with gateway.connect() as connection:
            header = f"Authorization: Bearer {KEY}\r\n"
            connection.sendall(f"GET /api/v1/payments/x HTTP/1.1\r\nHost: localhost\r\n{header}{header}\r\n".encode())
            assert b" 401 " in connection.recv(100), "a repeated header is ambiguous"
        gateway.stop()
        assert KEY not in gateway.log


def test_a_merchant_sees_its_own_payments_only() -> None:
    """Another merchant's payment is a 404, as an unknown one is; two merchants may use the same idempotency key."""
    with Gateway(API_KEYS=API_KEYS) as gateway:
        mine = pay(gateway, bearer(KEY, **{"Idempotency-Key": "the same"}))
        other = pay(gateway, bearer(OTHER_KEY, **{"Idempotency-Key": "the same"}), amount=2000)
        assert (mine.status_code, other.status_code) == (201, 201)
        assert "Idempotent-Replayed" not in other.headers
        again = pay(gateway, bearer(KEY, **{"Idempotency-Key": "the same"}))
        assert (again.json(), again.headers["Idempotent-Replayed"]) == (mine.json(), "true")
        for key, own, foreign in ((KEY, mine, other), (OTHER_KEY, other, mine)):
            found = requests.get(gateway.root + own.headers["Location"], headers=bearer(key), timeout=10)
            assert (found.status_code, found.json()) == (200, own.json())
            hidden = requests.get(gateway.root + foreign.headers["Location"], headers=bearer(key), timeout=10)
            never = requests.get(
                f"{gateway.api}/payments/{'0' * 8}-0000-4000-8000-{'0' * 12}", headers=bearer(key), timeout=10
            )
            assert hidden.status_code == never.status_code == 404
            assert hidden.json() | {"instance": ""} == never.json() | {"instance": ""}


def test_keys_in_a_database_are_valid_and_revoked_in_every_process(database_url: str) -> None:
    """Two gateways know a new key and a revocation within seconds; the last use is listed to the minute."""
    settings = {"STORE_URL": database_url, "FINGERPRINT_KEY": FINGERPRINT_KEY, "BANK_URL": "simulator:"}
    early = command("keys", "create", "acme", **settings)
    assert early.returncode == 1
    assert "`run.py migrate` creates" in early.stderr
    assert command("migrate", **settings).stdout.startswith("created the tables, schema version ")
    first = create_key("acme", **settings)
    assert first["key"].startswith("pgw_test_")
    assert create_key("acme", **settings | {"BANK_URL": "http://bank.test"})["key"].startswith("pgw_live_")
    with Gateway(settings=settings) as one, Gateway(settings=settings) as two:
        assert requires_key(one)
        assert requires_key(two)
        for gateway in (one, two):
            assert pay(gateway).status_code == 401
            assert pay(gateway, bearer(first["key"])).status_code == 201
        second = create_key("acme", "--live", **settings)
        for gateway in (one, two):
            wait_until(partial(answers, gateway, second["key"], 201), 5)

        def listed() -> dict[str, dict[str, str]]:
            rows = json.loads(command("keys", "list", "--json", **settings).stdout)
            return {row["id"]: row for row in rows}

        wait_until(lambda: listed()[first["id"]]["last_used_at"] != "-")
        used = listed()[first["id"]]
        assert (used["merchant"], used["kept_in"], used["revoked_at"]) == ("acme", "store", "-")
        assert used["last_used_at"].count(":") == 2, "hours, minutes and the time zone, no seconds"
        assert command("keys", "revoke", first["id"], **settings).returncode == 0
        for gateway in (one, two):
            wait_until(partial(answers, gateway, first["key"], 401), 5)
            assert pay(gateway, bearer(second["key"])).status_code == 201
        assert listed()[first["id"]]["revoked_at"] != "-"
        again = command("keys", "revoke", first["id"], **settings)
        assert (again.returncode, again.stderr) == (1, f"no valid key has the ID {first['id']}\n")
        listing = command("keys", "list", **settings).stdout
        assert command("keys", "revoke", second["id"], **settings).returncode == 0
        trail = json.loads(command("keys", "history", "--json", **settings).stdout)
        assert {line["changed_by"] for line in trail} == {operators.this_process()}
        assert [line["change"] for line in trail] == ["created", "created", "created", "revoked", "revoked"]
        assert [line["id"] for line in trail][2:] == [second["id"], first["id"], second["id"]]
        wait_until(lambda: pay(one, bearer(second["key"])).status_code == 401, 5)
        assert pay(one).status_code == 401, "after the last key is revoked, a key is still required"
    with Gateway(settings=settings) as after:
        assert pay(after).status_code == 401, "also after a restart"
    for key in (first["key"], second["key"]):
        assert key not in one.log + two.log + listing


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_first_key_ends_open_access(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A running gateway requires the key, and its contract says so."""
    url = support.store_url(kind, tmp_path, request)
    settings = {"STORE_URL": url, "FINGERPRINT_KEY": FINGERPRINT_KEY, "BANK_URL": "simulator:"}
    with Gateway(settings=settings) as gateway:
        assert pay(gateway).status_code == 201
        created = create_key("acme", PORT=gateway.api.split(":")[2].split("/")[0], **settings)
        wait_until(lambda: pay(gateway).status_code == 401, 5)
        assert requires_key(gateway)
        assert pay(gateway, bearer(created["key"])).status_code == 201


def test_without_a_database_a_key_is_created_for_api_keys(tmp_path: Path) -> None:
    """The command prints the key and its entry for API_KEYS; a gateway with that entry accepts the key."""
    with support.free_port() as port:
        printed = command("keys", "create", "acme", PORT=str(port)).stdout
    key, *text = printed.splitlines()
    entry = printed.split("API_KEYS=")[1].strip()
    assert entry == f"acme:{hashlib.sha256(key.encode()).hexdigest()}"
    assert "not shown again" in " ".join(text)
    with Gateway(API_KEYS=entry, cwd=tmp_path) as gateway:
        assert pay(gateway).status_code == 401
        assert pay(gateway, bearer(key)).status_code == 201
        port_given = {"PORT": gateway.api.split(":")[2].split("/")[0]}
        (row,) = json.loads(command("keys", "list", "--json", **port_given).stdout)
        assert (row["merchant"], row["kept_in"]) == ("acme", "API_KEYS")
        assert row["last_used_at"] != "-"
        revoked = command("keys", "revoke", row["id"], **port_given)
        assert (revoked.returncode, revoked.stderr.split(":")[0]) == (1, f"{row['id']} is in API_KEYS")


@pytest.mark.parametrize("merchant", ["", "4cme", "a b", "a" * 65, "é", "a:b", "a,b"])
def test_a_merchants_name_is_a_plain_word(merchant: str, tmp_path: Path) -> None:
    """It appears in logs, in API_KEYS and on the command line."""
    refused = command("keys", "create", merchant, STORE_URL=f"sqlite:///{tmp_path}/p.db")
    assert refused.returncode == 2
    assert "not a merchant name" in refused.stderr
