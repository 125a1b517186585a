"""README.md: its curls are run as they stand, and what it lists is what there is."""

import json
import re
import subprocess

import pytest

from bank import simulator
from handlers.problems import PROBLEMS
from settings import SETTINGS
from tests.support import ROOT, Gateway

TEXT = (ROOT / "README.md").read_text()
CURLS = [block for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) if block.startswith("curl")]


@pytest.mark.parametrize("block", CURLS)
def test_every_curl_is_answered(gateway: Gateway, block: str) -> None:
    """Against a gateway on another port."""
    command = block.replace("http://127.0.0.1:8000/api/v1", gateway.api)
    run = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, check=True)  # noqa: S602
    answer = json.loads(run.stdout.splitlines()[-1])
    assert "id" in answer or answer["code"] in {"payment_not_found", "validation_failed"}
    if answer.get("code") == "validation_failed":
        shown = json.loads(re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)[0])
        assert answer == {**shown, "instance": answer["instance"]}, "word for word"


def test_there_are_curls() -> None:
    """The test above would pass without any."""
    assert len(CURLS) == 5


def test_it_lists_every_file_setting_problem_and_card() -> None:
    """A reader who finds nothing here would look for it in vain."""
    files = re.findall(r"```\n(payment_gateway_api\.yaml.*?)```", TEXT, re.DOTALL)[0]
    for folder in (
        "",
        "handlers/",
        "bank/",
        "storage/",
        "cli/",
        "payments/",
        "server/",
        "server/middleware/",
        "telemetry/",
    ):
        for path in ROOT.glob(f"{folder}*.py"):
            assert path.name in files, path
    for name in SETTINGS:
        assert f"| `{name}` |" in TEXT
    for code, told in PROBLEMS.items():
        assert f"| `{code}` | {told.status} |" in TEXT
    for card in [*simulator._instead(), *simulator._afterwards(lambda _: None)]:
        assert f"| {card} |" in TEXT
