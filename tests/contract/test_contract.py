"""The contract: it is valid, it agrees with the code, and what is served is what is enforced."""

import copy
import inspect
import itertools
import json
import re
from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from typing import Any

import connexion.spec
import pytest
import requests
import yaml
from jsonschema import Draft4Validator, FormatChecker

import config
import handlers.payments
from app import create_app, today_utc
from bank.simulator import Simulator
from handlers.contract import PATH, Contract
from handlers.problems import NOT_CHARGED, PROBLEMS, Code
from handlers.validation import FieldCode, draft4
from store import ActionStatus, State
from tests.support import Gateway, serving, valid_payment

FILE = yaml.safe_load(PATH.read_text())
SERVED = json.loads(Contract((), today_utc, lambda: False, simulator=True).served_json())
SERVED_OPEN = json.loads(Contract((), today_utc, lambda: True, simulator=True).served_json())
OPERATIONS = [(path, method) for path, item in FILE["paths"].items() for method in item]
EXAMPLES = FILE["components"]["examples"]


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping of the document."""
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from walk(child)


@pytest.mark.parametrize("document", [FILE, SERVED, SERVED_OPEN], ids=["file", "served", "served without keys"])
def test_the_contract_is_valid_openapi(document: dict[str, Any]) -> None:
    """Connexion, which refuses to start with an invalid document, accepts the file and what is served."""
    assert connexion.spec.Specification.from_dict(document)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_id_names_a_handler(path: str, method: str) -> None:
    """It is the name of an async function in handlers/payments.py."""
    handler = getattr(handlers.payments, FILE["paths"][path][method]["operationId"])
    assert inspect.iscoroutinefunction(handler)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_that_counts_declares_the_rate_limit(path: str, method: str) -> None:
    """All but those that come before the rate limit, and therefore count for no merchant."""
    responses = connexion.spec.Specification.from_dict(FILE)["paths"][path][method]["responses"]
    declaring = {
        status for status in responses if {"RateLimit-Policy", "RateLimit"} <= responses[status]["headers"].keys()
    }
    assert declaring == responses.keys() - {"401", "421"}


@pytest.mark.parametrize(
    ("schema", "code"),
    [("PaymentStatus", State), ("ActionStatus", ActionStatus), ("ProblemCode", Code), ("FieldErrorCode", FieldCode)],
)
def test_the_enums_of_the_code_are_those_of_the_contract(schema: str, code: type[StrEnum]) -> None:
    """They have the same values in the same order."""
    assert FILE["components"]["schemas"][schema]["enum"] == list(code)


def test_patterns_match_whole_strings() -> None:
    """Every pattern is anchored and names the digits it allows, so it means the same in every language."""
    patterns = [node["pattern"] for node in walk(FILE) if isinstance(node.get("pattern"), str)]
    assert patterns
    for pattern in patterns:
        assert re.fullmatch(r"\^.*\$", pattern), pattern
        assert "\\d" not in pattern, "\\d matches every Unicode digit in Python"


def test_the_contract_has_no_jinja_markup() -> None:
    """Connexion renders contract files with Jinja2, and this file comes out unchanged."""
    text = PATH.read_text()
    assert not [markup for markup in ("{{", "{%", "{#") if markup in text]


@pytest.mark.parametrize("name", [name for name in EXAMPLES if "status" in EXAMPLES[name]["value"]])
def test_an_example_of_a_response_matches_its_schema(name: str) -> None:
    """It is valid by its schema, and the sentences of a problem are those that the gateway sends."""
    value = EXAMPLES[name]["value"]
    schema = "Problem" if "code" in value else "Payment" if "card_last4" in value else "Action"
    resolved = draft4(connexion.spec.Specification.from_dict(FILE)["components"]["schemas"][schema])
    Draft4Validator(resolved, format_checker=FormatChecker()).validate(value)
    if schema == "Problem":
        answer = PROBLEMS[Code(value["code"])]
        assert (value["status"], value["title"]) == (answer.status, answer.title)
        if name == "NotChargedProblem":
            assert value["detail"] == NOT_CHARGED
        elif value["code"] not in {"validation_failed", "request_too_large"}:
            assert value["detail"] == answer.detail


@pytest.mark.parametrize("name", ["authorized", "declined"])
def test_every_named_example_has_the_result_it_is_named_for(gateway: Gateway, name: str) -> None:
    """An example that is sent as the served contract has it gets the response that its name announces."""
    served = requests.get(f"{gateway.api}/openapi.json", timeout=10).json()
    examples = served["paths"]["/payments"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert list(examples) == ["authorized", "declined"]
    value = served["components"]["examples"][examples[name]["$ref"].rpartition("/")[2]]["value"]
    answer = requests.post(f"{gateway.api}/payments", json=value, timeout=10)
    assert (answer.status_code, answer.json()["status"]) == (201, name.upper())


def test_the_examples_of_actions_fit_the_example_of_a_payment(gateway: Gateway) -> None:
    """Each capture and void of a new payment is approved, the last capture after a part, and each refund afterwards."""
    captures, voids, refunds = (
        [(path, EXAMPLES[example["$ref"].rpartition("/")[2]]["value"]) for example in body["examples"].values()]
        for path in ("captures", "voids", "refunds")
        for body in FILE["paths"][f"/payments/{{payment_id}}/{path}"]["post"]["requestBody"]["content"].values()
    )
    part, last = (("captures", EXAMPLES[name]["value"]) for name in ("CapturePart", "CaptureLast"))
    lives = [[void] for void in voids] + [[part, last, refund] for refund in refunds]
    lives += [list(life) for life in itertools.product(captures, refunds)]
    for life in lives:
        made = gateway.session.post(f"{gateway.api}/payments", json=EXAMPLES["Authorized"]["value"])
        for path, body in life:
            answer = gateway.session.post(f"{gateway.root}{made.headers['Location']}/{path}", json=body)
            assert (answer.status_code, answer.json()["status"]) == (201, "APPROVED"), life


def test_a_gateway_with_a_real_bank_serves_nothing_about_the_simulator() -> None:
    """The one example of a payment promises no result, and the description lists no test cards."""
    with_simulator, without = (
        json.loads(Contract((), today_utc, lambda: True, simulator=simulator).served_json())["paths"]["/payments"][
            "post"
        ]
        for simulator in (True, False)
    )
    assert "Test cards" in with_simulator["description"]
    assert without["description"] == FILE["paths"]["/payments"]["post"]["description"]
    assert list(without["requestBody"]["content"]["application/json"]["examples"]) == ["payment"]
    assert "simulat" not in json.dumps(without)


def test_the_test_cards_of_the_description_are_the_simulators(gateway: Gateway) -> None:
    """Each card that the served contract lists gets the answer that is listed for it."""
    served = requests.get(f"{gateway.api}/openapi.json", timeout=10).json()
    rows = re.findall(r"`(\d{14,19})` \| (\d{3})(?:, `(\w+)`)?", served["paths"]["/payments"]["post"]["description"])
    assert len(rows) == 7
    for card_number, status, text in rows:
        answer = gateway.pay(card_number=card_number)
        assert answer.status_code == int(status)
        assert text in answer.text


def test_the_contract_is_served_as_json_and_as_yaml(gateway: Gateway) -> None:
    """Both are the file with the expiry rule as bounds, without unused security and examples that do not apply."""
    as_json = requests.get(f"{gateway.api}/openapi.json", timeout=10)
    as_yaml = requests.get(f"{gateway.api}/openapi.yaml", timeout=10)
    assert as_json.headers["Content-Type"] == "application/json"
    assert as_yaml.headers["Content-Type"] == "application/yaml"
    assert as_json.json() == yaml.safe_load(as_yaml.content)
    served = as_json.json()
    new_payment = served["components"]["schemas"]["PaymentRequest"]
    new_payment.pop("not", None)  # there is none in January
    assert new_payment["properties"]["expiry_year"].pop("minimum") >= 2026
    served["paths"]["/payments"]["post"]["x-valid-through"] = {"year": "expiry_year", "month": "expiry_month"}
    file = copy.deepcopy(FILE)
    del file["components"]["schemas"]["PaymentRequest"]["properties"]["expiry_year"]["minimum"]
    for parameter in file["components"]["parameters"].values():
        del parameter["example"]
        parameter["schema"].pop("example", None)  # that of a status is the schema's
    payment = file["paths"]["/payments"]["post"]
    for path, method in OPERATIONS:
        operation = file["paths"][path][method]
        if "x-simulator-description" in operation:
            operation["description"] += f"\n{operation.pop('x-simulator-description')}"
    del payment["requestBody"]["content"]["application/json"]["examples"]["payment"]
    del file["components"]["examples"]["NewPayment"]
    for name in ("Authorized", "Declined"):
        assert file["components"]["examples"][name].pop("x-simulator") is True
    file["security"] = []
    for kind, name in (
        ("examples", "UnauthorizedProblem"),
        ("headers", "Authenticate"),
        ("responses", "Unauthorized"),
        ("securitySchemes", "merchantKey"),
    ):
        del file["components"][kind][name]
    del file["components"]["securitySchemes"]
    for path, method in OPERATIONS:
        del file["paths"][path][method]["responses"]["401"]
    assert served == file


@pytest.mark.parametrize("document", [SERVED, SERVED_OPEN], ids=["served", "served without keys"])
def test_what_is_served_is_used(document: dict[str, Any]) -> None:
    """Every component is referred to, and every answer is one that this gateway gives."""
    components = document["components"]
    references = {node["$ref"] for node in walk(document) if "$ref" in node}
    named = {
        f"#/components/{kind}/{name}" for kind in components if kind != "securitySchemes" for name in components[kind]
    }
    assert references == named
    statuses = {status for path, method in OPERATIONS for status in document["paths"][path][method]["responses"]}
    assert ("401" in statuses, "421" in statuses) == ((True, False) if document is SERVED else (False, True))


def test_examples_have_a_currency_that_is_accepted() -> None:
    """Also those of answers, and those of single fields."""
    served = json.loads(Contract(("JPY", "KWD"), today_utc, lambda: True, simulator=True).served_json())
    served.pop("info")
    assert not [node for node in walk(served["components"]) if "GBP" in map(str, node.values())]


def test_the_expiry_rule_follows_the_calendar_while_the_gateway_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a month begins, what is enforced and what is served change together, without a restart."""
    monkeypatch.chdir("/")
    simulator = Simulator()
    simulator.start()
    today = [date(2026, 11, 30)]
    gateway = create_app(config.load({"BANK_URL": simulator.url}), today=lambda: today[0])
    with serving(gateway.app, gateway.contract) as api:

        def minimum() -> tuple[int, int]:
            served = requests.get(f"{api}/openapi.json", timeout=10).json()["components"]["schemas"]["PaymentRequest"]
            year = served["properties"]["expiry_year"]["minimum"]
            if "not" not in served:
                return year, 1
            passed = served["not"]["properties"]
            assert passed["expiry_year"]["maximum"] == year
            return year, passed["expiry_month"]["maximum"] + 1

        def pay(month: int, year: int) -> int:
            body = valid_payment(expiry_month=month, expiry_year=year)
            return requests.post(f"{api}/payments", json=body, timeout=10).status_code

        assert minimum() == (2026, 11)
        assert (pay(11, 2026), pay(10, 2026)) == (201, 400)
        today[0] = date(2026, 12, 1)
        assert minimum() == (2026, 12)
        assert (pay(11, 2026), pay(12, 2026)) == (400, 201)
        today[0] = date(2027, 1, 1)
        assert minimum() == (2027, 1)
        assert (pay(12, 2026), pay(1, 2027)) == (400, 201)
    simulator.stop()
