"""The bank's statement: an operator compares the simulator's ledger with the payments of a running gateway."""

import json
from pathlib import Path

import pytest
import requests

from bank.simulator import Simulator
from tests import support
from tests.support import UNKNOWN_ID, Gateway


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_ledger_of_the_simulator_is_reconciled(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Nothing differs at first; then each difference that is made is found, and the exit status says so."""
    settings = {"STORE_URL": support.store_url(kind, tmp_path, request), "FINGERPRINT_KEY": "0f" * 32}
    simulator = Simulator()
    simulator.start()
    with Gateway(settings=settings, BANK_URL=simulator.url) as gateway:
        paid = [gateway.pay(amount=amount).json()["id"] for amount in (100, 200, 300)]
        declined = gateway.pay(card_number=support.DECLINED_CARD).json()["id"]
        gateway.pay(card_number=support.FAILED)  # it never gets to the ledger as a payment
        answered = requests.get(f"{simulator.url}/ledger.csv", timeout=10)
        assert answered.headers["Content-Type"].startswith("text/csv")
        statement = tmp_path / "statement.csv"
        statement.write_text(answered.text)
        assert answered.text.splitlines()[:2] == [
            "payment_id,amount,currency,outcome,captured,refunded",
            f"{paid[0]},100,GBP,authorized,0,0",
        ]
        agreed = gateway.operate("reconcile", "statement.csv", cwd=tmp_path)
        assert (agreed.returncode, agreed.stderr) == (0, "")
        assert [line.split()[-1] for line in agreed.stdout.splitlines()] == ["payments", "4", *["0"] * 7]

        heading, _, *lines = answered.text.splitlines()
        lines = [line.replace(f"{paid[1]},200", f"{paid[1]},201") for line in lines]
        lines = [line.replace("declined", "authorized") for line in lines]
        statement.write_text("\n".join([heading, *lines, f"{UNKNOWN_ID},7,USD,authorized,0,0"]))
        differs = gateway.operate("reconcile", "statement.csv", "--json", cwd=tmp_path)
        assert (differs.returncode, differs.stderr) == (1, "")
        report = json.loads(differs.stdout)
        assert report["counts"] == {
            "matched": 1,
            "missing here": 1,
            "missing there": 1,
            "amount differs": 1,
            "outcome differs": 1,
            "captured differs": 0,
            "refunded differs": 0,
            "twice there": 0,
        }
        assert {(row["finding"], row["id"]) for row in report["differences"]} == {
            ("missing here", UNKNOWN_ID),
            ("missing there", paid[0]),
            ("amount differs", paid[1]),
            ("outcome differs", declined),
        }
        table = gateway.operate("reconcile", str(statement), "--since", "2999-01-01").stdout.splitlines()
        assert [line.split()[2] for line in table[11:]] == [paid[1], declined, UNKNOWN_ID], (
            "in the order of the statement"
        )

        statement.write_text(f"{heading}\n{UNKNOWN_ID},4242424242424242,sterling,authorized,0,0\n")
        malformed = gateway.operate("reconcile", str(statement))
        assert (malformed.returncode, malformed.stdout) == (2, "")
        assert malformed.stderr == f"{statement} line 2: currency must be three capital letters\n"
        missing = gateway.operate("reconcile", "missing.csv", cwd=tmp_path)
        assert (missing.returncode, missing.stdout) == (2, "")
        assert missing.stderr.endswith("missing.csv can't be read: No such file or directory\n")
    simulator.stop()
