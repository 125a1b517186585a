"""The built-in simulator is the bank in a trial, or by name; it never is by an oversight, and every place says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support import ROOT, Gateway, reply, scripted_bank, valid_payment, wait_until

DATABASE = {"STORE_URL": "sqlite:///payments.db", "FINGERPRINT_KEY": "0f" * 32}
API_KEYS = f"acme:{'a' * 64}"
WARNING = "the bank is the built-in simulator, and no money moves: BANK_URL is simulator:"


def run(folder: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run `run.py` in a folder, until it ends."""
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    environment = {"PORT": "0", **settings}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (DATABASE, "STORE_URL is not memory:"),
        ({"API_KEYS": API_KEYS}, "API_KEYS is set"),
        ({"HOST": "0.0.0.0"}, "HOST is not loopback"),  # noqa: S104  # the subject of this test
    ],
)
def test_without_bank_url_only_a_trial_starts(settings: dict[str, str], reason: str, tmp_path: Path) -> None:
    """Beyond a trial the start stops with one line: set BANK_URL, or name the simulator."""
    stopped = run(tmp_path, **settings)
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert stopped.stderr == (
        f"BANK_URL is not set, and {reason}: set BANK_URL to the bank's URL, or to simulator: for the built-in "
        "simulator, with which no money moves\n"
    )
    assert not list(tmp_path.iterdir()), "nothing was made"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"HOST": "0.0.0.0", "BANK_URL": "simulator:"}, "HOST 0.0.0.0 can be reached"),  # noqa: S104
        ({"BANK_URL": "http://192.0.2.1:8080"}, "BANK_URL is http"),
        ({"BANK_URL": "HTTP://name.invalid"}, "BANK_URL is http"),
    ],
)
def test_plaintext_beyond_this_machine_is_chosen(settings: dict[str, str], reason: str, tmp_path: Path) -> None:
    """Cards would cross a network without TLS, so the start stops with one line that names ALLOW_PLAINTEXT."""
    settings = settings | {"API_KEYS": API_KEYS}
    stopped = run(tmp_path, **settings)
    assert (stopped.returncode, stopped.stdout, stopped.stderr.count("\n")) == (1, "", 1)
    assert stopped.stderr.startswith(reason)
    assert "ALLOW_PLAINTEXT=1" in stopped.stderr
    with Gateway(cwd=tmp_path, settings=settings, ALLOW_PLAINTEXT="1") as gateway:
        assert gateway.session.get(f"{gateway.root}/health/live", timeout=10).status_code == 200


def test_a_simulator_that_the_gateway_does_not_start_is_a_bank_like_any_other(tmp_path: Path) -> None:
    """BANK_URL can't call an address a simulator."""
    stopped = run(tmp_path, BANK_URL="simulator://127.0.0.1:8080/id")
    assert stopped.returncode == 1
    assert stopped.stderr.startswith("BANK_URL has more than simulator:; allowed: http://")
    assert stopped.stderr.count("\n") == 1


def test_in_a_trial_the_simulator_is_the_bank(tmp_path: Path) -> None:
    """Without any setting, the banner and readiness say that no money moves, and no warning is needed."""
    with Gateway(cwd=tmp_path, BANK_URL="") as gateway:
        assert "(the built-in simulator: no money moves)" in gateway.banner
        assert gateway.session.get(f"{gateway.root}/health/ready").json()["simulator"] is True
        assert gateway.pay().json()["status"] == "AUTHORIZED"
        gateway.stop()
        assert "WARNING" not in gateway.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_simulator_by_name_is_announced_everywhere(workers: str, tmp_path: Path) -> None:
    """A WARNING, the banner, readiness and `keys create` say that no money moves; workers share one simulator."""
    settings = {**DATABASE, "BANK_URL": "simulator:"}
    assert run(tmp_path, "migrate", **settings).returncode == 0
    created = run(tmp_path, "keys", "create", "acme", **settings)
    key, *text = created.stdout.splitlines()
    assert key.startswith("pgw_test_")
    assert "The bank is the built-in simulator: no money moves." in text
    with Gateway(cwd=tmp_path, settings=settings, WORKERS=workers, key=key) as gateway:
        wait_until(lambda: WARNING in gateway.log)
        bank, _, words = gateway.banner.split("Bank ")[1].splitlines()[0].strip().partition(" ")
        assert words == "(the built-in simulator: no money moves)"
        made = set()
        for _ in range(10):
            # Each request has a connection of its own, which either worker may accept.
            assert requests.get(f"{gateway.root}/health/ready", timeout=10).json()["simulator"] is True
            headers = {"Authorization": f"Bearer {key}"}
            paid = requests.post(f"{gateway.api}/payments", json=valid_payment(), headers=headers, timeout=10)
            made.add(paid.json()["id"])
        assert set(requests.get(f"{bank}/ledger", timeout=10).json()) == made


def test_the_kind_of_a_key_is_never_guessed(tmp_path: Path) -> None:
    """`keys create` on a database without BANK_URL asks for --live or --test; with a bank's URL the key is live."""
    assert run(tmp_path, "migrate", **DATABASE).returncode == 0
    refused = run(tmp_path, "keys", "create", "acme", **DATABASE)
    assert refused.returncode == 1
    assert refused.stderr.startswith("BANK_URL is not set, so the kind of the key is unknown: ")
    for arguments, bank, prefix in (
        (("--live",), "", "pgw_live_"),
        (("--test",), "", "pgw_test_"),
        ((), "https://bank.test", "pgw_live_"),
    ):
        created = run(tmp_path, "keys", "create", "acme", "--json", *arguments, BANK_URL=bank, **DATABASE)
        assert json.loads(created.stdout)["key"].startswith(prefix)
        assert json.loads(created.stdout)["simulator"] is False


def test_a_bank_is_not_called_simulated() -> None:
    """With a bank's URL, readiness, the banner and the contract's examples say nothing of a simulator."""
    with scripted_bank(reply(200, b'{"authorized": true}')) as bank, Gateway(BANK_URL=bank.url) as gateway:
        assert f"{bank.url} (set by BANK_URL)" in gateway.banner
        assert gateway.session.get(f"{gateway.root}/health/ready").json()["simulator"] is False
        text = gateway.session.get(f"{gateway.api}/openapi.json").text
        served = json.loads(text)
        examples = served["paths"]["/payments"]["post"]["requestBody"]["content"]["application/json"]["examples"]
        assert list(examples) == ["payment"]
        assert "simulat" not in text.lower()
        value = served["components"]["examples"][examples["payment"]["$ref"].rpartition("/")[2]]["value"]
        assert gateway.session.post(f"{gateway.api}/payments", json=value).status_code == 201
        gateway.stop()
        assert "simulat" not in gateway.log


def test_a_misspelled_name_is_reported_at_the_start(tmp_path: Path) -> None:
    """In .env it stops the start; in the environment it is a WARNING."""
    (tmp_path / ".env").write_text("BANK_URLL=https://bank.test\n")
    stopped = run(tmp_path)
    assert (stopped.returncode, stopped.stderr) == (1, ".env line 1 sets BANK_URLL: did you mean BANK_URL?\n")
    (tmp_path / ".env").unlink()
    with Gateway(cwd=tmp_path, BANK_URLL="https://bank.test") as gateway:
        wait_until(lambda: "the environment sets BANK_URLL: did you mean BANK_URL?" in gateway.log)
