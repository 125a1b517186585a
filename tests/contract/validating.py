"""run.py with response validation on: an answer that breaks the contract becomes a 500."""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import run

run.create_app = partial(run.create_app, validate_responses=True)
run.main()
