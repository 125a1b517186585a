"""A wrong answer of a running gateway fails the test."""

import os
import signal
from pathlib import Path

import pytest

from tests.contract import record
from tests.support import AUTHORIZED_CARD, Gateway, workers

BREACH = "201 to POST (create_payment): the body breaks Payment/additionalProperties: (unnamed)"


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_wrong_answer_fails_the_test(count: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a worker process, too, and although the gateway is killed. The card number in it is not recorded."""
    monkeypatch.setenv(record.FOLDER, str(tmp_path))
    settings = {"STORE_URL": f"sqlite:///{tmp_path}.db", "FINGERPRINT_KEY": "0f" * 32, "WORKERS": count}
    lying = Gateway(script=Path(__file__).with_name("lying.py"), settings=settings)
    answer = lying.pay()
    for pid in (*workers(lying), lying.process.pid):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(AssertionError) as raised:
        lying.__exit__()
    assert AUTHORIZED_CARD in answer.text
    assert str(raised.value).endswith(BREACH)
    assert AUTHORIZED_CARD not in lying.answers.read_text()


def test_a_script_that_checks_nothing_fails_the_test(tmp_path: Path) -> None:
    """As run.py itself would; `unchecked` allows it, with a reason."""
    script = tmp_path / "unchecked.py"
    script.write_text("print('API http://127.0.0.1:1/api/v1/payments curl', flush=True)\nimport time\ntime.sleep(60)\n")
    with pytest.raises(AssertionError, match=r"unchecked\.py does not import tests\.contract\.checked"):
        Gateway(script=script)
