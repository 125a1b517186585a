"""The request validator: it reports every error of a request in one 400, and never repeats a value that was sent.

The messages are made from the schemas, so a limit that changes in the contract changes in the messages, too.
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs
from jsonschema_rs import ValidationErrorKind

from handlers.body import NOT_SENT
from handlers.contract import Contract
from handlers.deployment import VALID_THROUGH
from handlers.problems import Code, Problem


class FieldCode(StrEnum):
    """The contract's `FieldErrorCode`."""

    REQUIRED = "required"
    UNKNOWN_FIELD = "unknown_field"
    WRONG_TYPE = "wrong_type"
    WRONG_FORMAT = "wrong_format"
    NOT_SUPPORTED = "not_supported"
    OUT_OF_RANGE = "out_of_range"
    EXPIRED = "expired"


# A pattern that no name in an object may match. OpenAPI 3.0 can't say this; Draft 4 can.
_NAMES_WITHOUT: Final = "x-names-without"

# Not a keyword of JSON Schema: it means the bounds that deployment.py makes of `x-valid-through`.
_EXPIRED: Final = "expired"

# The codes by schema keyword. A field that violates several keywords has the code of the first one here.
_CODE_OF: Final = {
    "required": FieldCode.REQUIRED,
    "additionalProperties": FieldCode.UNKNOWN_FIELD,
    "type": FieldCode.WRONG_TYPE,
    "enum": FieldCode.NOT_SUPPORTED,
    "pattern": FieldCode.WRONG_FORMAT,
    "minLength": FieldCode.WRONG_FORMAT,
    "maxLength": FieldCode.WRONG_FORMAT,
    "minimum": FieldCode.OUT_OF_RANGE,
    "maximum": FieldCode.OUT_OF_RANGE,
    "exclusiveMinimum": FieldCode.OUT_OF_RANGE,
    "exclusiveMaximum": FieldCode.OUT_OF_RANGE,
    "multipleOf": FieldCode.OUT_OF_RANGE,
    _EXPIRED: FieldCode.EXPIRED,
}
_PRIORITY: Final = list(_CODE_OF)

# The names and positions that lead to a field.
_Path = tuple[str | int, ...]

_UNNAMED: Final = "(unnamed)"

_ARTICLES: Final = {
    "object": "a JSON object",
    "array": "an array",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "a string",
}
_FORMATS: Final = {"uuid": "a UUID", "date": "a date like 2026-11-24", "date-time": "a time like 2026-11-24T10:15:30Z"}

# A field name that is not in the contract may be a card number. Only plain words are repeated.
_PLAIN_WORD: Final = re.compile(r"[A-Za-z_]{1,40}")

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Rules:
    """Validates the requests of one operation.

    parameters: an object schema with one property for each parameter, by argument
    names: the parameters' names, by argument
    body: the schema of the request body, None where there is none
    """

    def __init__(
        self,
        contract: Contract,
        parameters: dict[str, Any],
        names: Mapping[str, str],
        body: dict[str, Any] | None,
    ) -> None:
        self._parameters = Schema(parameters, names)
        self._max_errors = contract.max_errors
        self._month = contract.month
        self._body = lru_cache(maxsize=1)(lambda _month: Schema(contract.enforced(body)) if body else None)
        self._body(self._month())  # a schema that can't be compiled stops the start

    def check(self, parameters: dict[str, Any], body: Any) -> None:
        """Raise `Problem` with every error of the request, if there is any.

        body: what was sent, or `NOT_SENT`
        """
        schema = None if body is NOT_SENT else self._body(self._month())
        if not (self._parameters.is_valid(parameters) and (schema is None or schema.is_valid(body))):
            errors = self._parameters.find_errors(parameters)
            raise_if(errors + (schema.find_errors(body) if schema else []), self._max_errors)


def raise_if(errors: list[dict[str, str]], max_errors: int) -> None:
    """Raise `Problem` with these errors, if there are any; at most `max_errors` are listed."""
    if not errors:
        return
    shown = errors[:max_errors]
    sentences = [f"{error['field']} {error['message']}" for error in shown]
    if len(errors) > len(shown):
        sentences.append(f"and {len(errors) - len(shown)} more")
    raise Problem(Code.VALIDATION_FAILED, "; ".join(sentences) + ".", errors=shown)


class Schema:
    """A compiled schema of OpenAPI 3.0, which is JSON Schema's Draft 4 with `nullable`.

    names: the names of properties in messages, where they differ from their keys
    """

    def __init__(self, schema: dict[str, Any], names: Mapping[str, str] | None = None) -> None:
        self._schema = schema
        self._names = names or {}
        self._known = set(_property_names(schema))
        self._expiry: dict[str, str] = schema.get(VALID_THROUGH, {})
        self._validator = jsonschema_rs.Draft4Validator(draft4(schema), formats=_FORMAT_CHECKS)
        self.is_valid = self._validator.is_valid

    def find_errors(self, sent: Any) -> list[dict[str, str]]:
        """Return one FieldError for each invalid field of `sent`, in the schema's field order, unknown fields last."""
        broken: dict[_Path, set[str]] = {}
        for path, keyword in self._broken(sent):
            broken.setdefault(path, set()).add(keyword)
        if self._expiry:
            self._report_expiry(broken)
        return [self._error(path, broken[path]) for path in sorted(broken, key=self._position)]

    def _report_expiry(self, broken: dict[_Path, set[str]]) -> None:
        """Make one error of the year of the keywords that `x-valid-through` became.

        The rule about year and month together counts only where each of them is valid by itself.
        """
        year, month = (self._expiry["year"],), (self._expiry["month"],)
        if "minimum" in broken.get(year, ()):
            broken[year] ^= {"minimum", _EXPIRED}
        if broken.get(()) == {"not"}:
            del broken[()]
            if not {year, month} & broken.keys():
                broken[year] = {_EXPIRED}

    def _position(self, path: _Path) -> tuple[int, bool, str]:
        names = list(self._schema.get("properties", {}))
        known = bool(path) and path[0] in names
        return names.index(str(path[0])) if known else len(names), _UNNAMED in path, _dotted(path)

    def _broken(self, sent: Any) -> Iterator[tuple[_Path, str]]:
        """Yield each broken keyword with the path of its field."""
        for error in self._validator.iter_errors(sent):
            path, keyword = tuple(error.instance_path), str(error.schema_path[-1])
            if isinstance(error.kind, ValidationErrorKind.Required):
                yield (*path, error.kind.property), keyword
            elif isinstance(error.kind, ValidationErrorKind.AdditionalProperties):
                for name in error.kind.unexpected:
                    yield self._safe((*path, name), sent), keyword
            else:
                is_name = "patternProperties" in error.schema_path
                yield self._safe(path, sent), _NAMES_WITHOUT if is_name else keyword

    def _safe(self, path: _Path, sent: Any) -> _Path:
        """Return the path, with names that are neither in the contract nor plain words replaced.

        jsonschema-rs also gives a name of digits, which may be a card number, as an integer.
        """
        safe: list[str | int] = []
        for part in path:
            name = str(part)
            is_safe = isinstance(sent, list) or name in self._known or _PLAIN_WORD.fullmatch(name)
            safe.append(part if is_safe else _UNNAMED)
            sent = sent[int(part)] if isinstance(sent, list) else sent.get(name) if isinstance(sent, dict) else None
        return tuple(safe)

    def _error(self, path: _Path, keywords: set[str]) -> dict[str, str]:
        keyword = min(keywords, key=_rank)
        if keyword == "additionalProperties":
            message = "is not a field of this request"
        elif keyword == _NAMES_WITHOUT:
            message = "must have a name that is no card number"
        elif keyword == _EXPIRED:
            message = f"together with {self._expiry['month']} must not be in the past"
        else:
            message = f"{'is required and ' if keyword == 'required' else ''}must be {_wanted(self._at(path))}"
        named = (self._names.get(str(path[0]), path[0]), *path[1:]) if path else ("(body)",)
        return {"field": _dotted(named), "code": _CODE_OF.get(keyword, FieldCode.WRONG_FORMAT), "message": message}

    def _at(self, path: _Path) -> dict[str, Any]:
        """Return the schema of a field; it is empty if the field has none."""
        schema = self._schema
        for part in path:
            schema = schema.get("items", {}) if isinstance(part, int) else _property(schema, part)
        return schema


def _property(schema: dict[str, Any], name: str) -> dict[str, Any]:
    others = schema.get("additionalProperties")
    found: dict[str, Any] = schema.get("properties", {}).get(name) or (others if isinstance(others, dict) else {})
    return found


def _rank(keyword: str) -> int:
    return _PRIORITY.index(keyword) if keyword in _PRIORITY else len(_PRIORITY)


def _dotted(path: _Path) -> str:
    return ".".join(str(part) for part in path)


def _property_names(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from _property_names(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _property_names(value)


def draft4(schema: Any) -> Any:
    """Return the schema with `nullable`, which Draft 4 lacks, expressed by the type or value null."""
    if isinstance(schema, list):
        return [draft4(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    translated = {keyword: draft4(value) for keyword, value in schema.items()}
    if _NAMES_WITHOUT in schema:
        translated["patternProperties"] = {schema[_NAMES_WITHOUT]: {"not": {}}}
    if schema.get("nullable") is True:
        if "type" in schema:
            translated["type"] = [schema["type"], "null"]
        if "enum" in schema:
            translated["enum"] = [*schema["enum"], None]
    return translated


def _wanted(schema: dict[str, Any]) -> str:
    """Return what a field's schema requires, in words: `an integer from 1 to 12`."""
    if "x-wanted" in schema:
        return str(schema["x-wanted"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    kind = schema.get("type")
    if kind == "string":
        length = _range("of", schema.get("minLength"), schema.get("maxLength"))
        return f"{_ARTICLES[kind]}{length} {schema.get('x-characters', 'characters')}"
    if kind in {"integer", "number"}:
        return _ARTICLES[kind] + _range("from", schema.get("minimum"), schema.get("maximum"))
    return _ARTICLES.get(str(kind), "as the contract says")


def _range(word: str, low: int | None, high: int | None) -> str:
    if low is None:
        return "" if high is None else f" up to {high}"
    if high is None:
        return f" from {low}"
    if low == high:
        return f" of {low}"
    return f" {word} {low} {'or' if high == low + 1 else 'to'} {high}"


# jsonschema-rs has no `uuid` in Draft 4.
_FORMAT_CHECKS: Final = {
    "uuid": lambda text: _UUID.fullmatch(text) is not None,
}
