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
    reason="the tools are not installed in .venv/tools: one is not available for this platform, or a download failed",
)


def run(program: str, *arguments: str | Path, cwd: Path = ROOT, statuses: Collection[int] = (0,)) -> str:
    """Run a program of the tools and return what it prints; fails with its output at another exit status."""
    ran = subprocess.run(
        [program, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode in statuses, f"{program}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def environment() -> dict[str, str]:
    """Return the environment of a tool: its programs come first, and none reports to its makers or downloads more."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(MODULES / ".bin"), str(TOOLS / "bin"), os.environ["PATH"]]),
        "NO_PROXY": "127.0.0.1",  # gateways under test
        "no_proxy": "127.0.0.1",
        "REDOCLY_TELEMETRY": "off",
        "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true",
        "JAVA_OPTS": "-XX:TieredStopAtLevel=1",  # a third less CPU for programs that end after seconds
        "GOENV": str(TOOLS / "go.env"),
    }
