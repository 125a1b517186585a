"""Where gateways under test write which answers they gave, and which of them break the contract.

Each gateway has a file in the folder of the run. A line is appended before its answer leaves, so it is there even if
the gateway is killed. No line has a value of an answer.
"""

import atexit
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

# The environment variable with the folder of a run, which all processes of pytest inherit.
FOLDER: Final = "ANSWERS_FOLDER"

# The environment variable with the file of a gateway.
FILE: Final = "ANSWERS_FILE"

_numbers = itertools.count()

# The files of the gateways that this process started, and how much of them has been read.
_read: dict[Path, int] = {}


class Record:
    """The file that a gateway writes; its worker processes share it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._written: set[str] = set()

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)

    def saw(self, kind: str, operation: str, status: int) -> None:
        """Write that an operation of this kind of gateway answered with a status."""
        self._write({"seen": [kind, operation, status]})

    def broken(self, text: str) -> None:
        """Write that an answer breaks the contract, and how."""
        self._write({"broken": text})

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry)
        if line not in self._written:
            self._written.add(line)
            os.write(self._file, f"{line}\n".encode())


def folder() -> Path:
    """Return the folder of this run; outside of pytest, of this process."""
    if FOLDER not in os.environ:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="answers-")
        atexit.register(shutil.rmtree, os.environ[FOLDER], ignore_errors=True)
    return Path(os.environ[FOLDER])


def new_file() -> Path:
    """Return a file for a gateway that this process is about to start."""
    path = folder() / f"{os.getpid()}-{next(_numbers)}"
    _read[path] = 0
    return path


def raise_if_broken() -> None:
    """Raise `AssertionError` for answers that broke the contract since the last call."""
    broken = []
    for path, read in _read.items():
        if path.exists() and path.stat().st_size > read:
            content = path.read_bytes()
            _read[path] = len(content)
            broken += [entry["broken"] for entry in _entries(content[read:]) if "broken" in entry]
    assert not broken, "answers break the contract:\n" + "\n".join(broken)


def entries(path: Path) -> list[dict[str, Any]]:
    """Return what a gateway has written."""
    return _entries(path.read_bytes())


def _entries(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]
