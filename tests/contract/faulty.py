"""run.py with short times, in which the store fails for requests that ask for it.

A GET whose X-Request-ID begins with `unavailable` finds no store, and one that begins with `broken` finds a bug.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import store
from bank import simulator
from handlers import body
from telemetry import request_context
from tests.contract import checked

FAULTS = {"unavailable": store.StoreUnavailable("on purpose"), "broken": RuntimeError("on purpose")}

find, list_payments = store.find, store.list_payments


def _fail_on_demand() -> None:
    fault = FAULTS.get(request_context.now().id.partition("-")[0])
    if fault is not None:
        raise fault


async def _find(*arguments: Any) -> Any:
    _fail_on_demand()
    return await find(*arguments)


async def _list_payments(*arguments: Any) -> Any:
    _fail_on_demand()
    return await list_payments(*arguments)


# mypy has them fixed.
setattr(store, "find", _find)  # noqa: B010
setattr(store, "list_payments", _list_payments)  # noqa: B010
setattr(body, "BODY_TIMEOUT_S", 0.2)  # noqa: B010
setattr(simulator, "SLOW_S", 0.3)  # noqa: B010
checked.main()
