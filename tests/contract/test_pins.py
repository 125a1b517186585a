"""The pins: what is installed, with which hashes, and under which licences."""

import json
import re
import sys
from importlib.metadata import distribution, distributions
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from tests import tools
from tests.support import ROOT

# The packages of a new virtual environment.
OF_THE_ENVIRONMENT = {"pip", "setuptools", "wheel"}
LOCK = (ROOT / "requirements.lock").read_text()


def locked() -> list[Requirement]:
    """Return the requirements of requirements.lock, without their hashes."""
    return [Requirement(line.rstrip("\\ ")) for line in LOCK.splitlines() if re.match(r"\w", line)]


def locked_here() -> set[str]:
    """Return the names of the locked packages that this Python on this platform needs."""
    return {_normal(found.name) for found in locked() if found.marker is None or found.marker.evaluate()}


def test_every_installed_package_is_pinned() -> None:
    """Each installed package, transitive ones included, has the version that constraints.txt gives."""
    # A package may be pinned twice, for older and for newer Pythons.
    pins = set(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    installed = {(_normal(found.metadata["Name"]), found.version) for found in distributions()}
    assert {name for name, _ in installed - pins} <= OF_THE_ENVIRONMENT


def test_the_lock_has_every_package_of_the_gateway() -> None:
    """requirements.lock has what requirements.txt needs, transitive ones included, and nothing else."""
    lines = re.findall(r"^[\w\[\],.-]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    todo = [Requirement(line) for line in lines if not line.startswith("-")]
    needed: set[tuple[str, str]] = set()
    while todo:
        wanted = todo.pop()
        for extra in {"", *wanted.extras}:
            if (_normal(wanted.name), extra) in needed:
                continue
            needed.add((_normal(wanted.name), extra))
            found = map(Requirement, distribution(wanted.name).requires or [])
            todo += [each for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]
    assert locked_here() == {name for name, _ in needed} - OF_THE_ENVIRONMENT


def test_the_lock_has_the_versions_of_the_constraints_and_hashes() -> None:
    """Each line of requirements.lock is a line of constraints.txt, followed by at least one SHA-256."""
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    # Without the markers: the gateway needs tzdata on Windows only, the tools everywhere.
    assert {(found.name, found.specifier) for found in locked()} <= {(pin.name, pin.specifier) for pin in pins}
    entries = re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked())
    assert all(re.search(r"\\\n    --hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


def test_the_licence_of_every_locked_package_is_listed() -> None:
    """docs/licences.md names the packages of requirements.lock, all that are needed here, and a licence for each."""
    table = re.findall(r"^\| (\S+) +\| (.+?) +\|", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE)
    listed = {_normal(name): licence for name, licence in table[1:]}
    assert locked_here() <= listed.keys() <= {_normal(found.name) for found in locked()}
    assert not {"", "UNKNOWN"} & set(listed.values())


def test_a_gateway_under_test_starts_as_fast_as_any_other() -> None:
    """jsonschema imports rfc3987-syntax where it is installed, and with its grammar a start takes twice the time."""
    assert find_spec("rfc3987_syntax") is None, "a requirement brings it, or `make clean` is needed"


@tools.needed
def test_the_bill_of_materials_names_every_package(tmp_path: Path) -> None:
    """The command of `make sbom`, run on this environment, writes CycloneDX with each package and its licence."""
    makefile = (ROOT / "Makefile").read_text()
    command = re.search(r"^\t\$\(TOOLS\)/bin/(cyclonedx-py .*) sbom.json", makefile, re.MULTILINE)
    assert command is not None
    program, *options = command[1].split()
    # The validation takes 7 s, and checks the tool rather than this project.
    tools.run(program, *options, tmp_path / "sbom.json", "--no-validate", sys.executable)
    written = json.loads((tmp_path / "sbom.json").read_text())
    licences = {_normal(found["name"]): found.get("licenses") for found in written["components"]}
    assert written["bomFormat"] == "CycloneDX"
    assert all(licences[name] for name in locked_here())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
