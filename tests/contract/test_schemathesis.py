"""Schemathesis with all phases and default checks, and a search for the card numbers and CVVs that it sent.

The gateway checks its own responses, so one that breaks the contract is a 500, and logs at DEBUG. Schemathesis runs
as it does for QA: in the root, with schemathesis.toml.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from handlers.contract import PATH
from tests.support import ROOT, Gateway

SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
PHASES = ("Examples", "Coverage", "Fuzzing", "Stateful")

KEY = "pgw_test_" + "k" * 43
API_KEYS = f"fuzzer:{hashlib.sha256(KEY.encode()).hexdigest()}"


@pytest.mark.parametrize(
    ("against", "api_keys"),
    [("the served contract", ""), ("the served contract", API_KEYS), ("the file", API_KEYS)],
    ids=["served without keys", "served with keys", "file"],
)
@pytest.mark.timeout(600)
def test_schemathesis_finds_no_fault(against: str, api_keys: str, tmp_path: Path) -> None:
    """It reports no failure and no warning, and no response or log line holds a card number or CVV that it sent."""
    # The circuit must stay closed: many generated cards end in 0, for which the bank answers 503.
    settings = {"LOG_LEVEL": "DEBUG", "API_KEYS": api_keys, "BREAKER_FAILURES": "1000"}
    with Gateway(script=Path(__file__).parent / "validating.py", cwd=tmp_path, settings=settings) as gateway:
        entries = _run(gateway.api, against, tmp_path / "har.json", authorized=bool(api_keys))
    _assert_nothing_is_repeated(entries, gateway.log)
    refused = [entry for entry in entries if entry["response"]["status"] == 401]
    assert bool(refused) == bool(api_keys), "the check ignored_auth sends requests without a valid key"


def _run(api: str, against: str, report: Path, *, authorized: bool) -> list[dict[str, Any]]:
    location = [f"{api}/openapi.json"] if against == "the served contract" else [str(PATH), "--url", api]
    location += ["--header", f"Authorization: Bearer {KEY}"] if authorized else []
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    run = subprocess.run(
        [SCHEMATHESIS, "run", *location, "--report", "har", "--report-har-path", report],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    assert run.returncode == 0, run.stdout[-5000:]
    assert "No issues found" in run.stdout
    for phase in PHASES:
        assert re.search(rf"✅ +{phase} \(in", run.stdout), f"{phase} did not run: {run.stdout[-3000:]}"
    entries: list[dict[str, Any]] = json.loads(report.read_text())["log"]["entries"]
    assert len(entries) > 500
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
