"""The contract of this deployment, made from the YAML and the settings; it is what is enforced and served.

`document` is the YAML with the changes of deployment.py. The expiry rule, which a static file cannot state, is added as
bounds for the current month: to the schema when a request is validated, to the document when it is served.
"""

import copy
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml
from starlette.responses import RedirectResponse, Response

from handlers import deployment, supported

# libyaml's loader, if PyYAML has it, reads the file in a tenth of the time.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

PATH: Final = Path(__file__).parent.parent / "payment_gateway_api.yaml"

# Answers requests for a path that is not in the contract.
Endpoint = Callable[[], Awaitable[Response]]

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
            deployment.accept_only(self.document, list(currencies))
        deployment.put_expiry_rule_into_schema(self.document)
        deployment.drop_examples_of_parameters(self.document)
        deployment.keep_what_applies_to_bank(self.document, simulator=simulator)
        self.base_path: str = self.document["servers"][0]["url"].rstrip("/")
        self.max_errors: int = self.document["components"]["schemas"]["Problem"]["properties"]["errors"]["maxItems"]
        self._as_json = lru_cache(maxsize=1)(lambda *when: json.dumps(self._served(*when)).encode())
        # Made on demand: writing YAML takes 50 times as long.
        self._as_yaml = lru_cache(maxsize=1)(
            lambda *when: yaml.safe_dump(self._served(*when), sort_keys=False, allow_unicode=True).encode()
        )

    def month(self) -> date:
        """Return the first day of the current month in UTC; the enforced rules change with the month only."""
        return self._today().replace(day=1)

    def enforced(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return a schema of the document with the expiry rule as bounds for the current month, and its extension."""
        return deployment.bounded(schema, self.month())

    def example(self) -> dict[str, Any]:
        """Return a new payment, which the simulator authorizes."""
        examples = self.document["components"]["examples"]
        payment: dict[str, Any] = (examples.get("Authorized") or examples["NewPayment"])["value"]
        return payment

    def served_json(self) -> bytes:
        """Return the document that is served now, as JSON."""
        return self._as_json(self.month(), self._is_open())

    def served_yaml(self) -> bytes:
        """Return the document that is served now, as YAML."""
        return self._as_yaml(self.month(), self._is_open())

    def _served(self, month: date, is_open: bool) -> dict[str, Any]:  # noqa: FBT001  # called above only
        document = copy.deepcopy(self.document)
        deployment.keep_what_applies_to_keys(document, is_open=is_open)
        deployment.prune(document)
        schemas = document["components"]["schemas"]
        for name, schema in schemas.items():
            schemas[name] = deployment.bounded(schema, month)
            schemas[name].pop(deployment.VALID_THROUGH, None)
        return document


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
