"""A run of all tests fails with a wrong answer, and without a documented one."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.contract import session
from tests.support import ROOT

NOTE = "Whether a test received each documented answer is not checked: only some tests ran."

SEEN = sorted(session.documented())
LAST = "no test received {2} from {1} of a gateway {0}".format(*SEEN[-1])

# A run of pytest with one test, which writes what a file has as if gateways had.
CONFTEST = 'pytest_plugins = ["tests.contract.session"]\n'
TEST = """
import json, pathlib
from tests.contract.record import Record, new_file

def test_everything():
    written = Record(new_file())
    for method, arguments in json.loads(pathlib.Path("answers.json").read_text()):
        getattr(written, method)(*arguments)
"""


def run(folder: Path, *options: str, seen: list[tuple[str, str, int]], broken: str = "") -> tuple[int, str]:
    """Run pytest where tests have received this; return its exit status and what it printed."""
    folder.mkdir()
    answers = [("saw", each) for each in seen] + [("broken", [broken])] * bool(broken)
    (folder / "answers.json").write_text(json.dumps(answers))
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_everything.py").write_text(TEST)
    (folder / "pytest.ini").write_text(f"[pytest]\ntestpaths = .\npythonpath = {ROOT}\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "xdist", *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100)
    return ran.returncode, ran.stdout + ran.stderr


def test_a_run_of_all_tests_needs_each_documented_answer_and_no_wrong_one(tmp_path: Path) -> None:
    """In any of xdist's processes. A run of some tests only says that it can't know."""
    with ThreadPoolExecutor(3) as pool:
        whole = pool.submit(run, tmp_path / "whole", seen=SEEN)
        wrong = pool.submit(run, tmp_path / "wrong", "-n", "1", seen=SEEN[:-1], broken="no promise")
        part = pool.submit(run, tmp_path / "part", "-k", "everything", seen=SEEN[:-1])
    status, output = whole.result()
    assert (status, "answers and the contract" in output) == (0, False), output
    status, output = wrong.result()
    assert (status, output.count("no test received")) == (1, 1), output
    assert LAST in output
    assert "an answer breaks the contract: no promise" in output
    status, output = part.result()
    assert (status, NOTE in output) == (0, True), output
