"""run.py with every answer checked against the contract. Scripts that change more of run.py import this module."""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import app
import run
from app import create_app
from server import uvicorn_server
from server.start import Gateway
from tests.contract.record import FILE, Record
from tests.contract.writing import CheckedProtocol, Checker

main = run.main


def _checked(*arguments: Any, **options: Any) -> Gateway:
    gateway = create_app(*arguments, **options)
    CheckedProtocol.of_process = Checker(gateway.contract, Record(Path(os.environ[FILE])))
    return gateway


# Worker processes import this module, too, because it is the main module of their parent.
setattr(app, "create_app", _checked)  # noqa: B010  # mypy has both fixed
setattr(uvicorn_server, "Protocol", CheckedProtocol)  # noqa: B010

if __name__ == "__main__":
    main()
