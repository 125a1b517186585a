"""Routing: what a path and a method mean, and that nothing else is served."""

import asyncio
import copy
from typing import Any

import pytest
import yaml
from connexion.resolver import Resolution, Resolver
from connexion.spec import Specification
from starlette.responses import Response

from app import today_utc
from handlers.contract import PATH, Contract
from handlers.problems import Code, Problem
from handlers.scope import ENDPOINT, OPERATION
from server.middleware.routing import Routing
from tests.support import UNKNOWN_ID

FILE: dict[str, Any] = yaml.safe_load(PATH.read_text())
BASE = "/api/v1"


class Stub(Resolver):
    """Resolves every operationId to a function that is never called here."""

    def resolve(self, operation: Any) -> Resolution:
        return Resolution(lambda: None, operation.operation_id)


async def endpoint() -> Response:
    return Response()


def operation(name: str) -> dict[str, Any]:
    return {"operationId": name, "responses": {"200": {"description": "OK"}}}


PATHS = {
    "/things/{number}": {"get": operation("get_thing"), "delete": operation("delete_thing")},
    "/things/{number}/parts/{part}": {"put": operation("put_part")},
    "/things/search": {"get": operation("search"), "post": operation("search_by_post")},
    "/shops/{shop}/{thing}": {"get": operation("get_thing_of_shop")},
    "/shops/{shop}/search": {"get": operation("search_shop")},
    "/files/{name}.json": {"get": operation("get_file")},
    "/exact.json/{name}": {"get": operation("get_exact")},
}


@pytest.fixture(scope="module")
def routing() -> Routing:
    """The contract with some more paths, and one endpoint beside it."""
    document = copy.deepcopy(FILE)
    document["paths"] |= copy.deepcopy(PATHS)
    contract = Contract((), today_utc, lambda: False, simulator=True, document=document)

    async def passed_on(_scope: Any, _receive: Any, _send: Any) -> None:
        pass

    made = Routing(passed_on, contract, {"/health/live": endpoint})
    made.add_api(Specification.load(contract.document), resolver=Stub())
    return made


def routed(routing: Routing, method: str, path: str, **more: Any) -> Any:
    """Return the scope after routing."""
    scope = {"type": "http", "method": method, "path": path, "headers": [], **more}

    async def unused(*_: Any) -> Any:
        pytest.fail("routing receives and sends nothing")

    asyncio.run(routing(scope, unused, unused))
    return scope


def called(routing: Routing, method: str, path: str) -> tuple[str, dict[str, str]]:
    """Return the id of the operation that is called, and its path parameters."""
    scope = routed(routing, method, BASE + path)
    return scope[OPERATION].id, scope["path_params"]


def refusal(routing: Routing, method: str, path: str) -> Problem:
    with pytest.raises(Problem) as caught:
        routed(routing, method, path)
    return caught.value


@pytest.mark.parametrize(
    ("method", "path", "name", "parameters"),
    [
        ("POST", "/payments", "create_payment", {}),
        ("GET", f"/payments/{UNKNOWN_ID}", "get_payment", {"payment_id": UNKNOWN_ID}),
        ("HEAD", f"/payments/{UNKNOWN_ID}", "get_payment", {"payment_id": UNKNOWN_ID}),
        ("DELETE", "/things/7", "delete_thing", {"number": "7"}),
        ("PUT", "/things/7/parts/a b", "put_part", {"number": "7", "part": "a b"}),
        ("GET", "/files/a.b.json", "get_file", {"name": "a.b"}),
        ("GET", "/exact.json/é", "get_exact", {"name": "é"}),
    ],
)
def test_a_path_and_a_method_name_an_operation(
    routing: Routing, method: str, path: str, name: str, parameters: dict[str, str]
) -> None:
    """The operation and the path's parameters go into the scope; HEAD is GET's."""
    assert called(routing, method, path) == (name, parameters)


def test_a_fixed_path_comes_before_a_template(routing: Routing) -> None:
    """OpenAPI: a concrete path is matched before a templated one, whatever their order; for all methods."""
    assert called(routing, "GET", "/things/search") == ("search", {})
    assert called(routing, "GET", "/things/searches") == ("get_thing", {"number": "searches"})
    refused = refusal(routing, "DELETE", f"{BASE}/things/search")
    assert (refused.code, refused.headers) == (Code.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD, POST"})


def test_of_two_templates_the_one_with_fewer_variables_comes_first(routing: Routing) -> None:
    """Whatever their order in the contract."""
    assert called(routing, "GET", "/shops/a/search") == ("search_shop", {"shop": "a"})
    assert called(routing, "GET", "/shops/a/b") == ("get_thing_of_shop", {"shop": "a", "thing": "b"})


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/payments", "GET, HEAD, POST"),
        (f"/payments/{UNKNOWN_ID}", "GET, HEAD"),
        ("/things/7", "DELETE, GET, HEAD"),
        ("/things/7/parts/8", "PUT"),
    ],
)
def test_allow_lists_every_method_of_the_path(routing: Routing, path: str, allow: str) -> None:
    """HEAD with GET; RFC 9110, 10.2.1."""
    for method in ("PATCH", "OPTIONS", "TRACE", "LINK", "get"):
        refused = refusal(routing, method, BASE + path)
        assert (refused.code, refused.headers) == (Code.METHOD_NOT_ALLOWED, {"Allow": allow})


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        BASE,
        f"{BASE}/",
        "/payments",
        f"{BASE}/payments/",
        f"{BASE}//payments",
        f"{BASE}/Payments",
        f"{BASE}/payments\n",
        f"{BASE}/payments\0",
        f"{BASE}/things/",
        f"{BASE}/things/7/",
        f"{BASE}/things/7\n",
        f"{BASE}/things/\r7",
        f"{BASE}/things/7\x7f",
        f"{BASE}/things/7\u2028",
        f"{BASE}/things/7/parts",
        f"{BASE}/things/7/8",
        f"{BASE}/files/ajson",
        f"{BASE}/exactXjson/a",
        f"{BASE}/ui",
        f"{BASE}/ui/\n",
        f"{BASE}/ui/\0index.html",
        "/health/live/",
        "/health/live\n",
        "*",
    ],
)
def test_a_path_that_nothing_has_is_not_found(routing: Routing, path: str) -> None:
    """Exactly: no other slash, case, line end or control character, which a client may have percent-encoded."""
    for method in ("GET", "POST"):
        assert refusal(routing, method, path).code is Code.NOT_FOUND


@pytest.mark.parametrize("path", ["/health/live", f"{BASE}/ui/", f"{BASE}/ui/swagger-ui.css"])
def test_what_is_beside_the_contract_can_only_be_read(routing: Routing, path: str) -> None:
    """GET and HEAD; the problem's own table says so in Allow."""
    for method in ("GET", "HEAD"):
        scope = routed(routing, method, path)
        assert OPERATION not in scope
        assert (scope.get(ENDPOINT) is endpoint) == (path == "/health/live")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "get"):
        refused = refusal(routing, method, path)
        assert (refused.code, refused.headers) == (Code.METHOD_NOT_ALLOWED, {})


def test_a_range_is_ignored_beside_the_contract(routing: Routing) -> None:
    """All other headers stay, in their order."""
    headers = [(b"host", b"x"), (b"range", b"bytes=0-1"), (b"if-range", b"x"), (b"accept", b"*/*")]
    for path in ("/health/live", f"{BASE}/ui/"):
        assert routed(routing, "GET", path, headers=headers)["headers"] == [(b"host", b"x"), (b"accept", b"*/*")]


def test_what_is_no_request_is_passed_on(routing: Routing) -> None:
    """The server's start and stop have no path."""
    assert routed(routing, "GET", "/nowhere", type="lifespan")["type"] == "lifespan"
