"""The contract of this deployment, made from the YAML and the settings; it is what is enforced and served.

`document` is the YAML with this deployment's currencies. The expiry rule, which a static file cannot state, is added
as bounds for the current month: to the schema when a request is validated, to the document when it is served.
"""

import copy
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml
from connexion.http_facts import METHODS
from starlette.responses import RedirectResponse, Response

from handlers import supported

# libyaml's loader, if PyYAML has it, reads the file in a tenth of the time.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

PATH: Final = Path(__file__).parent.parent / "payment_gateway_api.yaml"

# Answers requests for a path that is not in the contract.
Endpoint = Callable[[], Awaitable[Response]]

# The extension that names the fields with a year and a month that must not be in the past. In the file it is a key of
# the operation, so schemathesis.toml can tell the file from the served contract.
VALID_THROUGH: Final = "x-valid-through"

# The extension of an example that is served only if the bank is the built-in simulator (true), or is not (false).
SIMULATOR: Final = "x-simulator"

# The package of the functions that the operationIds name.
HANDLERS: Final = "handlers.payments"


class Contract:
    """The contract of this deployment. Raises `UnsupportedContract` (supported.py).

    currencies: the ISO 4217 codes to accept instead of the file's; if empty, the file's stay
    today: the current date in UTC; the expiry rule follows it while the process runs
    is_open: whether requests need no API key; this may change while the process runs
    simulator: whether the bank is the built-in simulator, of which some examples speak
    document: an OpenAPI document in place of the file
    """

    def __init__(
        self,
        currencies: Sequence[str],
        today: Callable[[], date],
        is_open: Callable[[], bool],
        *,
        simulator: bool,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        self._today = today
        self._is_open = is_open
        self.document: dict[str, Any] = copy.deepcopy(dict(document)) if document else _read_file()
        supported.check(self.document)
        if currencies:
            _accept_only(self.document, list(currencies))
        _put_expiry_rule_into_schema(self.document)
        _drop_examples_of_headers(self.document)
        _keep_examples_of_bank(self.document, simulator=simulator)
        self.base_path: str = self.document["servers"][0]["url"].rstrip("/")
        self.max_errors: int = self.document["components"]["schemas"]["Problem"]["properties"]["errors"]["maxItems"]
        self._served = lru_cache(maxsize=1)(self._serve)

    def month(self) -> date:
        """Return the first day of the current month in UTC; the enforced rules change with the month only."""
        return self._today().replace(day=1)

    def enforced(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return a schema of the document with the expiry rule as bounds for the current month."""
        return _bounded(schema, self.month())

    def example(self) -> dict[str, Any]:
        """Return a new payment, which the simulator authorizes."""
        examples = self.document["components"]["examples"]
        payment: dict[str, Any] = (examples.get("Authorized") or examples["NewPayment"])["value"]
        return payment

    def served_json(self) -> bytes:
        """Return the document that is served now, as JSON."""
        return self._served(self.month(), self._is_open())[0]

    def served_yaml(self) -> bytes:
        """Return the document that is served now, as YAML."""
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


def endpoints(contract: Contract) -> dict[str, Endpoint]:
    """Return the endpoints outside the contract by path: the contract as JSON and as YAML, and redirects to the UI."""
    base = contract.base_path

    async def as_json() -> Response:
        return Response(contract.served_json(), media_type="application/json")

    async def as_yaml() -> Response:
        return Response(contract.served_yaml(), media_type="application/yaml")

    async def ui() -> Response:
        return RedirectResponse(f"{base}/ui/")

    return {f"{base}/openapi.json": as_json, f"{base}/openapi.yaml": as_yaml, "/": ui, f"{base}/ui": ui}


def _read_file() -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(PATH.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  # a safe one
    return document


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        yield from (item[method] for method in METHODS & item.keys())


def _put_expiry_rule_into_schema(document: dict[str, Any]) -> None:
    for operation in _operations(document):
        if VALID_THROUGH in operation:
            content = operation["requestBody"]["content"].values()
            name = next(iter(content))["schema"]["$ref"].rpartition("/")[2]
            document["components"]["schemas"][name][VALID_THROUGH] = operation.pop(VALID_THROUGH)


def _drop_security(document: dict[str, Any]) -> None:
    """Remove everything about API keys, which a gateway without keys does not require."""
    document["security"] = []
    del document["components"]["securitySchemes"]
    for operation in _operations(document):
        operation.pop("security", None)
        operation["responses"].pop("401", None)


def _drop_examples_of_headers(document: dict[str, Any]) -> None:
    """Remove examples that Swagger UI would send with every request: each payment would repeat one idempotency key."""
    for parameter in document["components"]["parameters"].values():
        if parameter["in"] == "header":
            parameter.pop("example", None)
            parameter["schema"].pop("example", None)


def _keep_examples_of_bank(document: dict[str, Any], *, simulator: bool) -> None:
    """Remove the examples of another bank than the one that is configured, and what refers to them."""
    examples = document["components"].get("examples", {})
    foreign = [name for name, example in examples.items() if example.pop(SIMULATOR, simulator) is not simulator]
    references = [{"$ref": f"#/components/examples/{name}"} for name in foreign]
    for name in foreign:
        del examples[name]
    for operation in _operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            named = content.get("examples", {})
            for name in [name for name, example in named.items() if example in references]:
                del named[name]


def _bounded(schema: dict[str, Any], month: date) -> dict[str, Any]:
    """Replace `x-valid-through` by its bounds for this month. A card is valid to the end of its month."""
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
