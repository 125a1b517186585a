"""Installing next year gives the same versions: everything that is installed is pinned."""

import re
from importlib.metadata import distributions

from tests.support import ROOT

# What a virtual environment brings along by itself.
OF_THE_ENVIRONMENT = {"pip", "setuptools", "wheel"}


def test_everything_installed_is_pinned() -> None:
    """Transitive packages too, each at its pin."""
    # A package may be pinned twice, for older and for newer Pythons.
    pins = set(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    installed = {(_normal(found.metadata["Name"]), found.version) for found in distributions()}
    assert {name for name, _ in installed - pins} <= OF_THE_ENVIRONMENT


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
