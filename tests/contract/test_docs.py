"""The documents: every link and file name in them exists, and their tables are complete against the code."""

import re
from pathlib import Path

import iso4217
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bank import simulator
from config import SETTINGS, VERSION
from handlers.contract import PATH
from handlers.problems import PROBLEMS
from handlers.validation import FieldCode
from telemetry import metrics  # noqa: F401  # importing it registers the metrics
from tests.contract.compatibility import numbers
from tests.support import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])
README, MERCHANTS, OPERATIONS, QA = (
    (ROOT / name).read_text() for name in ("README.md", "docs/merchants.md", "docs/operations.md", "docs/qa.md")
)

# What a file of the project is called. Placeholders such as `bank/NAME.py` have capitals in the name.
FILE_NAME = re.compile(r"(?![/*])[\w./-]+(\.(py|md|yaml|yml|toml|ini|txt|conf|example)|/)|(Makefile|LICENSE)")
PLACEHOLDER = re.compile(r"NNNN|NAME")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Return the anchors that Markdown renderers make of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(text: str, first: str) -> dict[str, list[str]]:
    """Return the rows of the table whose first column is called `first`, by their first cell, without backticks."""
    table = re.search(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None, first
    cells = [[cell.strip().strip("`") for cell in row[1:-1].split(" | ")] for row in table[1].splitlines()]
    found = {row[0]: row[1:] for row in cells}
    assert len(found) == len(cells), "no row is there twice"
    return found


def test_readme_is_short() -> None:
    """README.md has fewer than 150 lines; everything else is in docs/."""
    assert len(README.splitlines()) < 150


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_has_a_target(document: Path) -> None:
    """A relative link leads to an existing file, and its anchor to a heading of that file."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", prose(document)):
        if "://" in target:
            continue
        path = (document.parent / target).resolve() if target else document
        assert path.is_relative_to(ROOT), target
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_file_that_is_named_exists(document: Path) -> None:
    """A file or folder in backticks is there, seen from the root or from the document."""
    for name in re.findall(r"`([^`\n]+)`", prose(document)):
        if FILE_NAME.fullmatch(name) and not PLACEHOLDER.search(name):
            assert (ROOT / name).exists() or (document.parent / name).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_test_that_is_named_exists(document: Path) -> None:
    """A test in backticks is a function of a test file."""
    tests = {
        name
        for path in ROOT.glob("tests/*/test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert set(re.findall(r"`(test_\w+)`", prose(document))) <= tests


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_name_is_in_the_file_that_is_given_for_it(document: Path) -> None:
    """Where a document says "`name` in `file`", the file has the name."""
    for name, file in re.findall(r"`([\w.-]+)`(?: in|:| \() ?`([\w/]+\.(?:py|yaml))`", prose(document)):
        if not PLACEHOLDER.search(file):
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", (ROOT / file).read_text()), f"{name} in {file}"


def test_every_decision_is_listed() -> None:
    """docs/decisions/README.md has a line for each page."""
    folder = ROOT / "docs/decisions"
    listed = re.findall(r"^\| \[([\w.-]+)\]", (folder / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_make_target_exists(document: Path) -> None:
    """`make TARGET`, in prose or in a code block, is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"`[^`]+`|^```sh\n.*?^```", document.read_text(), re.DOTALL | re.MULTILINE)
    named = {
        target for block in code for target in re.findall(r"(?:^|[`;] ?|=1000 )make ([a-z]+)", block, re.MULTILINE)
    }
    assert named <= targets


def test_readme_lists_the_files_of_the_root() -> None:
    """Each Python file and each package of the root has one line, and each line is a file or a folder."""
    listed = re.search(r"## Files\n\n```\n(.*?)```", README, re.DOTALL)
    assert listed is not None
    names = [line.split()[0] for line in listed[1].splitlines()]
    assert len(set(names)) == len(names)
    for name in names:
        assert (ROOT / name).exists(), name
    modules = {path.name for path in ROOT.glob("*.py")}
    packages = {f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")}
    assert modules | packages <= set(names)


def test_the_newest_version_in_the_changelog_is_the_gateways() -> None:
    """Each version has its date. Changes since the newest one stand under `Unreleased`, and may need a higher one."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [heading for heading in headings if heading != "Unreleased"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", version) for version in versions)
    newest = versions[0].partition(" ")[0]
    assert newest == VERSION or (headings[0] == "Unreleased" and numbers(VERSION) > numbers(newest))
    assert yaml.safe_load(PATH.read_text())["info"]["version"] == VERSION, (
        "one version for the gateway and its contract"
    )


def test_every_setting_is_documented() -> None:
    """docs/operations.md has each setting with its default, and no other."""
    documented = {name: cells[0] for name, cells in rows(OPERATIONS, "setting").items()}
    assert documented == {name: setting.default or "unset" for name, setting in SETTINGS.items()}


def test_every_error_code_is_documented() -> None:
    """docs/merchants.md has each code with its status, and no other."""
    documented = {code: int(cells[0]) for code, cells in rows(MERCHANTS, "code").items()}
    assert documented == {code.value: problem.status for code, problem in PROBLEMS.items()}


def test_every_status_is_in_the_retry_tables() -> None:
    """README.md and docs/merchants.md say for each status of a payment's answer what to do."""
    answers = {str(problem.status) for problem in PROBLEMS.values()} - {"403", "404", "405"} | {"201", "202"}
    for text in (README, MERCHANTS):
        statuses = {status for row in rows(text, "answer") for status in re.findall(r"\d{3}", row)}
        assert answers <= statuses


def test_every_field_code_is_documented() -> None:
    """docs/merchants.md has each code of an invalid field."""
    assert set(rows(MERCHANTS, "field code")) == {code.value for code in FieldCode}


def test_every_test_card_is_documented() -> None:
    """docs/qa.md has each card and amount with which the simulator misbehaves, and no other."""
    assert set(rows(QA, "card number")) == {*simulator._instead(), *simulator._afterwards(lambda _: None)}
    assert set(rows(QA, "card")) == set(simulator.DECLINES)
    amounts = simulator.UNANSWERED, simulator.LATE, simulator.REFUSED, simulator.UNAVAILABLE
    assert set(rows(QA, "amount")) == set(map(str, amounts))


def test_every_metric_is_documented() -> None:
    """docs/operations.md has each metric, and no other."""
    families = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(generate_latest().decode())
        if family.name.startswith("payment_gateway_") and not family.name.endswith("_created")
    }
    assert set(rows(OPERATIONS, "metric")) == families


def test_every_alert_is_a_symptom() -> None:
    """The first table of docs/operations.md says what each alert of deploy/alerts.yml means and what to do."""
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "deploy" / "alerts.yml").read_text())
    symptoms = " ".join(rows(OPERATIONS, "what you see"))
    assert alerts
    assert [alert for alert in alerts if not re.search(rf"\b{alert}\b", symptoms)] == []


def test_amounts_have_the_decimals_of_their_currency() -> None:
    """The table of amounts agrees with ISO 4217."""
    for currency, (decimals, shown) in rows(MERCHANTS, "currency").items():
        exponent = iso4217.Currency[currency].exponent
        assert exponent is not None
        assert (int(decimals), shown) == (exponent, f"{1050 / 10**exponent:.{exponent}f} {currency}")
