"""The changes that make the document of the file the document of this deployment.

Each function changes the document that it gets. None of them changes what the file says about a value that stays.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Final

from connexion.http_facts import METHODS

# The extension that names the fields with a year and a month that must not be in the past. In the file it is a key of
# the operation, so schemathesis.toml can tell the file from the served contract.
VALID_THROUGH: Final = "x-valid-through"

# The extension of an example that is served only if the bank is the built-in simulator (true), or is not (false).
_SIMULATOR: Final = "x-simulator"

# The extension of an operation with what its description says in addition if the bank is the built-in simulator.
_SIMULATOR_DESCRIPTION: Final = "x-simulator-description"


def operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the operations of a document."""
    for item in document["paths"].values():
        yield from (item[method] for method in METHODS & item.keys())


def accept_only(document: dict[str, Any], currencies: list[str]) -> None:
    """Replace the accepted currencies, and those in examples that would no longer be accepted."""
    document["components"]["schemas"]["Currency"]["enum"] = currencies

    def replace(node: Any) -> None:
        if isinstance(node, dict):
            currency = node.get("currency")
            if isinstance(currency, str) and currency not in currencies:
                node["currency"] = currencies[0]
            elif isinstance(currency, dict) and currency.get("example") not in {None, *currencies}:
                currency["example"] = currencies[0]
            if node.get("enum") is currencies:
                node["example"] = currencies[0]
            for child in node.values():
                replace(child)
        elif isinstance(node, list):
            for child in node:
                replace(child)

    replace(document)


def put_expiry_rule_into_schema(document: dict[str, Any]) -> None:
    """Move `x-valid-through` from operations to the schemas of their bodies."""
    for operation in operations(document):
        if VALID_THROUGH in operation:
            content = operation["requestBody"]["content"].values()
            name = next(iter(content))["schema"]["$ref"].rpartition("/")[2]
            document["components"]["schemas"][name][VALID_THROUGH] = operation.pop(VALID_THROUGH)


def bounded(schema: dict[str, Any], month: date) -> dict[str, Any]:
    """Return a schema that has `x-valid-through` with its bounds for this month: a card is valid to the month's end.

    Other forms of the rule break code generators (docs/decisions/expiry-rule.md).
    """
    if VALID_THROUGH not in schema:
        return schema
    rule, properties = schema[VALID_THROUGH], schema["properties"]
    year = {**properties[rule["year"]], "minimum": month.year}
    made = {**schema, "properties": {**properties, rule["year"]: year}}
    if month.month > 1:
        passed = {rule["year"]: {"maximum": month.year}, rule["month"]: {"maximum": month.month - 1}}
        made["not"] = {"type": "object", "required": list(passed), "properties": passed}
    return made


def keep_what_applies_to_bank(document: dict[str, Any], *, simulator: bool) -> None:
    """Remove the examples of another bank than the one that is configured, and what refers to them."""
    examples = document["components"].get("examples", {})
    foreign = [name for name, example in examples.items() if example.pop(_SIMULATOR, simulator) is not simulator]
    references = [{"$ref": f"#/components/examples/{name}"} for name in foreign]
    for operation in operations(document):
        description = operation.pop(_SIMULATOR_DESCRIPTION, None)
        if description and simulator:
            operation["description"] = f"{operation['description'].rstrip()}\n\n{description}"
        for content in operation.get("requestBody", {}).get("content", {}).values():
            named = content.get("examples", {})
            for name in [name for name, example in named.items() if example in references]:
                del named[name]


def drop_examples_of_parameters(document: dict[str, Any]) -> None:
    """Remove examples that Swagger UI would send: of an idempotency key that is used already, of an unknown payment."""
    for parameter in document["components"]["parameters"].values():
        parameter.pop("example", None)
        parameter["schema"].pop("example", None)


def keep_what_applies_to_keys(document: dict[str, Any], *, is_open: bool) -> None:
    """Remove the answers that this gateway does not give, and the security of a gateway that requires no key."""
    if is_open:
        document["security"] = []
        del document["components"]["securitySchemes"]
    for operation in operations(document):
        if is_open:
            operation.pop("security", None)
        operation["responses"].pop("401" if is_open else "421", None)


def prune(document: dict[str, Any]) -> None:
    """Remove the components that nothing refers to."""
    components = document["components"]
    unused: set[tuple[str, str]] | None = None
    while unused or unused is None:
        used = set(_references(document))
        unused = {
            (kind, name)
            for kind in components.keys() - {"securitySchemes"}  # which are referred to by name
            for name in components[kind]
            if f"#/components/{kind}/{name}" not in used
        }
        for kind, name in unused:
            del components[kind][name]
    for kind in [kind for kind, named in components.items() if not named]:
        del components[kind]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)
