"""The request validator: every error of a request in one 400, and never a value that was sent.

It speaks for the contract. What is wanted of a field is read from its schema, so a limit that
changes there changes here; what is written here is only how to say it.
"""

import re
from collections.abc import AsyncGenerator, Iterator
from enum import StrEnum
from typing import Any, Final

from connexion.lifecycle import ConnexionRequest
from connexion.validators import AbstractRequestBodyValidator
from jsonschema import Draft4Validator, ValidationError
from jsonschema.validators import extend
from starlette.datastructures import Headers
from starlette.types import Scope

import strict_json
from handlers.contract import OPERATION, Contract
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

# Where the errors of parameters wait, in the ASGI scope, to be told together with those of the body.
_PARAMETER_ERRORS: Final = "gateway.parameter_errors"

# The only unknown field names that are repeated: a name may be anything, a card number too.
_PLAIN_WORD: Final = re.compile(r"[A-Za-z_]{1,40}")


class BodyValidator(AbstractRequestBodyValidator):
    """Connexion's hook for a request body of JSON."""

    def __init__(self, *, contract: Contract, schema: dict[str, Any], **options: Any) -> None:
        super().__init__(schema=contract.enforced(schema), **options)
        self._max_errors = contract.max_errors
        self._errors: list[dict[str, str]] = []

    async def _parse(self, stream: AsyncGenerator[bytes, None], scope: Scope) -> Any:
        self._errors = scope[_PARAMETER_ERRORS]
        return parse(b"".join([chunk async for chunk in stream]))

    def _validate(self, body: Any) -> None:
        raise_if(self._errors + find_errors(self._schema, body), self._max_errors)


class ParameterValidator:
    """Connexion's hook for parameters; the contract has them in the path and in headers."""

    def __init__(self, parameters: list[dict[str, Any]], *, contract: Contract, uri_parser: Any, **_: Any) -> None:
        self._schema = {
            "type": "object",
            "properties": {parameter["name"]: parameter["schema"] for parameter in parameters},
        }
        self._headers = [parameter["name"] for parameter in parameters if parameter["in"] == "header"]
        self._contract = contract
        self._uri_parser = uri_parser

    def validate(self, scope: Scope) -> None:
        """Raise `Problem` for wrong parameters, or leave them for the body's errors to be told with."""
        sent = dict(ConnexionRequest(scope, uri_parser=self._uri_parser).path_params)
        headers = Headers(scope=scope)
        # A header that stands twice says two things; joined by a NUL it fits no pattern.
        sent |= {name: "\0".join(headers.getlist(name)).strip(" \t") for name in self._headers if name in headers}
        scope[_PARAMETER_ERRORS] = find_errors(self._schema, sent)
        if not scope[OPERATION].max_body_bytes:
            raise_if(scope[_PARAMETER_ERRORS], self._contract.max_errors)


def parse(body: bytes) -> Any:
    """Read JSON strictly, or raise `Problem`."""
    try:
        return strict_json.loads(body)
    except ValueError:
        raise Problem(Code.MALFORMED_JSON) from None


def raise_if(errors: list[dict[str, str]], max_errors: int) -> None:
    """Raise `Problem` with all these errors, if there are any."""
    if not errors:
        return
    shown = errors[:max_errors]
    sentences = [f"{error['field']} {error['message']}" for error in shown]
    if len(errors) > len(shown):
        sentences.append(f"and {len(errors) - len(shown)} more")
    raise Problem(Code.VALIDATION_FAILED, "; ".join(sentences) + ".", errors=shown)


def _pattern(_validator: Any, pattern: str, sent: Any, _schema: Any) -> Iterator[ValidationError]:
    """ECMA 262 as OpenAPI wants it: in Python `$` also matches before a newline, and `\\d` any digit."""
    if isinstance(sent, str) and not re.fullmatch(pattern, sent, re.ASCII):
        yield ValidationError("does not match")


_Validator: Final = extend(Draft4Validator, {"pattern": _pattern})


def find_errors(schema: dict[str, Any], sent: Any) -> list[dict[str, str]]:
    """Return every way in which `sent` breaks `schema`, as FieldErrors in the schema's field order."""
    if not isinstance(sent, dict):
        return [_error("(body)", FieldCode.WRONG_TYPE, f"must be {_ARTICLES['object']}")]
    broken = _broken(schema, sent)
    year, month = _expiry(schema)
    errors = []
    for name, wanted in schema["properties"].items():
        if name in broken:
            keyword = min(broken[name], key=_PRIORITY.index)
            message = f"{'is required and ' if keyword == 'required' else ''}must be {_wanted(wanted)}"
            errors.append(_error(name, _OF_KEYWORD[keyword], message))
        elif name == year and "anyOf" in broken:
            errors.append(_error(name, FieldCode.EXPIRED, f"together with {month} must not be in the past"))
    if "additionalProperties" in broken:
        errors += _unknown(sent.keys() - schema["properties"].keys())
    return errors


def _broken(schema: dict[str, Any], sent: dict[str, Any]) -> dict[str, set[str]]:
    """Return the keywords that each field breaks; those of the whole object stand under their own names."""
    broken: dict[str, set[str]] = {}
    for error in _Validator(schema).iter_errors(sent):
        keyword = str(error.validator)
        if keyword == "required":
            broken |= {name: {keyword} for name in schema["required"] if name not in sent}
        else:
            broken.setdefault(str(error.path[0]) if error.path else keyword, set()).add(keyword)
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
