"""The request validator: every error of a request in one 400, and never a value that was sent.

It speaks for the contract. What is wanted of a field is read from its schema, so a limit that
changes there changes here; what is written here is only how to say it.
"""

import re
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from jsonschema_rs import Draft4Validator

from handlers.contract import Contract
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


# What to call a field that breaks several keywords at once: the first of these.
_OF_KEYWORD: Final = {
    "required": FieldCode.REQUIRED,
    "type": FieldCode.WRONG_TYPE,
    "enum": FieldCode.NOT_SUPPORTED,
    "pattern": FieldCode.WRONG_FORMAT,
    "minLength": FieldCode.WRONG_FORMAT,
    "maxLength": FieldCode.WRONG_FORMAT,
    "minimum": FieldCode.OUT_OF_RANGE,
    "maximum": FieldCode.OUT_OF_RANGE,
}
_PRIORITY: Final = list(_OF_KEYWORD)

_ARTICLES: Final = {"object": "a JSON object", "integer": "an integer", "string": "a string"}
_FORMATS: Final = {"uuid": "a UUID"}

# The only unknown field names that are repeated: a name may be anything, a card number too.
_PLAIN_WORD: Final = re.compile(r"[A-Za-z_]{1,40}")


class Rules:
    """What the contract wants of an operation's requests.

    parameters: as Connexion gives them; the contract has them in the path and in headers
    body: its schema, None where there is none
    """

    def __init__(self, contract: Contract, parameters: list[dict[str, Any]], body: dict[str, Any] | None) -> None:
        named = {parameter["name"]: parameter["schema"] for parameter in parameters}
        self._parameters = Schema({"type": "object", "properties": named})
        self._max_errors = contract.max_errors
        self._month = contract.month
        self._body = lru_cache(maxsize=1)(lambda _month: Schema(contract.enforced(body)) if body else None)

    def check(self, parameters: dict[str, str], body: Any) -> None:
        """Raise `Problem` with all that is wrong, if anything is."""
        schema = self._body(self._month())
        if not (self._parameters.is_valid(parameters) and (schema is None or schema.is_valid(body))):
            errors = self._parameters.find_errors(parameters)
            raise_if(errors + (schema.find_errors(body) if schema else []), self._max_errors)


def raise_if(errors: list[dict[str, str]], max_errors: int) -> None:
    """Raise `Problem` with all these errors, if there are any."""
    if not errors:
        return
    shown = errors[:max_errors]
    sentences = [f"{error['field']} {error['message']}" for error in shown]
    if len(errors) > len(shown):
        sentences.append(f"and {len(errors) - len(shown)} more")
    raise Problem(Code.VALIDATION_FAILED, "; ".join(sentences) + ".", errors=shown)


class Schema:
    """A schema, compiled: jsonschema-rs takes a microsecond for a payment that is valid, jsonschema 450."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._validator = Draft4Validator(schema)
        self.is_valid = self._validator.is_valid

    def find_errors(self, sent: Any) -> list[dict[str, str]]:
        """Return every way in which `sent` breaks the schema, as FieldErrors in the schema's field order."""
        if not isinstance(sent, dict):
            return [_error("(body)", FieldCode.WRONG_TYPE, f"must be {_ARTICLES['object']}")]
        broken = self._broken(sent)
        year, month = _expiry(self._schema)
        errors = []
        for name, wanted in self._schema["properties"].items():
            if name in broken:
                keyword = min(broken[name], key=_PRIORITY.index)
                message = f"{'is required and ' if keyword == 'required' else ''}must be {_wanted(wanted)}"
                errors.append(_error(name, _OF_KEYWORD[keyword], message))
            elif name == year and "anyOf" in broken:
                errors.append(_error(name, FieldCode.EXPIRED, f"together with {month} must not be in the past"))
        if "additionalProperties" in broken:
            errors += _unknown(sent.keys() - self._schema["properties"].keys())
        return errors

    def _broken(self, sent: dict[str, Any]) -> dict[str, set[str]]:
        """Return the keywords that each field breaks; those of the whole object stand under their own names."""
        broken: dict[str, set[str]] = {}
        for error in self._validator.iter_errors(sent):
            keyword = str(error.schema_path[-1])
            if keyword == "required":
                broken |= {name: {keyword} for name in self._schema["required"] if name not in sent}
            else:
                broken.setdefault(str(error.instance_path[0]) if error.instance_path else keyword, set()).add(keyword)
        return broken


def _expiry(schema: dict[str, Any]) -> tuple[str, str] | tuple[None, None]:
    """The fields that the expiry bounds (contract.py) speak of."""
    if "anyOf" not in schema:
        return None, None
    year, month = schema["anyOf"][1]["properties"]
    return year, month


def _unknown(names: set[str]) -> list[dict[str, str]]:
    plain = sorted(name for name in names if _PLAIN_WORD.fullmatch(name))
    unnamed = ["(unnamed)"] if len(plain) < len(names) else []
    return [_error(name, FieldCode.UNKNOWN_FIELD, "is not a field of this request") for name in plain + unnamed]


def _error(field: str, code: FieldCode, message: str) -> dict[str, str]:
    return {"field": field, "code": code, "message": message}


def _wanted(schema: dict[str, Any]) -> str:
    """Say in words what a field's schema wants: `an integer from 1 to 12`."""
    if "x-wanted" in schema:
        return str(schema["x-wanted"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    what = _ARTICLES[schema["type"]]
    if schema["type"] == "integer":
        return what + _range("from", schema.get("minimum"), schema.get("maximum"))
    length = _range("of", schema.get("minLength"), schema.get("maxLength"))
    return f"{what}{length} {schema.get('x-characters', 'characters')}"


def _range(word: str, low: int | None, high: int | None) -> str:
    if low is None:
        return "" if high is None else f" up to {high}"
    if high is None:
        return f" from {low}"
    if low == high:
        return f" of {low}"
    return f" {word} {low} {'or' if high == low + 1 else 'to'} {high}"
