"""The contract: the YAML and this deployment's settings, made into what is enforced and served.

One document serves both. `document` is the YAML with this deployment's currencies; the expiry rule,
which no static file can say, is added as bounds for the current month, to the schema when a request
is validated and to the whole document when it is served.
"""

import copy
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml
from connexion import AsyncApp
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

PATH: Final = Path(__file__).parent.parent / "payment_gateway_api.yaml"

# The extension that names the year and month of a request which together must not be in the past.
# In the file it stands at the operation, where schemathesis.toml can tell file and served apart.
VALID_THROUGH: Final = "x-valid-through"

# Where the functions are that the operationIds name.
HANDLERS: Final = "handlers.payments"

# Where the operation of a request stands, in the ASGI scope.
OPERATION: Final = "gateway.operation"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the contract. `max_body_bytes` is 0 where there is no request body."""

    id: str
    route: str
    media_types: tuple[str, ...]
    max_body_bytes: int
    needs_key: bool


@dataclass(frozen=True, slots=True)
class _Path:
    pattern: re.Pattern[str]
    operations: dict[str, Operation]


class Contract:
    """The contract of this deployment.

    currencies: the ISO 4217 codes to accept instead of the file's; none keeps the file's
    today: the current date in UTC; the expiry rule follows it while the process runs
    is_open: whether no API key is needed, which may end while the process runs
    """

    def __init__(self, currencies: Sequence[str], today: Callable[[], date], is_open: Callable[[], bool]) -> None:
        self._today = today
        self._is_open = is_open
        self.document: dict[str, Any] = copy.deepcopy(_file())
        if currencies:
            _accept_only(self.document, list(currencies))
        _put_expiry_rule_into_schema(self.document)
        _drop_examples_of_headers(self.document)
        self.base_path: str = self.document["servers"][0]["url"].rstrip("/")
        self.max_errors: int = self.document["components"]["schemas"]["Problem"]["properties"]["errors"]["maxItems"]
        self._paths = [
            _path(self.base_path + path, item, needs_key=bool(self.document["security"]))
            for path, item in self.document["paths"].items()
        ]
        self._served = lru_cache(maxsize=1)(self._serve)

    def operations_at(self, path: str) -> tuple[dict[str, Operation], dict[str, str]]:
        """Return a path's operations by method, and its parameters; both empty when the contract has no such path."""
        if path.isprintable():
            for known in self._paths:
                if found := known.pattern.fullmatch(path):
                    return known.operations, found.groupdict()
        return {}, {}

    def fixed_operations(self) -> dict[tuple[str, str], Operation]:
        """Return the operations whose paths have no parameters, by method and path."""
        return {
            (method, operation.route): operation
            for known in self._paths
            for method, operation in known.operations.items()
            if "{" not in operation.route
        }

    def month(self) -> date:
        """Return the first day of the current month, in UTC: as long as it is the same, so is what is enforced."""
        return self._today().replace(day=1)

    def enforced(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return a schema of the document with the expiry rule as bounds for the current month."""
        return _bounded(schema, self.month())

    def served_json(self) -> bytes:
        """Return the document as it is served now, in JSON."""
        return self._served(self.month(), self._is_open())[0]

    def served_yaml(self) -> bytes:
        """Return the document as it is served now, in YAML."""
        return self._served(self.month(), self._is_open())[1]

    def _serve(self, month: date, is_open: bool) -> tuple[bytes, bytes]:  # noqa: FBT001  # called above only
        document = copy.deepcopy(self.document)
        if is_open:
            _drop_security(document)
        schemas = document["components"]["schemas"]
        for name, schema in schemas.items():
            schemas[name] = _bounded(schema, month)
        return (
            json.dumps(document).encode(),
            yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode(),
        )


def serve(app: AsyncApp, contract: Contract) -> None:
    """Serve the contract beside the API, as JSON and as YAML, and lead from `/` to its UI."""
    base = contract.base_path

    async def as_json(_request: Request) -> Response:
        return Response(contract.served_json(), media_type="application/json")

    async def as_yaml(_request: Request) -> Response:
        return Response(contract.served_yaml(), media_type="application/yaml")

    async def ui(_request: Request) -> Response:
        return RedirectResponse(f"{base}/ui/")

    app.add_url_rule(f"{base}/openapi.json", "openapi_json", as_json)
    app.add_url_rule(f"{base}/openapi.yaml", "openapi_yaml", as_yaml)
    app.add_url_rule("/", "ui", ui)


@lru_cache(maxsize=1)
def _file() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    return document


def _path(template: str, item: dict[str, Any], *, needs_key: bool) -> _Path:
    pattern = "".join(
        f"(?P<{part[1:-1]}>[^/]+)" if part.startswith("{") else re.escape(part)
        for part in re.split(r"(\{[^}]+\})", template)
    )
    operations = {
        method.upper(): Operation(
            id=operation["operationId"],
            route=template,
            media_types=tuple(operation.get("requestBody", {}).get("content", ())),
            max_body_bytes=operation.get("requestBody", {}).get("x-max-bytes", 0),
            needs_key=needs_key,
        )
        for method, operation in item.items()
        if isinstance(operation, dict)
    }
    if "GET" in operations:
        operations["HEAD"] = operations["GET"]
    return _Path(re.compile(pattern), operations)


def _put_expiry_rule_into_schema(document: dict[str, Any]) -> None:
    for item in document["paths"].values():
        for operation in item.values():
            if VALID_THROUGH in operation:
                content = operation["requestBody"]["content"].values()
                name = next(iter(content))["schema"]["$ref"].rpartition("/")[2]
                document["components"]["schemas"][name][VALID_THROUGH] = operation.pop(VALID_THROUGH)


def _drop_security(document: dict[str, Any]) -> None:
    """Without keys nobody is asked for one. An empty requirement beside another would let a wrong key pass."""
    document["security"] = []
    del document["components"]["securitySchemes"]
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("401")


def _drop_examples_of_headers(document: dict[str, Any]) -> None:
    """Swagger UI sends a parameter's example with every try: the second payment would have the first's key."""
    for parameter in document["components"]["parameters"].values():
        if parameter["in"] == "header":
            del parameter["example"], parameter["schema"]["example"]


def _bounded(schema: dict[str, Any], month: date) -> dict[str, Any]:
    """Replace `x-valid-through` by the bounds it means in this month. A card is valid to the end of its month."""
    if VALID_THROUGH not in schema:
        return schema
    rule = schema[VALID_THROUGH]
    later_year = {rule["year"]: {"minimum": month.year + 1}}
    this_year = {rule["year"]: {"minimum": month.year}, rule["month"]: {"minimum": month.month}}
    bounded = {keyword: value for keyword, value in schema.items() if keyword != VALID_THROUGH}
    return {**bounded, "anyOf": [{"properties": later_year}, {"properties": this_year}]}


def _accept_only(document: dict[str, Any], currencies: list[str]) -> None:
    """Replace the accepted currencies, and those in examples that would no longer be accepted."""
    document["components"]["schemas"]["Currency"]["enum"] = currencies

    def replace(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("currency"), str) and node["currency"] not in currencies:
                node["currency"] = currencies[0]
            if node.get("enum") is currencies:
                node["example"] = currencies[0]
            for child in node.values():
                replace(child)
        elif isinstance(node, list):
            for child in node:
                replace(child)

    replace(document)
