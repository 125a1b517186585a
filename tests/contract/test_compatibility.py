"""The contract and the last released one: a change that clients notice has the version that announces it."""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers import deployment
from handlers.contract import PATH
from tests.contract.comparing import Change
from tests.contract.compatibility import change_of, compare, lowest, numbers
from tests.support import ROOT

FILE: dict[str, Any] = yaml.safe_load(PATH.read_bytes())
VERSION: str = FILE["info"]["version"]
RELEASED = sorted((Path(__file__).parent / "released").glob("*.yaml"), key=lambda path: numbers(path.stem))

POST, GET = "paths /payments post", "paths /payments/{payment_id} get"
SCHEMAS, PARAMETERS, HEADERS = "components schemas", "components parameters", "components headers"
SENT, RECEIVED, PROBLEM = f"{SCHEMAS} PaymentRequest", f"{SCHEMAS} Payment", f"{SCHEMAS} Problem"
KEY = f"{PARAMETERS} IdempotencyKey"
STRING = {"type": "string", "maxLength": 8}
GONE = object()
WORDING = {"description", "summary", "example", "examples", "info", "tags", "x-characters", "x-wanted"} | {
    "x-simulator-description"
}

# Changes of the contract: the keys that lead to a place, and what stands there afterwards or makes it of what stood
# there.
Edits = Mapping[str, Any]


def without(member: Any) -> Any:
    return lambda members: [each for each in members if each != member]


def plus(*more: Any) -> Any:
    return lambda members: [*members, *more]


BREAKING: dict[str, Edits] = {
    "a maximum in a request falls": {f"{SENT} properties amount maximum": 99},
    "a maximum in a request appears": {f"{SENT} properties cvv maxItems": 9},
    "a minimum in a request rises": {f"{SENT} properties amount minimum": 2},
    "a text in a request gets shorter": {f"{KEY} schema maxLength": 255},
    "a pattern in a request changes": {f"{SENT} properties card_number pattern": "^[3-9]+$"},
    "a pattern in a request appears": {f"{SCHEMAS} Currency pattern": "^[A-Z]+$"},
    "a prohibition in a request appears": {f"{SENT} not": {"required": ["x"]}},
    "a type in a request changes": {f"{SENT} properties amount type": "string"},
    "a format in a request changes": {f"{SENT} properties amount format": "int32"},
    "an unknown keyword appears in a request": {f"{SENT} properties amount multipleOf": 5},
    "an alternative appears in a request": {f"{SENT} oneOf": [{"required": ["cvv"]}]},
    "a value in a request disappears": {f"{SCHEMAS} Currency enum": without("CNY")},
    "a value in a request takes another's place": {f"{SCHEMAS} Currency enum": ["GBP", "USD", "EUR"]},
    "a field of a request disappears": {f"{SENT} properties cvv": GONE, f"{SENT} required": without("cvv")},
    "a field of a request appears and is required": {f"{SENT} properties x": STRING, f"{SENT} required": plus("x")},
    "a body gets smaller": {f"{POST} requestBody x-max-bytes": 100},
    "a rule about dates appears": {f"{GET} x-valid-through": {"year": "y", "month": "m"}},
    "a parameter disappears": {f"{POST} parameters": without({"$ref": "#/components/parameters/IdempotencyKey"})},
    "a parameter becomes required": {f"{KEY} required": True},
    "a parameter appears and is required": {
        f"{POST} parameters": plus({"name": "X", "in": "header", "required": True, "schema": STRING})
    },
    "a media type of a request disappears": {f"{POST} requestBody content": {"application/xml": {}}},
    "a field of an answer disappears": {
        f"{RECEIVED} properties amount": GONE,
        f"{RECEIVED} required": without("amount"),
    },
    "a field of an answer becomes optional": {f"{RECEIVED} required": without("amount")},
    "a field of an answer may be null": {f"{RECEIVED} properties card_last4 nullable": True},
    "a type in an answer changes": {f"{RECEIVED} properties amount type": "number"},
    "a format in an answer disappears": {f"{RECEIVED} properties id format": GONE},
    "a pattern in an answer changes": {f"{RECEIVED} properties card_last4 pattern": "^[0-9]{4}$"},
    "an identifier in an answer gets longer": {f"{RECEIVED} properties id maxLength": 64},
    "a pattern in an answer disappears": {f"{RECEIVED} properties card_last4 pattern": GONE},
    "a maximum in an answer rises": {f"{RECEIVED} properties amount maximum": 10**15},
    "a minimum in an answer falls": {f"{RECEIVED} properties amount minimum": 0},
    "a value in an answer disappears": {f"{SCHEMAS} PaymentStatus enum": without("PENDING")},
    "the values in an answer are no longer listed": {f"{SCHEMAS} ProblemCode enum": GONE},
    "an answer gets closed": {f"{RECEIVED} additionalProperties": False},
    "an answer of a success disappears": {f"{POST} responses 202": GONE},
    "an answer of an error disappears": {f"{POST} responses 409": GONE},
    "an answer of a success appears": {f"{POST} responses 200": {"description": "OK"}},
    "a media type of an answer changes": {"components responses PaymentConflict content": {"application/json": {}}},
    "a media type of an answer appears": {"components responses PaymentConflict content application/json": {}},
    "a header of an answer disappears": {f"{POST} responses 201 headers Location": GONE},
    "a header of an answer becomes optional": {f"{HEADERS} Location required": False},
    "a header of an answer changes its type": {f"{HEADERS} RetryAfter schema type": "string"},
    "a link disappears": {f"{POST} responses 201 links": GONE},
    "a link leads to something else": {"components links GetPayment parameters payment_id": "$response.body#/x"},
    "an operation disappears": {GET: GONE},
    "a path disappears": {"paths /payments/{payment_id}": GONE},
    "an operation gets another name": {f"{GET} operationId": "read_payment"},
    "an operation gets another tag": {f"{GET} tags": ["lookups"]},
    "a schema gets another name": {
        f"{SCHEMAS} Currency": GONE,
        f"{SCHEMAS} Money": STRING,
        f"{SENT} properties currency": {"$ref": "#/components/schemas/Money"},
    },
    "another kind of key is needed": {"components securitySchemes merchantKey scheme": "basic"},
    "the address changes": {"servers 0 url": "/api/v2"},
    "the version of OpenAPI changes": {"openapi": "3.0.4"},
}
WIDENING: dict[str, Edits] = {
    "a maximum in a request rises": {f"{SENT} properties amount maximum": 10**15},
    "a minimum in a request disappears": {f"{SENT} properties amount minimum": GONE},
    "a pattern in a request disappears": {f"{SENT} properties cvv pattern": GONE},
    "a prohibition in a request disappears": {f"{KEY} schema not": GONE},
    "a field of a request may be null": {f"{SENT} properties cvv nullable": True},
    "a value in a request appears": {f"{SCHEMAS} Currency enum": plus("EUR")},
    "a field of a request becomes optional": {f"{SENT} required": without("cvv")},
    "an optional field of a request appears": {f"{SENT} properties x": STRING},
    "an optional parameter appears": {f"{POST} parameters": plus({"name": "X", "in": "header", "schema": STRING})},
    "a media type of a request appears": {f"{POST} requestBody content application/xml": {}},
    "a body becomes optional": {f"{POST} requestBody required": False},
    "a body gets larger": {f"{POST} requestBody x-max-bytes": 10**6},
    "a rule about dates disappears": {f"{POST} x-valid-through": GONE},
    "no key is needed": {"security": []},
    "a field of an answer appears": {f"{RECEIVED} properties x": STRING, f"{RECEIVED} required": plus("x")},
    "a field of an answer is always there": {f"{PROBLEM} required": plus("errors")},
    "a value in an answer appears": {f"{SCHEMAS} PaymentStatus enum": plus("x")},
    "a code appears": {f"{SCHEMAS} ProblemCode enum": plus("x"), f"{SCHEMAS} FieldErrorCode enum": plus("x")},
    "a text in an answer gets longer": {f"{PROBLEM} properties detail maxLength": 10**6},
    "a maximum in an answer falls": {f"{HEADERS} RetryAfter schema maximum": 60},
    "an answer of an error appears": {f"{POST} responses 402": {"$ref": "#/components/responses/PaymentConflict"}},
    "a header of an answer appears": {
        f"{HEADERS} ETag": {"schema": STRING},
        f"{GET} responses 200 headers ETag": {"$ref": f"#/{HEADERS.replace(' ', '/')}/ETag"},
    },
    "a header of an answer is always there": {f"{HEADERS} RateLimit required": True},
    "a link appears": {f"{GET} responses 200 links": {"again": {"$ref": "#/components/links/GetPayment"}}},
    "an operation appears": {"paths /payments delete": {"operationId": "delete_payments", "responses": {}}},
    "a path appears": {"paths /refunds": {"post": {"operationId": "refund", "responses": {}}}},
    "an operation is deprecated": {f"{GET} deprecated": True},
    "a field is deprecated": {f"{SENT} properties cvv deprecated": True},
}
NONE: dict[str, Edits] = {
    "nothing": {},
    "descriptions": {f"{SENT} description": "x", "info description": "x", f"{GET} responses 200 description": "x"},
    "examples": {"components examples Declined value amount": 3, f"{SENT} example": GONE},
    "summaries": {f"{GET} summary": "x", f"{POST} x-simulator-description": GONE, f"{GET} externalDocs": {"url": "x"}},
    "the description of a tag": {"tags 0 description": "x"},
    "the words of an error message": {f"{SENT} properties cvv x-characters": "digits", f"{KEY} schema x-wanted": "x"},
    "the order of names": {
        f"{SENT} required": lambda names: names[::-1],
        f"{SCHEMAS} PaymentStatus enum": lambda names: names[::-1],
    },
    "a default that is written down": {f"{RECEIVED} properties id nullable": False, f"{KEY} required": GONE},
    "a component that nothing refers to": {f"{SCHEMAS} Unused": STRING, "components securitySchemes unused": {}},
}
MUTANTS = [
    pytest.param(edits, change, id=name)
    for change, changes in ((Change.BREAKING, BREAKING), (Change.WIDENING, WIDENING), (Change.NONE, NONE))
    for name, edits in changes.items()
]


def edited(edits: Edits) -> dict[str, Any]:
    """Return the contract with changes."""
    document = copy.deepcopy(FILE)
    for place, value in edits.items():
        node: Any = document
        *parents, last = place.split(" ")
        for key in parents:
            node = node[int(key) if isinstance(node, list) else key]
        if value is GONE:
            del node[last]
        else:
            node[last] = value(node[last]) if callable(value) else value
    return document


def test_the_version_of_the_contract_announces_its_changes() -> None:
    """The contract has at least the version that its differences from the last released one need."""
    found = [difference for difference in compare(yaml.safe_load(RELEASED[-1].read_bytes()), FILE) if difference.change]
    needed = lowest(RELEASED[-1].stem, change_of(found))
    assert numbers(VERSION) >= numbers(needed), "\n".join([f"raise VERSION to {needed}:", *map(str, found)])


@pytest.mark.parametrize(("edits", "change"), MUTANTS)
def test_a_change_is_what_it_means_to_clients(edits: Edits, change: Change) -> None:
    """It breaks clients, widens what they can do, or is wording."""
    found = compare(FILE, edited(edits))
    assert change_of(found) is change, "\n".join(map(str, found))


def test_a_field_that_may_have_had_any_value_is_not_new() -> None:
    """A request whose object is open may have the field already, with a value that is no longer allowed."""
    opened = {f"{SENT} additionalProperties": GONE}
    found = compare(edited(opened), edited(opened | {f"{SENT} properties x": STRING}))
    assert change_of(found) is Change.BREAKING


@pytest.mark.parametrize(
    ("released", "change", "enough", "too_low"),
    [
        ("0.9.0", Change.BREAKING, ["0.10.0", "1.0.0"], ["0.9.0", "0.9.9"]),
        ("0.9.0", Change.WIDENING, ["0.9.1", "0.10.0", "1.0.0"], ["0.9.0", "0.8.7"]),
        ("0.9.3", Change.NONE, ["0.9.3", "0.9.4", "1.0.0"], ["0.9.2", "0.8.9"]),
        ("1.4.2", Change.BREAKING, ["2.0.0", "10.0.0"], ["1.4.2", "1.4.3", "1.5.0", "0.99.0"]),
        ("1.4.2", Change.WIDENING, ["1.5.0", "1.10.0", "2.0.0"], ["1.4.2", "1.4.3", "1.4.10"]),
        ("1.4.2", Change.NONE, ["1.4.2", "1.4.3", "1.5.0", "2.0.0"], ["1.4.1", "1.3.9"]),
    ],
)
def test_a_version_announces_a_change(released: str, change: Change, enough: list[str], too_low: list[str]) -> None:
    """From 1.0.0 on a break needs a major step and a widening a minor one; before, a minor and a patch step."""
    needed = numbers(lowest(released, change))
    assert [version for version in (*enough, *too_low) if numbers(version) >= needed] == enough


def test_nothing_disappears_unnoticed() -> None:
    """Whatever is taken out of the contract is a change, except wording and a `required` that is false anyway."""
    document = copy.deepcopy(FILE)
    for path, method, kept in (("/payments", "post", {"201", "400"}), ("/payments/{payment_id}", "get", {"200"})):
        responses = document["paths"][path][method]["responses"]
        document["paths"][path][method]["responses"] = {status: responses[status] for status in kept}
    deployment.prune(document)
    complete, unnoticed = copy.deepcopy(document), []
    for node, key in list(parts(document)):
        value = node.pop(key)
        # The contract is no longer one, for example because a reference leads nowhere.
        with contextlib.suppress(KeyError):
            if not change_of(compare(complete, document)):
                unnoticed.append((key, value))
        node[key] = value
    assert set(unnoticed) == {("required", False)}
    assert complete == document


def parts(node: Any, *, named: bool = False) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the mappings of a document with each of their keys, except those of wording.

    named: whether the keys of this one are names that the contract chooses
    """
    if isinstance(node, dict):
        for key, child in node.items():
            if named or key not in WORDING:
                yield node, key
                yield from parts(child, named=key == "properties")
    elif isinstance(node, list):
        for child in node:
            yield from parts(child)


def test_every_released_contract_is_a_version() -> None:
    """Each has its version as its name, and the newest is the newest version in the changelog."""
    assert RELEASED
    for path in RELEASED:
        assert yaml.safe_load(path.read_bytes())["info"]["version"] == path.stem
    versions = re.findall(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert RELEASED[-1].stem == versions[0]
