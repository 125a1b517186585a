"""Printing the rows that a command found, as a table or as JSON."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

# The colours of statuses on a terminal: green, red and yellow (ECMA-48, SGR).
_GREEN: Final = ("AUTHORIZED", "PARTIALLY_CAPTURED", "CAPTURED", "APPROVED")
_COLOURS: Final = {**dict.fromkeys(_GREEN, 32), "DECLINED": 31, "PENDING": 33}


def render(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> str:
    """Return the rows under a heading of column names, or as a JSON list; `none` when there are no rows."""
    if as_json:
        return json.dumps(rows, indent=2)
    if not rows:
        return "none"
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def coloured(text: str) -> str:
    """Return a table with its statuses in colour, for a terminal."""
    return re.sub(rf"\b({'|'.join(_COLOURS)})\b", lambda found: f"\x1b[{_COLOURS[found[0]]}m{found[0]}\x1b[0m", text)
