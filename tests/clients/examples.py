"""The examples of docs/merchants.md that use generated clients, and how to run them."""

import re
from typing import Final

from tests.support import ROOT

MERCHANTS: Final = (ROOT / "docs" / "merchants.md").read_text()
SECTION: Final = MERCHANTS.partition("\n## Generated clients\n")[2].partition("\n## ")[0]

# What the examples have in place of the gateway under test.
API: Final = "http://127.0.0.1:8000/api/v1"

# For each language the file of the example, and how to run it where it is compiled.
EXAMPLES: Final = {
    "python": ("example.py", ("python", "example.py")),
    "ts": ("example.mts", ("node", "example.mts")),
    "go": ("example/main.go", ("env", "bin/example")),
}


def example(language: str, api: str) -> str:
    """Return the example in this language, for another gateway."""
    found = re.search(rf"^```{language}\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)
    assert found is not None, language
    return found[1].replace(API, api)
