"""run.py with response validation on: an answer that breaks the contract becomes a 500."""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import app

app.create_app = partial(app.create_app, validate_responses=True)

import run  # after that, because it takes what is there then

run.main()
