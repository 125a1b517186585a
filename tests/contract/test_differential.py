"""The gateway accepts the requests that Connexion accepts, except for a short list of cases where it is stricter.

The gateway answers operations without Connexion's request-time middleware, so it must be compared with Connexion.
The same contract is served by a plain Connexion application and by the gateway, both with stub
functions, and both get the same generated requests (generating.py), for several contracts (mutations.py).
"""

import asyncio
import copy
import functools
import hashlib
import json
import random
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import pytest
import yaml
from connexion import AsyncApp
from connexion.resolver import Resolution, Resolver
from starlette.responses import Response

import config
from app import create_app, today_utc
from handlers.contract import PATH, Contract
from tests.contract.generating import LOOSE_NUMBERS, Request, generated
from tests.contract.mutations import MUTATIONS, Document, mutated

FILE = yaml.safe_load(PATH.read_text())
BASE = "/api/v1"
KEY = "pgw_test_" + "k" * 43
REQUESTS = 300  # for each contract

# The reasons for which the gateway refuses requests that Connexion accepts, and the requests that they apply to.
STRICTER: Final[dict[str, Callable[[Request], object]]] = {
    "a repeated field name is ambiguous (RFC 8259, 4)": lambda sent: "repeated field name" in sent.changes,
    "NaN is not JSON (RFC 8259, 6)": lambda sent: "NaN" in sent.changes,
    "a body without Content-Type may be anything": lambda sent: "no content type" in sent.changes,
    "JSON is UTF-8 (RFC 8259, 8.1)": lambda sent: "other charset" in sent.changes,
    "a compressed body is not parsed as plain": lambda sent: "content encoding" in sent.changes,
    "a media type's case does not switch validation off": lambda sent: (
        ("Content-Type", "Application/JSON") in sent.headers
    ),
    "a repeated header is ambiguous": lambda sent: "repeated in header" in sent.changes,
    "Python's $ matches before a newline": lambda sent: "newline" in sent.changes,
    "formats are checked": lambda sent: (
        re.search(rb'"(order|due|at|email|address)"', sent.body) or "created_" in sent.query
    ),
    "numbers are written as in JSON": lambda sent: any(quote(text) in _texts(sent) for text in LOOSE_NUMBERS),
}

# The reasons for which the gateway accepts requests that Connexion refuses.
MORE_TOLERANT: Final[dict[str, Callable[[Request], object]]] = {
    "a body that is not required need not be sent": lambda sent: not sent.body,
}


def _texts(sent: Request) -> set[str]:
    """Return the texts of parameters in the path and the query, percent-encoded as they are sent."""
    written = f"{sent.path}&{sent.query}"
    return {*re.split(r"[/=&]", written), *re.split(r"[/=&,]|%7C|%20", written)}


class Stub(Resolver):
    """Resolves every operationId to a function that accepts everything."""

    def resolve(self, operation: Any) -> Resolution:
        return Resolution(_accept, operation.operation_id)


async def _accept(**_: Any) -> Response:
    return Response(status_code=204)


def check_key(token: str) -> dict[str, str] | None:
    """Check an API key for the plain application (x-bearerInfoFunc)."""
    return {"sub": "merchant"} if token == KEY else None


def plain(document: Document) -> AsyncApp:
    """Return a Connexion application that serves the contract as the gateway serves it, with the expiry rule."""
    served = json.loads(Contract((), today_utc, lambda: False, simulator=True, document=document).served_json())
    for scheme in served["components"]["securitySchemes"].values():
        scheme["x-bearerInfoFunc"] = f"{__name__}.check_key"
    application = AsyncApp(__name__, resolver=Stub())
    application.add_api(served)
    return application


def ours(document: Document) -> AsyncApp:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    settings = config.load({"BANK_URL": "http://127.0.0.1:9", "API_KEYS": f"merchant:{digest}"})
    return create_app(settings, document=document, resolver=Stub()).app


async def accepted(application: AsyncApp, sent: Request) -> bool:
    """Return whether the stub was reached."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": sent.body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    try:
        await application(sent.scope(), receive, send)
    except Exception:  # Connexion's outermost middleware answers 500 and raises the exception again
        return False
    return statuses == [204]


@functools.cache
def verdicts(name: str) -> list[tuple[Request, bool, bool]]:
    """Return the requests for a contract, with the verdicts of Connexion and of the gateway."""
    document = mutated(FILE, name)
    by_connexion, by_gateway = plain(copy.deepcopy(document)), ours(document)

    async def compare() -> list[tuple[Request, bool, bool]]:
        requests = generated(document, BASE, KEY, REQUESTS, random.Random(name))
        return [(sent, await accepted(by_connexion, sent), await accepted(by_gateway, sent)) for sent in requests]

    return asyncio.run(compare())


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove all settings from the environment."""
    monkeypatch.chdir("/")
    for name in config.SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_gateway_accepts_what_connexion_accepts(name: str) -> None:
    """If the verdicts differ, the reason is on one of the lists."""
    compared = verdicts(name)
    differing = [
        sent
        for sent, by_connexion, by_gateway in compared
        if by_connexion != by_gateway
        and not any(applies(sent) for applies in (STRICTER if by_connexion else MORE_TOLERANT).values())
    ]
    assert not differing, [(sent, len(differing)) for sent in differing[:5]]
    agreed = [by_connexion for _, by_connexion, by_gateway in compared if by_connexion == by_gateway]
    assert agreed.count(True) > REQUESTS / 10, "both accept many requests"
    assert agreed.count(False) > REQUESTS / 10, "both refuse many requests"


def test_every_reason_on_the_list_is_needed() -> None:
    """Each reason explains a difference; any other could hide a later one."""
    differing = [
        sent for name in MUTATIONS for sent, by_connexion, by_gateway in verdicts(name) if by_connexion > by_gateway
    ]
    for reason, applies in STRICTER.items():
        assert any(applies(sent) for sent in differing), reason


def test_five_thousand_requests_are_compared() -> None:
    """They are sent for the unchanged contract and for at least a dozen changes of it."""
    assert len(MUTATIONS) > 12
    assert sum(len(verdicts(name)) for name in MUTATIONS) >= 5000
