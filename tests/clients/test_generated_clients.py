"""Clients that are generated from the served document pay, and read every answer through their types."""

import re
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests import tools
from tests.clients import GENERATORS, GO, PYDANTIC, PYTHON, TYPESCRIPT, Generator, run
from tests.clients.examples import EXAMPLES, SECTION
from tests.clients.later import PAYMENT, PROBLEM
from tests.clients.wrong import WRONG
from tests.support import ROOT, UNKNOWN_ID, Gateway, valid_payment

pytestmark = tools.needed

Seen = dict[str, dict[str, Any]]


def with_time(payment: dict[str, Any]) -> dict[str, Any]:
    """Return a payment with its times as times, because clients write them in other forms."""
    times = {name: datetime.fromisoformat(payment[name]) for name in ("created_at", "updated_at")}
    return {**payment, **times}


def test_a_generator_prints_no_other_warning(client: Generator, unusual: Mapping[Generator, set[str]]) -> None:
    """A generator prints normal lines, and the warnings for which a reason is given."""
    assert unusual[client] == set(client.warnings)


def test_a_client_pays(seen: Seen, merchants_gateway: Gateway) -> None:
    """The client sends its API key, and every field of the payment is as the gateway has it."""
    paid = {**seen["paid"]}
    assert not paid.pop("replayed")
    assert paid["status"] == "AUTHORIZED"
    assert with_time(paid) == with_time(merchants_gateway.find(paid["id"]).json())


def test_a_client_repeats_a_payment(seen: Seen) -> None:
    """The same idempotency key is the same payment, and the client shows that it is."""
    assert seen["replayed"] == {**seen["paid"], "replayed": "true"}


def test_a_client_shows_every_invalid_field(seen: Seen, merchants_gateway: Gateway) -> None:
    """Each field of the problem, and of each of its errors, is as the gateway sends it."""
    invalid = valid_payment(expiry_month=13, expiry_year=2020, amount=0, cvv="12")
    url, headers = f"{merchants_gateway.api}/payments", {"X-Request-ID": "invalid-1"}
    problem = merchants_gateway.session.post(url, json=invalid, headers=headers, timeout=60).json()
    assert [error["field"] for error in problem["errors"]] == ["expiry_month", "expiry_year", "amount", "cvv"]
    assert seen["invalid"] == problem


def test_a_client_shows_that_a_payment_is_unknown(seen: Seen, merchants_gateway: Gateway) -> None:
    """A 404 is a problem with all its fields."""
    unknown = seen["unknown"]
    assert unknown["code"] == "payment_not_found"
    assert unknown == {**merchants_gateway.find(UNKNOWN_ID).json(), "instance": unknown["instance"], "errors": []}


def test_a_client_ignores_new_fields(seen: Seen) -> None:
    """A payment, a problem and an entry of its errors may have fields that the client does not know."""
    payment = {name: value for name, value in seen["field"].items() if name != "replayed"}
    assert with_time(payment) == with_time(PAYMENT)
    assert seen["field of a problem"] == PROBLEM


def test_a_client_does_with_new_values_what_the_documents_say(client: Generator, seen: Seen) -> None:
    """TypeScript clients pass on a status or code that they do not know, Go has a name for it, Python raises."""
    status, code, field_code = (seen[name] for name in ("status", "code", "field code"))
    if client in {PYTHON, PYDANTIC}:
        assert all("NEW_VALUE" in answer["raised"] for answer in (status, code, field_code))
    else:
        values = {status["status"], code["code"], field_code["errors"][0]["code"]}
        assert values == {"unknown_default_open_api" if client is GO else "NEW_VALUE"}


# How each checker writes an error: the file, the line, the message.
ERROR = {
    "mypy": r"^([\w./-]+):(\d+): error: (.*?)  \[[\w-]+\]$",
    "tsc": r"^([\w./-]+)\((\d+),\d+\): error TS\d+: (.*)$",
    "go": r"^([\w./-]+):(\d+):\d+: (.*)$",
}


def test_the_checkers_refuse_the_wrong_programs_only(checked: Mapping[str, str]) -> None:
    """Strict checkers find the mistakes in them, and none in the clients, the other programs and the examples."""
    found: dict[str, list[str]] = {name: [] for name in WRONG}
    for checker, pattern in ERROR.items():
        for name, line, message in re.findall(pattern, checked[checker], re.MULTILINE):
            found.setdefault(name, []).append(f"{line}: {message}")
    assert found == {name: messages for name, (_, messages) in WRONG.items()}


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize("language", EXAMPLES)
def test_an_example_pays(language: str, merchants_gateway: Gateway, shop: Path) -> None:
    """Each example of docs/merchants.md prints the id of a payment that the gateway has, and that it is AUTHORIZED."""
    _, words = EXAMPLES[language]
    _, _, key = str(merchants_gateway.session.headers["Authorization"]).partition(" ")
    ran = run(shop, *words, API_KEY=key, PYTHONPATH="gateway-python")
    payment_id, status = ran.stdout.split()
    assert (status, merchants_gateway.find(payment_id).json()["status"]) == ("AUTHORIZED", "AUTHORIZED")


@pytest.mark.parametrize("generator", [PYTHON, TYPESCRIPT, GO], ids=lambda generator: generator.output)
def test_the_documents_have_the_command(generator: Generator) -> None:
    """docs/merchants.md generates each client with the command that the tests use."""
    command = generator.command.format(url="http://127.0.0.1:8000/api/v1/openapi.json", output=generator.output)
    assert re.search(rf"^(npx )?{re.escape(command)}$", SECTION.replace(" \\\n  ", " "), re.MULTILINE)


@pytest.mark.usefixtures("unusual")
def test_a_gateway_without_keys_serves_the_same_types(gateway: Gateway, shop: Path, tmp_path: Path) -> None:
    """What `make clients` makes of its document has the types of the clients that are tested, and no new warning."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.clients", gateway.root, tmp_path]
    ran = run(ROOT, *command)
    assert (ran.returncode, ran.stdout.split()) == (0, [str(tmp_path / generator.output) for generator in GENERATORS])
    for models in (
        "gateway-python/payment_gateway_api_client/models/*.py",
        "gateway-python-pydantic/payment_gateway_client/models/*.py",
        "gateway-go/model_*.go",
    ):
        files = sorted(shop.glob(models))
        assert files
        for file in files:
            assert (tmp_path / file.relative_to(shop)).read_text() == file.read_text()
