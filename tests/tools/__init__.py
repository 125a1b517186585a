"""The tools of `.venv/tools`, which `make test` installs: Node.js, linters, generators of clients."""

import os
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Final

import pytest

from tests.support import ROOT

TOOLS: Final = ROOT / ".venv" / "tools"
MODULES: Final = TOOLS / "node_modules"

needed: Final = pytest.mark.skipif(
    not (TOOLS / "installed").exists(),
    reason="the tools are not installed in .venv/tools: Node.js is not available for this platform, or npm failed",
)


def run(program: str, *arguments: str | Path, cwd: Path = ROOT, statuses: Collection[int] = (0,)) -> str:
    """Run a program of the tools and return what it prints; fails with its output at another exit status."""
    ran = subprocess.run(
        [program, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode in statuses, f"{program}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def environment() -> dict[str, str]:
    """Return the environment of a tool: its programs come first, and no tool reports to its makers."""
    path = os.pathsep.join([str(MODULES / ".bin"), str(TOOLS / "bin"), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
