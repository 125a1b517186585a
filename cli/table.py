"""What a command found, as a table or as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def rows(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> str:
    """Return them with the names of the first for a head, or as a JSON list."""
    if as_json:
        return json.dumps(found, indent=2)
    if not found:
        return "none"
    table = [list(found[0]), *([str(value) for value in row.values()] for row in found)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
    return "\n".join(line.rstrip() for line in lines)
