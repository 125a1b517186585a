"""Run run.py with every response checked: one that breaks the contract becomes a 500."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import app
from app import Gateway
from tests.contract.checking import Checking

create_app = app.create_app


def _checked(*arguments: Any, **options: Any) -> Gateway:
    gateway = create_app(*arguments, **options)
    return gateway._replace(app=Checking(gateway.app, gateway.contract))


app.create_app = _checked

import run  # run.py imports the create_app that is set above

run.main()
