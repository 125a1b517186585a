"""The linters Spectral and Redocly: they find nothing in the contract, neither in the file nor in what is served."""

import itertools
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers.contract import PATH, Contract
from tests import tools

HERE = Path(__file__).parent

# The findings of a linter: rules and places, by the name of the document.
Findings = Mapping[str, list[str]]


def served(month: int, *, is_open: bool, simulator: bool) -> bytes:
    """Return the contract that a gateway serves in this month of 2027."""
    return Contract((), lambda: date(2027, month, 1), lambda: is_open, simulator=simulator).served_json()


def broken() -> bytes:
    """Return the contract with a mistake for each rule of `BROKEN`."""
    document: dict[str, Any] = yaml.safe_load(PATH.read_bytes())
    components, payment = document["components"], document["paths"]["/payments"]["post"]
    del document["paths"]["/payments/{payment_id}"], payment["summary"], payment["description"]
    del components["schemas"]["Problem"]["properties"]["title"]["maxLength"]
    del components["responses"]["KeyReused"]["headers"]["RateLimit"]
    components["schemas"]["Unused"] = {"type": "boolean"}
    components["examples"]["AuthorizedPayment"]["value"]["amount"] = "ten"
    return json.dumps(document).encode()


DOCUMENTS = {
    "file.yaml": PATH.read_bytes(),
    "served-with-keys-and-simulator.json": served(11, is_open=False, simulator=True),
    # In January the expiry rule has no `not`.
    "served-open-with-another-bank-in-january.json": served(1, is_open=True, simulator=False),
}
BROKEN = {
    "redocly": {"operation-summary", "no-invalid-media-type-examples", "no-unused-components"},
    "spectral": {
        "operation-description",
        "oas3-valid-media-example",
        "oas3-unused-component",
        "owasp:api4:2023-string-limit",
        "owasp:api4:2023-rate-limit",
    },
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Findings]:
    """Return the findings by the name of the linter; each is started once for all documents."""
    folder = tmp_path_factory.mktemp("contracts")
    documents = {**DOCUMENTS, "broken.json": broken()}
    for name, content in documents.items():
        (folder / name).write_bytes(content)
    paths = [folder / name for name in documents]
    with ThreadPoolExecutor() as executor:
        running = {linter.__name__: executor.submit(linter, paths) for linter in (redocly, spectral)}
        return {name: run.result() for name, run in running.items()}


def redocly(paths: list[Path]) -> Findings:
    """Return what Redocly's `recommended-strict` finds."""
    found: dict[str, list[str]] = {path.name: [] for path in paths}
    config = HERE / "redocly.yaml"
    output = tools.run("redocly", "lint", "--config", config, "--format", "json", *paths, statuses={0, 1})
    reports = json.loads("[" + output.replace("\n}{\n", "\n},{\n") + "]")  # one report after the other
    assert len(reports) == len(paths)
    for problem in itertools.chain.from_iterable(report["problems"] for report in reports):
        place = problem["location"][0]
        found[Path(place["source"]["ref"]).name].append(f"{problem['ruleId']} at {place['pointer']}")
    return found


def spectral(paths: list[Path]) -> Findings:
    """Return what Spectral finds, whatever its severity, with its rules for OpenAPI and two of OWASP's."""
    found: dict[str, list[str]] = {path.name: [] for path in paths}
    rules = HERE / "spectral.yaml"
    output = tools.run("spectral", "lint", "--ruleset", rules, "--format", "json", "--quiet", *paths, statuses={0, 1})
    for finding in json.loads(output):
        found[Path(finding["source"]).name].append(f"{finding['code']} at {'/'.join(map(str, finding['path']))}")
    return found


@tools.needed
@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("linter", BROKEN)
def test_a_linter_finds_nothing_in_the_contract(findings: dict[str, Findings], linter: str, document: str) -> None:
    """There is no error, no warning and no hint."""
    assert findings[linter][document] == []


@tools.needed
@pytest.mark.parametrize("linter", BROKEN)
def test_a_linter_finds_mistakes(findings: dict[str, Findings], linter: str) -> None:
    """It reports each of those in a broken contract, so finding nothing in the others means something."""
    assert BROKEN[linter] <= {finding.partition(" ")[0] for finding in findings[linter]["broken.json"]}
