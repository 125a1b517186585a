"""The modules at the root import only what is below them; import-linter has the rules for the packages."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGES = {"bank", "cli", "handlers", "payments", "server", "storage", "telemetry"}
MAY_IMPORT = {
    "config": set(),
    "store": {"config", "storage", "telemetry"},
    "merchants": {"config", "store", "telemetry"},
    "app": {"bank", "config", "handlers", "merchants", "server", "store"},
    "run": {"app", "cli", "config", "merchants", "server", "store", "telemetry"},
}


def imported(path: Path) -> set[str]:
    """Return the top-level names that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    return names


def test_the_root_has_these_modules_and_no_other() -> None:
    """The root has five modules; any other belongs in a package."""
    assert {path.stem for path in ROOT.glob("*.py")} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_a_module_at_the_root_imports_what_is_below_it(module: str) -> None:
    """A module at the root imports only modules and packages below it."""
    ours = imported(ROOT / f"{module}.py") & (PACKAGES | set(MAY_IMPORT))
    assert ours <= MAY_IMPORT[module]


def files() -> list[Path]:
    """Return the gateway's own Python files."""
    return [*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]


def test_every_imported_package_is_declared() -> None:
    """requirements.txt has every package that the gateway imports, even one that another package depends on."""
    declared = {
        name.lower() for name in re.findall(r"^(\w[\w-]*)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    }
    names = {name for path in files() for name in imported(path)}
    foreign = names - PACKAGES - set(MAY_IMPORT) - set(sys.stdlib_module_names)
    distributions = packages_distributions()
    needed = {distributions[name][0].replace("_", "-").lower() for name in foreign}
    assert needed <= declared
    assert declared - needed == {"flask-swagger-ui"}, "its files are served"


def test_the_environment_is_read_in_config_only() -> None:
    """No module but config.py reads `os.environ`."""
    readers = {path.name for path in files() if "os.environ" in path.read_text() or "getenv" in path.read_text()}
    assert readers == {"config.py"}


def test_module_state_is_in_store_and_bank_only() -> None:
    """`global` appears in configure() and close() of these two; everything else is made by create_app."""
    with_global = {
        str(path.relative_to(ROOT))
        for path in files()
        if any(isinstance(node, ast.Global) for node in ast.walk(ast.parse(path.read_text())))
    }
    assert with_global == {"store.py", "bank/__init__.py"}


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [("run", {"connexion", "flask", "sqlalchemy", "uvicorn"}), ("app", {"alembic", "sqlalchemy"})],
)
def test_a_start_imports_only_what_it_needs(module: str, unneeded: set[str]) -> None:
    """A command does not import what serves HTTP, and a gateway with payments in memory not what a database needs."""
    script = f"import sys, {module}; print({unneeded} & sys.modules.keys())"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "set()\n"
