"""Which elements of OpenAPI the gateway enforces; a contract with any other element stops the start.

The gateway answers operations without Connexion's request-time middleware (docs/decisions/operations.md). An
element that Connexion would enforce and this gateway does not must therefore never be ignored silently.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from connexion.http_facts import METHODS

from handlers.parameters import BODY, ROUTE, USER, argument_of

_PATH_KEYS: Final = METHODS | {"summary", "description", "parameters"}
_OPERATION_KEYS: Final = {
    "operationId",
    "summary",
    "description",
    "tags",
    "externalDocs",
    "parameters",
    "requestBody",
    "responses",
    "security",
}
_PARAMETER_KEYS: Final = {"name", "in", "required", "description", "schema", "style", "explode", "example", "examples"}
_BODY_KEYS: Final = {"description", "required", "content"}
_MEDIA_TYPE_KEYS: Final = {"schema", "example", "examples"}

_SIMPLE_TYPES: Final = {"string", "integer", "number", "boolean"}
_STYLES: Final = {
    "query": {"form", "spaceDelimited", "pipeDelimited"},
    "path": {"simple"},
    "header": {"simple"},
    "cookie": {"form"},
}


class UnsupportedContract(Exception):
    """The contract has an element that the gateway does not enforce; the message gives its JSON pointer (RFC 6901)."""


def check(document: Mapping[str, Any]) -> None:
    """Raise `UnsupportedContract` for the first element that would not be enforced."""
    for pointer in _unsupported(document):
        raise UnsupportedContract(f"the contract has an element that the gateway does not enforce: {pointer}")


def _unsupported(document: Mapping[str, Any]) -> Iterator[str]:
    yield from _security(document, document.get("security", []), "/security")
    for path, item in document["paths"].items():
        at = f"/paths/{_escaped(path)}"
        yield from _unknown_keys(item, _PATH_KEYS, at)
        yield from _parameters(document, item, at)
        for method in METHODS & item.keys():
            yield from _operation(document, item[method], f"{at}/{method}")
            yield from _arguments(document, {at: item, f"{at}/{method}": item[method]})


def _operation(document: Mapping[str, Any], operation: Mapping[str, Any], at: str) -> Iterator[str]:
    yield from _unknown_keys(operation, _OPERATION_KEYS, at)
    yield from _security(document, operation.get("security", []), f"{at}/security")
    yield from _parameters(document, operation, at)
    body, at = _resolved(document, operation.get("requestBody", {}), f"{at}/requestBody")
    yield from _unknown_keys(body, _BODY_KEYS, at)
    for media_type, content in body.get("content", {}).items():
        if media_type != "application/json":
            yield f"{at}/content/{_escaped(media_type)}"
        yield from _unknown_keys(content, _MEDIA_TYPE_KEYS, f"{at}/content/{_escaped(media_type)}")


def _parameters(document: Mapping[str, Any], holder: Mapping[str, Any], at: str) -> Iterator[str]:
    for number, listed in enumerate(holder.get("parameters", [])):
        yield from _parameter(document, *_resolved(document, listed, f"{at}/parameters/{number}"))


def _parameter(document: Mapping[str, Any], parameter: Mapping[str, Any], at: str) -> Iterator[str]:
    yield from _unknown_keys(parameter, _PARAMETER_KEYS, at)
    place = parameter["in"]
    schema, schema_at = _resolved(document, parameter.get("schema", {}), f"{at}/schema")
    if parameter.get("style", next(iter(_STYLES[place]))) not in _STYLES[place]:
        yield f"{at}/style"
    kind = schema.get("type")
    if kind == "array" and place in {"query", "path"}:
        items, items_at = _resolved(document, schema.get("items", {}), f"{schema_at}/items")
        if items.get("type") not in _SIMPLE_TYPES:
            yield f"{items_at}/type"
    elif kind not in (_SIMPLE_TYPES if place in {"query", "path"} else {"string"}):
        yield f"{schema_at}/type"
    if place == "path" and schema.get("format") == "path":
        yield f"{schema_at}/format"


def _arguments(document: Mapping[str, Any], holders: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the names of parameters for which a function has no argument of its own.

    holders: a path and one of its operations, by pointer
    """
    known: dict[str, tuple[str, str]] = {}
    for holder_at, holder in holders.items():
        for number, listed in enumerate(holder.get("parameters", [])):
            parameter, at = _resolved(document, listed, f"{holder_at}/parameters/{number}")
            argument, place = argument_of(parameter["name"]), (parameter["in"], parameter["name"])
            if argument in {BODY, USER, ROUTE} or known.setdefault(argument, place) != place:
                yield f"{at}/name"


def _security(document: Mapping[str, Any], requirements: list[Mapping[str, Any]], at: str) -> Iterator[str]:
    schemes = document.get("components", {}).get("securitySchemes", {})
    for number, requirement in enumerate(requirements):
        # An empty requirement beside another would let a request with an invalid key pass as anonymous.
        if len(requirement) != 1:
            yield f"{at}/{number}"
        for name in requirement:
            if name not in schemes:
                yield f"{at}/{number}/{_escaped(name)}"
                continue
            scheme, scheme_at = _resolved(document, schemes[name], f"/components/securitySchemes/{_escaped(name)}")
            if (scheme.get("type"), str(scheme.get("scheme")).lower()) != ("http", "bearer"):
                yield scheme_at


def _unknown_keys(element: Mapping[str, Any], known: set[str], at: str) -> Iterator[str]:
    for key, value in element.items():
        if key not in known and not key.startswith("x-") and value is not False:
            yield f"{at}/{_escaped(key)}"


def _resolved(document: Mapping[str, Any], element: Mapping[str, Any], at: str) -> tuple[Mapping[str, Any], str]:
    """Follow references within the document; returns the element and its pointer."""
    while "$ref" in element:
        at = element["$ref"].removeprefix("#")
        element = document
        for part in at.split("/")[1:]:
            element = element[part.replace("~1", "/").replace("~0", "~")]
    return element, at


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")
