"""The parameters of an operation: reading the values that a request sends for them.

Connexion's URI parser splits arrays in paths and queries, as it does for every Connexion application. Numbers and
booleans are read here, more strictly than by Python's `int()`, which accepts `1_000` and the digits of other scripts.
"""

import contextlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from connexion.uri_parsing import OpenAPIURIParser
from connexion.utils import is_null
from starlette.datastructures import Headers, QueryParams
from starlette.requests import cookie_parser
from starlette.types import Scope

_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)

# Arguments of an operation's function that are not parameters: the parsed body, the merchant, the path template.
BODY: Final = "body"
USER: Final = "user"
ROUTE: Final = "route"


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    argument: str
    schema: dict[str, Any]

    @property
    def is_any_text(self) -> bool:
        """Whether the contract accepts any text, as for X-Request-ID, of which the first value counts."""
        return not self.schema.keys() - {"type", "description", "example", "default", "maxLength"}


class Parameters:
    """The parameters of one operation.

    schema: an object schema with one property for each parameter, by the name of the function's argument
    names: the parameters' names, by argument
    defaults: values of parameters that are not sent, by argument
    """

    def __init__(self, definitions: list[dict[str, Any]]) -> None:
        self.names: dict[str, str] = {}
        self.defaults: dict[str, Any] = {}
        self.schema: dict[str, Any] = {"type": "object", "properties": {}}
        self._at: dict[str, list[_Parameter]] = {"path": [], "query": [], "header": [], "cookie": []}
        # Connexion lists the path item's parameters after the operation's own, and may list them twice.
        last_counts = {(definition["in"], definition["name"]): definition for definition in reversed(definitions)}
        unique = list(reversed(last_counts.values()))
        for definition in unique:
            self._add(definition)
        self._path_parser = _parser(unique, "path")
        self._query_parser = _parser(unique, "query")

    def read(self, scope: Scope, headers: Headers) -> dict[str, Any]:
        """Return the parameters that were sent, by argument."""
        values: dict[str, Any] = {}
        if self._at["path"]:
            sent: dict[str, Any] = scope["path_params"]
            if self._path_parser:
                sent = self._path_parser.resolve_path(sent)
            values |= _values(self._at["path"], sent)
        if self._query_parser:
            query = QueryParams(scope["query_string"])
            sent = self._query_parser.resolve_query({name: query.getlist(name) for name in query})
            values |= _values(self._at["query"], sent)
        for parameter in self._at["header"]:
            texts = headers.getlist(parameter.name)
            if len(texts) > 1 and not parameter.is_any_text:
                values[parameter.argument] = texts  # ambiguous; a list breaks the schema's `type`
            elif texts:
                values[parameter.argument] = _read(texts[0].strip(" \t"), parameter.schema)
        if self._at["cookie"]:
            values |= _values(self._at["cookie"], cookie_parser("; ".join(headers.getlist("cookie"))))
        return values

    def _add(self, definition: dict[str, Any]) -> None:
        name, schema = definition["name"], definition["schema"]
        argument = argument_of(name)
        assert argument not in self.names, "supported.py refuses such a contract"
        self.names[argument] = name
        self.schema["properties"][argument] = schema
        if definition.get("required") and definition["in"] != "path":
            self.schema.setdefault("required", []).append(argument)
        if "default" in schema:
            self.defaults[argument] = schema["default"]
        self._at[definition["in"]].append(_Parameter(name, argument, schema))


def argument_of(name: str) -> str:
    """Return what a function calls the parameter with this name."""
    return re.sub(r"[^0-9a-z]", "_", name.lower())


def _parser(definitions: Iterable[dict[str, Any]], place: str) -> OpenAPIURIParser | None:
    """Return Connexion's parser for the parameters in one place, which leaves their values as text.

    Return None for a path without arrays, which needs no parser.
    """
    wanted = [definition for definition in definitions if definition["in"] == place]
    has_array = any(definition["schema"]["type"] == "array" for definition in wanted)
    if not wanted or (place == "path" and not has_array):
        return None
    text = {"type": "string"}
    as_text = [
        {**definition, "schema": {"type": "array", "items": text} if definition["schema"]["type"] == "array" else text}
        for definition in wanted
    ]
    return OpenAPIURIParser(as_text, {})


def _values(parameters: list[_Parameter], sent: dict[str, Any]) -> dict[str, Any]:
    return {
        parameter.argument: _read(sent[parameter.name], parameter.schema)
        for parameter in parameters
        if parameter.name in sent
    }


def _read(text: Any, schema: dict[str, Any]) -> Any:
    """Return the value of a text. Invalid text is returned unchanged, and then violates the schema's `type`."""
    if schema.get("nullable") and is_null(text):
        return None
    match schema["type"]:
        case "array":
            return [_read(part, schema["items"]) for part in text]
        case "boolean" if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        case "integer" if _INTEGER.fullmatch(text):
            with contextlib.suppress(ValueError):  # more digits than Python reads
                return int(text)
        case "number" if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
    return text
