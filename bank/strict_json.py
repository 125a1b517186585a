"""Read JSON strictly: RFC 8259 in UTF-8, with the restrictions of I-JSON (RFC 7493).

The bodies of requests and the replies of banks are both read here. The module is in this package because
handlers may import from bank, but bank may not import from handlers.
"""

import math
from typing import Any

import jiter


def loads(data: bytes) -> Any:
    """Read JSON; refuse a repeated name, an unpaired surrogate, NaN, infinity and nesting beyond 200 levels.

    Raises `ValueError`, which holds nothing of `data`, not even in its context.
    """
    try:
        # jiter's cache would keep card numbers and CVVs in memory after the request.
        value = jiter.from_json(data, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="none")
    except ValueError:  # whose text quotes a repeated name
        pass
    else:
        if not _holds_infinity(value):
            return value
    raise ValueError("not strict JSON")


def _holds_infinity(value: Any) -> bool:
    """Return whether a number is too large for a float: jiter reads 1e999 as infinity."""
    if isinstance(value, dict):
        return any(map(_holds_infinity, value.values()))
    if isinstance(value, list):
        return any(map(_holds_infinity, value))
    return isinstance(value, float) and math.isinf(value)
