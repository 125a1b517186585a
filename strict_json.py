"""JSON as it must be where money hangs on it: RFC 8259 in UTF-8, no name twice, no half characters (RFC 7493)."""

import json
import math
from typing import Any, NoReturn


def loads(body: bytes) -> Any:
    """Read JSON, or raise `ValueError` that holds nothing of what was read."""
    try:
        return _whole(_decode(body.decode("utf-8")), escaped=b"\\u" in body)
    except (ValueError, RecursionError):
        pass
    raise ValueError("not strict JSON")  # outside the except block: the error there quotes the body


def _whole(read: Any, *, escaped: bool) -> Any:
    if escaped:
        json.dumps(read, ensure_ascii=False).encode()  # raises for half a character, as in "\\ud800"
    return read


def _refuse(_constant: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("too large a number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands twice")
    return names


_decode = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique).decode
