"""run.py that reports on standard error each time that it opens the store."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import store
from tests.contract import checked

_configure = store.configure


def _reported(*arguments: Any, **options: Any) -> None:
    print("OPENED", file=sys.stderr, flush=True)
    _configure(*arguments, **options)


store.configure = _reported
checked.main()
