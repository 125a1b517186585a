"""Contracts for the differential test: the contract unchanged, and changed in ordinary ways of OpenAPI."""

import copy
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]

MUTATIONS: dict[str, Callable[[Document], None]] = {}


def mutation(change: Callable[[Document], None]) -> Callable[[Document], None]:
    MUTATIONS[change.__name__.replace("_", " ")] = change
    return change


def mutated(document: Document, name: str) -> Document:
    changed = copy.deepcopy(document)
    MUTATIONS[name](changed)
    return changed


def new_payment(document: Document) -> Any:
    return document["components"]["schemas"]["PaymentRequest"]


def post(document: Document) -> Any:
    return document["paths"]["/payments"]["post"]


def get(document: Document) -> Any:
    return document["paths"]["/payments/{payment_id}"]["get"]


def parameter(name: str, place: str, schema: Document, **more: Any) -> Document:
    return {"name": name, "in": place, "description": name, "schema": schema, **more}


@mutation
def nothing(document: Document) -> None:
    """Leave the contract unchanged."""


@mutation
def security_on_each_operation(document: Document) -> None:
    document["security"] = []
    for operation in (post(document), get(document)):
        operation["security"] = [{"merchantKey": []}]


@mutation
def security_on_one_operation(document: Document) -> None:
    get(document)["security"] = []


@mutation
def no_security_at_the_top(document: Document) -> None:
    del document["security"]
    post(document)["security"] = [{"merchantKey": []}]


@mutation
def required_query_and_header(document: Document) -> None:
    get(document)["parameters"] += [
        parameter("page", "query", {"type": "integer", "minimum": 1, "maximum": 100}, required=True),
        parameter("X-Channel", "header", {"type": "string", "enum": ["web", "shop"]}, required=True),
    ]


@mutation
def optional_numbers_and_defaults(document: Document) -> None:
    get(document)["parameters"] += [
        parameter("verbose", "query", {"type": "boolean", "default": False}),
        parameter("factor", "query", {"type": "number", "minimum": 0, "exclusiveMinimum": True, "default": 1.5}),
        parameter("depth", "query", {"type": "integer", "default": 3, "multipleOf": 3}),
    ]


@mutation
def arrays_in_the_query(document: Document) -> None:
    numbers = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 3}
    get(document)["parameters"] += [
        parameter("exploded", "query", {**numbers, "uniqueItems": True}),
        parameter("comma", "query", numbers, explode=False),
        parameter("pipe", "query", numbers, style="pipeDelimited"),
        parameter("words", "query", {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}),
        parameter("flags", "query", {"type": "array", "items": {"type": "boolean"}}, style="spaceDelimited"),
    ]


@mutation
def cookies(document: Document) -> None:
    schema = {"type": "string", "pattern": "^[a-z]{1,8}$"}
    post(document)["parameters"] += [
        parameter("shop", "cookie", schema, required=True),
        parameter("theme", "cookie", schema),
    ]


@mutation
def parameters_of_the_path_item(document: Document) -> None:
    item = document["paths"]["/payments/{payment_id}"]
    item["parameters"] = [parameter("tenant", "query", {"type": "string", "minLength": 2}, required=True)]


@mutation
def numbers_and_arrays_in_the_path(document: Document) -> None:
    operation = copy.deepcopy(get(document))
    operation["operationId"] = "get_lines"
    operation["parameters"] = [
        parameter("number", "path", {"type": "integer", "minimum": 1, "maximum": 9}, required=True),
        parameter("ids", "path", {"type": "array", "items": {"type": "integer"}, "maxItems": 2}, required=True),
    ]
    document["paths"]["/orders/{number}/lines/{ids}"] = {"get": operation}


@mutation
def nullable(document: Document) -> None:
    properties = new_payment(document)["properties"]
    properties["cvv"]["nullable"] = True
    properties["note"] = {"type": "string", "nullable": True, "enum": ["gift", "refund"]}
    get(document)["parameters"].append(parameter("since", "query", {"type": "integer", "nullable": True}))


@mutation
def formats(document: Document) -> None:
    new_payment(document)["properties"] |= {
        "email": {"type": "string", "format": "email"},
        "address": {"type": "string", "format": "ipv4"},
        "order": {"type": "string", "format": "uuid"},
        "due": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
    }


@mutation
def other_enums_and_limits(document: Document) -> None:
    document["components"]["schemas"]["Currency"]["enum"] = ["EUR", "JPY"]
    properties = new_payment(document)["properties"]
    properties["amount"] |= {"minimum": 100, "maximum": 200}
    properties["card_number"] |= {"minLength": 16, "maxLength": 16}


@mutation
def nested_objects_and_arrays(document: Document) -> None:
    new_payment(document)["properties"] |= {
        "billing": {
            "type": "object",
            "required": ["city"],
            "additionalProperties": False,
            "properties": {"city": {"type": "string", "maxLength": 5}, "zip": {"type": "integer"}},
        },
        "items": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}},
        },
        "tags": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
    }


@mutation
def combined_schemas(document: Document) -> None:
    new_payment(document)["properties"] |= {
        "one": {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]},
        "all": {"allOf": [{"type": "integer", "minimum": 0}, {"maximum": 10}]},
        "other": {"type": "string", "not": {"enum": ["a"]}},
        "open": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True},
    }


@mutation
def a_second_operation(document: Document) -> None:
    operation = copy.deepcopy(post(document))
    operation["operationId"] = "annotate_payment"
    operation["parameters"] = [{"$ref": "#/components/parameters/PaymentId"}]
    operation.pop("x-valid-through", None)
    operation["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "array", "maxItems": 2, "items": {"type": "string", "minLength": 1}}
            }
        },
    }
    document["paths"]["/payments/{payment_id}"]["put"] = operation
    search = copy.deepcopy(get(document))
    search["operationId"] = "search_payments"
    search["parameters"] = [parameter("q", "query", {"type": "string"}, required=True)]
    # In front of the template: OpenAPI prefers the concrete path, and Connexion the one that comes first.
    document["paths"] = {"/payments/search": {"get": search}, **document["paths"]}


@mutation
def optional_bodies(document: Document) -> None:
    body = post(document)["requestBody"]
    body["required"] = False
    new_payment(document)["nullable"] = True


@mutation
def body_with_a_default(document: Document) -> None:
    schema = new_payment(document)
    schema["default"] = copy.deepcopy(schema["example"])
