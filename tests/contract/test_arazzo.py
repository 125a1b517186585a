"""The workflows of pay.arazzo.yaml, run with Redocly's `respect` as docs/qa.md runs them."""

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import tools
from tests.support import ROOT, Gateway

pytestmark = tools.needed

FILE = ROOT / "pay.arazzo.yaml"
DOCUMENT = yaml.safe_load(FILE.read_text())
WORKFLOWS = [workflow["workflowId"] for workflow in DOCUMENT["workflows"]]
KEY = "pgw_test_" + "a" * 43


def documented() -> list[str]:
    """Return the commands of docs/qa.md that run the workflows, without npx."""
    commands = re.findall(r"^npx @redocly/cli@(\S+) (.+)$", (ROOT / "docs" / "qa.md").read_text(), re.MULTILINE)
    installed = json.loads((ROOT / "tests" / "tools" / "package.json").read_text())["dependencies"]["@redocly/cli"]
    assert {version for version, _ in commands} == {installed}
    return [command for _, command in commands]


def checks(report: Path) -> list[tuple[str, str, str, bool]]:
    """Return workflow, step, condition and result of every criterion that was checked."""
    (file,) = json.loads(report.read_text())["files"].values()
    return [
        (workflow["workflowId"], step["stepId"], check["condition"], check["passed"])
        for workflow in file["executedWorkflows"]
        for step in workflow["executedSteps"]
        for check in step.get("checks", [])
        if check["name"] == "success criteria check"
    ]


def criteria(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return workflow, step and condition of every criterion of a document."""
    return [
        (workflow["workflowId"], step["stepId"], criterion["condition"])
        for workflow in document["workflows"]
        for step in workflow["steps"]
        for criterion in step["successCriteria"]
    ]


def test_the_workflows_are_the_ones_that_qa_follows() -> None:
    """They pay, look the payment up, replay it, capture and refund, send an invalid field and ask for an unknown id."""
    assert WORKFLOWS == ["pay", "look_up", "replay", "capture_and_refund", "refused_field", "unknown_id"]
    assert DOCUMENT["arazzo"].startswith("1.0.")


def test_linters_find_nothing() -> None:
    """Redocly's strictest rules report neither an error nor a warning."""
    tools.run("redocly", "lint", FILE, "--extends", "recommended-strict")


def assert_gateway_answers_as_workflows_say(command: str, report: Path, *server: str) -> None:
    printed = tools.run("redocly", *command.split(), *server, "--json-output", report)
    assert {check[:3] for check in checks(report) if check[3]} == set(criteria(DOCUMENT))
    assert KEY not in printed + report.read_text()


def test_a_gateway_without_keys_answers_as_the_workflows_say(gateway: Gateway, tmp_path: Path) -> None:
    """Every criterion of every step is checked and met, by the first documented command."""
    command = documented()[0]
    assert_gateway_answers_as_workflows_say(command, tmp_path / "report.json", "--server", f"gateway={gateway.api}")


def test_a_gateway_with_keys_answers_as_the_workflows_say(tmp_path: Path) -> None:
    """Every criterion is met by the second documented command, too, and no output repeats the key."""
    with Gateway(API_KEYS=f"acme:{hashlib.sha256(KEY.encode()).hexdigest()}") as gateway:
        command = documented()[1].replace("$API_KEY", KEY).replace("http://127.0.0.1:8000/api/v1", gateway.api)
        assert_gateway_answers_as_workflows_say(command, tmp_path / "report.json")


def test_each_criterion_fails_if_it_is_not_met(gateway: Gateway, tmp_path: Path) -> None:
    """Of many workflows that run on one gateway, each with one criterion to the contrary, only these criteria fail."""
    document = copy.deepcopy(DOCUMENT)
    document["sourceDescriptions"][0]["url"] = str(ROOT / "payment_gateway_api.yaml")
    expected = set()
    for number, (workflow_id, step_id, condition) in enumerate(criteria(DOCUMENT)):
        workflow = copy.deepcopy(next(flow for flow in DOCUMENT["workflows"] if flow["workflowId"] == workflow_id))
        workflow["workflowId"] = f"contrary_{number}"
        step = next(step for step in workflow["steps"] if step["stepId"] == step_id)
        criterion = next(criterion for criterion in step["successCriteria"] if criterion["condition"] == condition)
        criterion["condition"] = f"never{condition}" if "type" in criterion else condition.replace("==", "!=")
        assert criterion["condition"] != condition
        document["workflows"].append(workflow)
        expected.add((workflow["workflowId"], step_id, criterion["condition"]))
    changed, report = tmp_path / "contrary.arazzo.yaml", tmp_path / "report.json"
    changed.write_text(yaml.safe_dump(document))
    with pytest.raises(AssertionError, match="Tests exited with error"):
        tools.run("redocly", "respect", changed, "--server", f"gateway={gateway.api}", "--json-output", report)
    assert {check[:3] for check in checks(report) if not check[3]} == expected
