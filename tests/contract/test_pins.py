"""constraints.txt pins every package, so that a later installation gets the same versions."""

import re
from importlib.metadata import distributions

from tests.support import ROOT

# The packages of a new virtual environment.
OF_THE_ENVIRONMENT = {"pip", "setuptools", "wheel"}


def test_every_installed_package_is_pinned() -> None:
    """Each installed package, transitive ones included, has the version that constraints.txt gives."""
    # A package may be pinned twice, for older and for newer Pythons.
    pins = set(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    installed = {(_normal(found.metadata["Name"]), found.version) for found in distributions()}
    assert {name for name, _ in installed - pins} <= OF_THE_ENVIRONMENT


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
