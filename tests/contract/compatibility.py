"""What a change of the contract means to its clients, and which version it needs.

docs/decisions/compatible-changes.md has the rules in words. A keyword without a rule here breaks when it changes.

`redocly diff` 2.77, which is experimental, does not say it: it rates a wider request as a patch, and overlooks changes
of links and of unknown keywords.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from connexion.http_facts import METHODS

from tests.contract import comparing
from tests.contract.comparing import Change, Difference, Rule, entries, restriction, tolerated, wording


def compare(released: Mapping[str, Any], contract: Mapping[str, Any]) -> list[Difference]:
    """Return the differences, without those of wording and examples."""
    return list(_DOCUMENT(_effective(released), _effective(contract), ""))


def change_of(differences: Iterable[Difference]) -> Change:
    """Return the most severe of the changes."""
    return max((difference.change for difference in differences), default=Change.NONE)


def lowest(released: str, change: Change) -> str:
    """Return the lowest version of a contract that has changed in this way since the released version."""
    major, minor, patch = numbers(released)
    steps = {
        Change.NONE: (major, minor, patch),
        Change.WIDENING: (major, minor + 1, 0) if major else (0, minor, patch + 1),
        Change.BREAKING: (major + 1, 0, 0) if major else (0, minor + 1, 0),
    }
    return ".".join(map(str, steps[change]))


def numbers(version: str) -> tuple[int, int, int]:
    """Return the numbers of a version, by which versions are in order."""
    major, minor, patch = map(int, version.split("."))
    return major, minor, patch


def _effective(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without references, whose operations have everything that applies to them."""

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(child) for child in node]
        if not isinstance(node, dict):
            return node
        if "$ref" not in node:
            return {key: resolved(child) for key, child in node.items()}
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        return resolved(target)

    made: dict[str, Any] = resolved({key: value for key, value in document.items() if key != "components"})
    made["schemas"] = dict.fromkeys(document["components"]["schemas"])
    made["securitySchemes"] = document["components"].get("securitySchemes")
    made["servers"] = [server["url"] for server in made["servers"]]
    for path, item in made["paths"].items():
        made["paths"][path] = {method: item[method] for method in METHODS & item.keys()}
        for operation in made["paths"][path].values():
            parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
            operation["parameters"] = {f"{each['in']} {each['name']}": each for each in parameters}
            operation.setdefault("security", made.get("security", []))
    return made


_element = partial(
    comparing.element,
    description=wording,
    summary=wording,
    externalDocs=wording,
    example=wording,
    examples=wording,
    deprecated=tolerated,
    x_simulator_description=wording,
)


def _schema(*, request: bool) -> Rule:
    def rule(before: Any, after: Any, at: str) -> Iterator[Difference]:
        own = dict(rules)
        # An object that is open accepts any value under a name that it does not describe.
        is_open = request and isinstance(before, dict) and before.get("additionalProperties") is not False
        own["properties"] = entries(rule, added=Change.BREAKING if is_open else Change.WIDENING)
        if not request and _is_text(before) and _is_text(after):
            own["maxLength"] = tolerated
        yield from _element(**own)(before, after, at)

    rules = {
        **dict.fromkeys(("maximum", "maxLength", "maxItems"), restriction(comparing.upper, request=request)),
        **dict.fromkeys(("minimum", "minLength", "minItems"), restriction(comparing.lower, request=request)),
        **dict.fromkeys(("pattern", "not"), restriction(comparing.presence, request=request)),
        "nullable": restriction(comparing.permitting, request=request),
        "required": restriction(comparing.required, request=request),
        "enum": restriction(comparing.allowed, request=True) if request else _growing_enum,
        "items": rule,
        "x_characters": wording,
        "x_wanted": wording,
    }
    return rule


def _is_text(schema: Any) -> bool:
    """Return whether a value is a text without a form, which may become longer."""
    return isinstance(schema, dict) and schema.get("type") == "string" and not schema.keys() & {"format", "pattern"}


def _growing_enum(before: Any, after: Any, at: str) -> Iterator[Difference]:
    """Compare enums of answers: clients tolerate new values, and their code has names for the old ones."""
    step = comparing.allowed(before, after) if before and after else None
    if step != 0:
        yield Difference(Change.WIDENING if step == 1 else Change.BREAKING, at, before, after)


def _new_parameter(_name: str, parameter: Any) -> Change:
    return Change.BREAKING if parameter.get("required") else Change.WIDENING


def _new_status(status: str, _response: Any) -> Change:
    """Clients know what the class of an error means (RFC 9110, section 15)."""
    return Change.WIDENING if status[0] in "45" else Change.BREAKING


_SENT: Final = _schema(request=True)
_RECEIVED: Final = _schema(request=False)
_MUST_BE_SENT: Final = restriction(comparing.restricting, request=True)

_PARAMETER: Final = _element(schema=_SENT, required=_MUST_BE_SENT)
_BODY: Final = _element(
    required=_MUST_BE_SENT,
    content=entries(_element(schema=_SENT), added=Change.WIDENING),
    x_max_bytes=restriction(comparing.upper, request=True),
)
_HEADER: Final = _element(schema=_RECEIVED, required=restriction(comparing.restricting, request=False))
_RESPONSE: Final = _element(
    headers=entries(_HEADER, added=Change.WIDENING),
    content=entries(_element(schema=_RECEIVED), added=Change.BREAKING),
    links=entries(_element(), added=Change.WIDENING),
)
_OPERATION: Final = _element(
    parameters=entries(_PARAMETER, added=_new_parameter),
    requestBody=_BODY,
    responses=entries(_RESPONSE, added=_new_status),
    security=restriction(comparing.allowed, request=True),
    x_valid_through=restriction(comparing.presence, request=True),
)
_DOCUMENT: Final = _element(
    info=wording,
    tags=wording,
    security=wording,  # compared in each operation
    paths=entries(entries(_OPERATION, added=Change.WIDENING), added=Change.WIDENING),
    schemas=entries(wording, added=Change.NONE),  # generated clients name their types after them
    securitySchemes=entries(_element(), added=Change.NONE),
)
