"""What a served contract says about answers, prepared for checking them.

Response objects may gain fields in a later version. Here they are closed, so that a field is found that this version of
the contract does not name.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from connexion.http_facts import METHODS
from jsonschema_rs import Draft4Validator

# jsonschema-rs does not have these in Draft 4.
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_URI_REFERENCE: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*")
_FORMATS: Final = {
    "uuid": lambda text: _UUID.fullmatch(text) is not None,
    "uri-reference": lambda text: _URI_REFERENCE.fullmatch(text) is not None,
}


@dataclass(frozen=True, slots=True)
class Header:
    """A documented header of a response."""

    required: bool
    schema: Draft4Validator
    is_integer: bool

    def allows(self, text: str) -> bool:
        """Return whether the header may have this value."""
        if not self.is_integer:
            return self.schema.is_valid(text)
        return re.fullmatch("[0-9]+", text) is not None and self.schema.is_valid(int(text))


@dataclass(frozen=True, slots=True)
class Documented:
    """A documented response: its headers by lower-case name, and the schemas of its body by media type."""

    headers: Mapping[str, Header]
    content: Mapping[str, Draft4Validator]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, and its documented responses by status."""

    id: str
    method: str
    path: re.Pattern[str]
    responses: Mapping[int, Documented]


class Promises:
    """What the document of a gateway promises.

    kind: whether the gateway requires keys
    any_path: an answer with a problem document to a request that reaches no operation
    statuses: all that are documented
    """

    def __init__(self, served: bytes) -> None:
        self._document: dict[str, Any] = json.loads(served)
        self._schemas = _closed(self._document["components"]["schemas"])
        self._compiled: dict[str, Draft4Validator] = {}
        self.kind = "with keys" if self._document.get("security") else "without keys"
        self.operations = list(self._operations())
        responses = [response for operation in self.operations for response in operation.responses.values()]
        headers = {name: header for response in responses for name, header in response.headers.items()}
        ids = {name: headers[name] for name in headers.keys() & {"x-request-id"}}
        problem = self._validator({"$ref": "#/components/schemas/Problem"})
        self.any_path = Documented(ids, {"application/problem+json": problem})
        self.statuses = {status for operation in self.operations for status in operation.responses}

    def seen(self) -> set[tuple[str, str, int]]:
        """Return each documented status as kind of the gateway, operationId and status."""
        return {(self.kind, operation.id, status) for operation in self.operations for status in operation.responses}

    def operation(self, method: str, path: str) -> Operation | None:
        """Return the operation that a request is for. HEAD is answered as GET is (RFC 9110, 9.3.2)."""
        wanted = "GET" if method == "HEAD" else method
        for operation in self.operations:
            if operation.method == wanted and operation.path.fullmatch(path):
                return operation
        return None

    def _operations(self) -> Iterator[Operation]:
        base = self._document["servers"][0]["url"].rstrip("/")
        for path, item in self._document["paths"].items():
            pattern = re.compile("[^/]+".join(re.escape(part) for part in re.split(r"\{[^}]+\}", base + path)))
            for method in METHODS & item.keys():
                responses = {
                    int(status): self._documented(found) for status, found in item[method]["responses"].items()
                }
                yield Operation(item[method]["operationId"], method.upper(), pattern, responses)

    def _documented(self, response: dict[str, Any]) -> Documented:
        response = self._resolved(response)
        headers = {name.lower(): self._header(header) for name, header in response.get("headers", {}).items()}
        content = {name: self._validator(media["schema"]) for name, media in response.get("content", {}).items()}
        return Documented(headers, content)

    def _header(self, header: dict[str, Any]) -> Header:
        header = self._resolved(header)
        schema = self._resolved(header["schema"])
        return Header(header.get("required", False), self._validator(schema), schema["type"] == "integer")

    def _resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        found: Any = node
        if "$ref" in node:
            found = self._document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
        resolved: dict[str, Any] = found
        return resolved

    def _validator(self, schema: dict[str, Any]) -> Draft4Validator:
        text = json.dumps(schema)
        if text not in self._compiled:
            whole = {**schema, "components": {"schemas": self._schemas}}
            self._compiled[text] = Draft4Validator(whole, formats=_FORMATS, validate_formats=True)
        return self._compiled[text]


def _closed(node: Any) -> Any:
    """Return schemas in which an object has no fields but those that are named."""
    if isinstance(node, list):
        return [_closed(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(value) for name, value in node.items()}
    if node.get("nullable") is True:  # Draft 4 lacks it
        closed["type"] = [node["type"], "null"]
    return {"additionalProperties": False, **closed} if isinstance(node.get("properties"), dict) else closed
