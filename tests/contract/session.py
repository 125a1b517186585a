"""A pytest plugin: at the end of a run, each answer that was seen is documented, and each documented one was seen.

Each documented status of each operation must have been received by a test, from a gateway without keys and from one
with keys. A run of only some tests is not held to that.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import record
from tests.contract.promises import Promises

_PROBLEMS = pytest.StashKey[list[str]]()
_NOTE = pytest.StashKey[str]()

# Options that leave tests out.
_CHOOSE = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "collectonly")


def pytest_configure(config: pytest.Config) -> None:
    """Create the folder of the run, whose name xdist's workers inherit."""
    if not hasattr(config, "workerinput"):
        os.environ[record.FOLDER] = tempfile.mkdtemp(prefix="answers-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder of the run."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(record.FOLDER))


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Fail the run if what the tests received is not what is documented; xdist's workers have ended by then."""
    yield
    config = session.config
    if hasattr(config, "workerinput"):
        return
    written = [entry for path in Path(os.environ[record.FOLDER]).iterdir() for entry in record.entries(path)]
    problems = sorted({f"an answer breaks the contract: {entry['broken']}" for entry in written if "broken" in entry})
    if why := _why_partial(session):
        config.stash[_NOTE] = f"Whether a test received each documented answer is not checked: {why}."
    else:
        seen = {tuple(entry["seen"]) for entry in written if "seen" in entry}
        problems += [
            f"no test received {status} from {operation} of a gateway {kind}"
            for kind, operation, status in sorted(documented() - seen)
        ]
    config.stash[_PROBLEMS] = problems
    if problems and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what was found."""
    problems, note = config.stash.get(_PROBLEMS, []), config.stash.get(_NOTE, "")
    if problems or note:
        terminalreporter.section("answers and the contract")
        for line in filter(None, (*problems, note)):
            terminalreporter.line(line, red=line != note)


def documented() -> set[tuple[str, str, int]]:
    """Return each documented status as kind of the gateway, operationId and status."""
    from app import today_utc  # noqa: PLC0415  # takes a second, which a run of few tests need not spend
    from handlers.contract import Contract  # noqa: PLC0415

    contracts = [Contract((), today_utc, is_open, simulator=True) for is_open in (lambda: True, lambda: False)]
    return set().union(*(Promises(contract.served_json()).seen() for contract in contracts))


def _why_partial(session: pytest.Session) -> str:
    """Return why not all tests have run; empty if they have."""
    config = session.config
    finished = session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
    if session.shouldfail or session.shouldstop or not finished:
        return "the run ended early"
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS or any(map(config.getoption, _CHOOSE)):
        return "only some tests ran"
    return ""
