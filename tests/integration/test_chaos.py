"""A short run of tests/chaos on each kind of database."""

import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
@pytest.mark.timeout(300)
def test_bank_and_database_agree_after_chaos(store: str) -> None:
    """No payment is lost, charged twice or left PENDING, and no card number is in a file.

    Gateways were killed, and the bank's proxy lied, was late or sent stray replies.
    """
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "12", "--seed", "7", "--store", store]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "     0  authorized by the bank and not in the table (losses)" in run.stdout
    figures = {line[:20].strip(): line[20:].split()[0] for line in run.stdout.splitlines() if line[20:].strip()}
    assert int(figures["bank authorizations"]) > 10
    assert int(figures["kills"]) > 0
    assert int(figures["faults of the bank"]) > 0
