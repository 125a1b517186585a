"""Schemathesis as docs/qa.md runs it, and a search for the card numbers and CVVs that it sent in answers and logs."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from handlers.contract import PATH
from tests.support import ROOT, Gateway

SCRIPTS = Path(sysconfig.get_path("scripts"))
SCHEMATHESIS = SCRIPTS / "schemathesis"
HOOKS = Path(__file__).parent / "fuzz_names.py"
SHARING = Path(__file__).parent / "sharing.py"
QA = (ROOT / "docs" / "qa.md").read_text()

KEYS = {"acme": "pgw_test_" + "k" * 43, "globex": "pgw_test_" + "j" * 43}
API_KEYS = ",".join(f"{merchant}:{hashlib.sha256(key.encode()).hexdigest()}" for merchant, key in KEYS.items())

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def gateway_with_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of two merchants."""
    folder = tmp_path_factory.mktemp("gateway")
    with Gateway(cwd=folder, LOG_LEVEL="DEBUG", API_KEYS=API_KEYS) as running:
        yield running


def test_make_fuzz_finds_no_fault_and_reports_what_it_tried(tmp_path: Path) -> None:
    """It tries every keyword of the contract, with valid and invalid values, on a gateway as `make run` starts it."""
    installed = tmp_path / "dev" / "installed"
    installed.parent.mkdir()
    installed.touch()
    (tmp_path / "dev" / "bin").symlink_to(SCRIPTS)
    variables = {"CASES": "100", "DEV": tmp_path / "dev", "REPORTS": tmp_path}
    coverage = tmp_path / "coverage.json"
    formats = {"SCHEMATHESIS_COVERAGE_FORMAT": "html,json", "SCHEMATHESIS_COVERAGE_REPORT_JSON_PATH": str(coverage)}
    with Gateway(cwd=tmp_path, LOG_LEVEL="DEBUG") as gateway:
        command = ["make", "fuzz", f"URL={gateway.root}", *(f"{name}={value}" for name, value in variables.items())]
        _assert_passed(_run(command, ROOT, **formats), "Examples", "Coverage", "Fuzzing", "Stateful")
    _assert_nothing_is_repeated(_entries(tmp_path / "requests.har"), gateway.log)
    suite = ET.parse(tmp_path / "junit.xml").getroot()  # noqa: S314  # it is our own
    assert {case.get("name") for case in suite.iter("testcase")} >= {"POST /payments", "Stateful tests"}
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
    tried = json.loads(coverage.read_text())
    for part in ("operations", "examples"):
        assert tried["summary"][part]["covered"] == tried["summary"][part]["total"] > 0, part
    assert _parameters(tried) == _parameters(tried, complete=True)
    assert "POST" in (tmp_path / "coverage.html").read_text()


def test_schemathesis_finds_no_fault_in_another_folder_and_keeps_merchants_apart(
    gateway_with_keys: Gateway, tmp_path: Path
) -> None:
    """With the files that docs/qa.md shows, all phases pass, and one merchant asks in vain for the other's payment."""
    report = tmp_path / "requests.har"
    command = [*_for_two_merchants(gateway_with_keys, tmp_path), "--report-har-path", report]
    _assert_passed(_run(command, tmp_path), "Examples", "Coverage", "Fuzzing", "Stateful")
    entries, log = _entries(report), gateway_with_keys.log
    _assert_nothing_is_repeated(entries, log)
    assert 401 in {entry["response"]["status"] for entry in entries}, "ignored_auth sends requests without a valid key"
    asked = re.findall(r"merchant=globex .*operation=get_payment .*status=(\d+)", log)
    assert set(asked) == {"404"}, "object_level_authorization sends the other merchant's key"


def test_schemathesis_finds_payments_that_another_merchant_is_shown(tmp_path: Path) -> None:
    """Without the check of whose payment it is, the same files make a run fail."""
    with Gateway(script=SHARING, cwd=tmp_path, API_KEYS=API_KEYS) as gateway:
        command = [*_for_two_merchants(gateway, tmp_path), "--phases", "stateful", "--max-examples", "100"]
        ran = _run(command, tmp_path)
    assert ran.returncode == 1
    (failure,) = re.findall("❌ (ST.*)", ran.stdout)
    assert re.fullmatch(r"ST402 Object-level authorization bypass: [1-9]", failure)
    assert "`globex` received the `Payment` that `acme` owns" in ran.stdout


def test_schemathesis_finds_no_fault_with_the_file(gateway_with_keys: Gateway, tmp_path: Path) -> None:
    """The gateway also answers as the file says. Its links, which the stateful phase follows, are the served ones."""
    report = tmp_path / "requests.har"
    options = ["--header", f"Authorization: Bearer {KEYS['acme']}", "--phases", "examples,coverage,fuzzing"]
    location = [PATH, "--url", gateway_with_keys.api]
    ran = _run([SCHEMATHESIS, "run", *location, *options, "--report-har-path", report], ROOT)
    _assert_passed(ran, "Examples", "Coverage", "Fuzzing")
    _assert_nothing_is_repeated(_entries(report), gateway_with_keys.log)


def _parameters(tried: dict[str, Any], *, complete: bool = False) -> set[tuple[str, str]]:
    """Return the location and name of each parameter; one that several operations share is there once.

    complete: only those of which each keyword was tried with a valid and an invalid value
    """
    found = set()
    for operation in tried["operations"]:
        for parameter in operation["parameters"]:
            coverage = parameter["coverage"]
            if not complete or coverage["covered"] == coverage["total"] > 0:
                found.add((parameter["location"], parameter.get("name", operation["operation_id"])))
    return found


def _for_two_merchants(gateway: Gateway, folder: Path) -> list[str | Path]:
    """Write the files of docs/qa.md and return its command."""
    merchants = _blocks("yaml")[0]
    for number, key in enumerate(KEYS.values(), 1):
        assert f"pgw_test_{number}..." in merchants
        merchants = merchants.replace(f"pgw_test_{number}...", key)
    (folder / "merchants.yaml").write_text(merchants)
    (folder / "schemathesis.toml").write_text("\n".join(_blocks("toml")))
    (command,) = re.findall("^schemathesis (.+)$", QA, re.MULTILINE)
    return [SCHEMATHESIS, *command.replace("http://127.0.0.1:8000", gateway.root).split()]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", QA, re.DOTALL | re.MULTILINE)


def _run(command: Sequence[str | Path], folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return subprocess.run(
        command,
        cwd=folder,
        env={**environment, "SCHEMATHESIS_HOOKS": str(HOOKS), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )


def _assert_passed(ran: "subprocess.CompletedProcess[str]", *phases: str) -> None:
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr
    assert "No issues found" in ran.stdout
    for phase in phases:
        assert re.search(rf"✅ +{phase} \(in", ran.stdout), f"{phase} did not run: {ran.stdout[-3000:]}"


def _entries(report: Path) -> list[dict[str, Any]]:
    """Return the requests of a run and their responses."""
    entries: list[dict[str, Any]] = json.loads(report.read_text())["log"]["entries"]
    assert len(entries) > 300
    return entries


def _assert_nothing_is_repeated(entries: list[dict[str, Any]], log: str) -> None:
    cards = 0
    ids = {header["value"] for entry in entries for header in entry["request"]["headers"] if _is_id(header)}
    for entry in entries:
        answer = _text(entry["response"]["content"])
        for field, value in _sent(entry["request"]).items():
            if isinstance(value, str) and any(value in request_id for request_id in ids):
                continue  # the same text was sent as X-Request-ID, which is returned
            if field == "card_number" and isinstance(value, str) and len(value) > 4:
                cards += 1
                assert value not in answer
                assert value not in log
            elif field == "cvv" and isinstance(value, str) and value:
                answered = json.loads(answer)
                answered.pop("card_last4", None)  # it may equal a CVV of four digits by chance
                assert value not in _strings(answered)
    assert cards > 100
    assert "create_payment" in log, "the log has the lines of the requests"


def _is_id(header: dict[str, str]) -> bool:
    return header["name"].lower() == "x-request-id"


def _sent(request: dict[str, Any]) -> dict[str, Any]:
    try:
        body = json.loads(request["postData"]["text"])
    except (KeyError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _text(content: dict[str, Any]) -> str:
    text: str = content.get("text", "")
    return base64.b64decode(text).decode() if content.get("encoding") == "base64" else text


def _strings(node: Any) -> set[str]:
    if isinstance(node, dict):
        return set().union(*(_strings(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(_strings(value) for value in node))
    return {node} if isinstance(node, str) else set()
