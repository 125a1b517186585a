"""Operations: what functions are called with, how requests are read, and which contracts stop the start."""

import asyncio
import copy
import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from connexion.resolver import Resolution, Resolver
from starlette.responses import Response

import config
from app import create_app
from handlers import supported
from handlers.contract import PATH
from handlers.supported import UnsupportedContract
from tests.support import ROOT

FILE: dict[str, Any] = yaml.safe_load(PATH.read_text())
KEY = "pgw_test_" + "k" * 43
API_KEYS = f"acme:{hashlib.sha256(KEY.encode()).hexdigest()}"

NUMBER = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer", "maximum": 99}}
BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
            }
        }
    },
}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but the test's own."""
    monkeypatch.chdir("/")
    for name in config.SETTINGS:
        monkeypatch.delenv(name, raising=False)


class Functions(Resolver):
    """Resolves every operationId to one function."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def resolve(self, operation: Any) -> Resolution:
        return Resolution(self._function, operation.operation_id)


@dataclass
class Answer:
    """What an application answered."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def errors(self) -> dict[str, str]:
        """The codes of a problem's errors, by field."""
        return {error["field"]: error["code"] for error in json.loads(self.body)["errors"]}


def parameter(name: str, place: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema, **more}


def with_path(path: str, item: dict[str, Any]) -> dict[str, Any]:
    """Return the contract with one more path; each operation in it gets an id and a response."""
    document = copy.deepcopy(FILE)
    for method in item.keys() & {"get", "put", "post", "delete"}:
        item[method] = {"operationId": f"{method}_thing", "responses": {"200": {"description": "OK"}}, **item[method]}
    document["paths"][path] = item
    return document


def application(document: dict[str, Any], function: Any, api_keys: str = "") -> Any:
    settings = config.load({"BANK_URL": "http://127.0.0.1:9", "API_KEYS": api_keys})
    return create_app(settings, document=document, resolver=Functions(function)).app


def ask(
    served: Any,
    method: str,
    path: str,
    *headers: tuple[str, str],
    body: bytes | None = None,
) -> Answer:
    """Send one request, below the API's base path, and return the answer."""
    target, _, query = path.partition("?")
    if body is not None:
        headers += (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": f"/api/v1{target}",
        "raw_path": f"/api/v1{quote(target)}".encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    answer = Answer()

    async def receive() -> Any:
        return {"type": "http.request", "body": body or b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    asyncio.run(served(scope, receive, send))
    return answer


class Called:
    """What a function was called with; it is passed all that it takes, by name."""

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}

    def note(self, **arguments: Any) -> Response:
        self.arguments = arguments
        return Response(status_code=200)


def test_a_function_gets_what_it_takes_by_name() -> None:
    """Parameters by their names in lower case with `_`, defaults, None for what is not sent, body, user and route."""
    called = Called()

    async def function(
        *, number: int, x_shop_id: str, page: int, size: int, word: str, body: Any, user: str, route: str
    ) -> Response:
        return called.note(
            number=number, x_shop_id=x_shop_id, page=page, size=size, word=word, body=body, user=user, route=route
        )

    parameters = [
        NUMBER,
        parameter("X-Shop-Id", "header", {"type": "string"}),
        parameter("page", "query", {"type": "integer", "default": 3}),
        parameter("size", "query", {"type": "integer", "default": 3}),
        parameter("word", "query", {"type": "string"}),
    ]
    document = with_path("/things/{number}/parts", {"post": {"parameters": parameters, "requestBody": BODY}})
    served = application(document, function, API_KEYS)
    key = ("Authorization", f"Bearer {KEY}")
    path = "/things/7/parts?size=9&unknown=1"
    assert ask(served, "POST", path, key, ("x-shop-id", "north"), body=b'{"name": "a"}').status == 200
    assert called.arguments == {
        "number": 7,
        "x_shop_id": "north",
        "page": 3,
        "size": 9,
        "word": None,
        "body": {"name": "a"},
        "user": "acme",
        "route": "/api/v1/things/{number}/parts",
    }


def test_a_function_need_not_take_everything() -> None:
    """Nor does what it does not take go unchecked."""

    async def function() -> Response:
        return Response(status_code=200)

    parameters = [NUMBER, parameter("page", "query", {"type": "integer"}, required=True)]
    served = application(with_path("/things/{number}", {"get": {"parameters": parameters}}), function)
    assert ask(served, "GET", "/things/7?page=1").status == 200
    assert ask(served, "GET", "/things/7").errors == {"page": "required"}
    assert ask(served, "GET", "/things/100?page=1").errors == {"number": "out_of_range"}


def test_all_errors_of_parameters_and_body_are_in_one_problem() -> None:
    """Parameters first, by the names that the contract gives them, then the fields of the body."""

    async def function() -> Response:
        pytest.fail("an invalid request calls no function")

    parameters = [
        NUMBER,
        parameter("X-Shop-Id", "header", {"type": "string"}, required=True),
        parameter("page", "query", {"type": "integer"}),
        parameter("shop", "cookie", {"type": "string", "maxLength": 2}),
    ]
    document = with_path("/things/{number}", {"post": {"parameters": parameters, "requestBody": BODY}})
    served = application(document, function)
    answer = ask(
        served, "POST", "/things/a?page=b", ("Cookie", "shop=north"), body=b'{"size": "large", "colour": "red"}'
    )
    assert answer.status == 400
    assert answer.errors == {
        "number": "wrong_type",
        "X-Shop-Id": "required",
        "page": "wrong_type",
        "shop": "wrong_format",
        "name": "required",
        "size": "wrong_type",
        "colour": "unknown_field",
    }


@functools.cache
def taking(parameter_json: str) -> tuple[Any, Called]:
    """Return an application whose `GET /things` has this one parameter, which the function calls `x`."""
    called = Called()

    async def function(x: Any) -> Response:
        return called.note(x=x)

    item = {"get": {"parameters": [json.loads(parameter_json)]}}
    return application(with_path("/things", item), function), called


def reading(definition: dict[str, Any], query: str = "", *headers: tuple[str, str]) -> Any:
    """Return the value of the parameter `x` that a function gets, or the code of its error."""
    served, called = taking(json.dumps(definition))
    answer = ask(served, "GET", f"/things?{query}", *headers)
    return called.arguments["x"] if answer.status == 200 else f"error: {' '.join(answer.errors.values())}"


def in_query(schema: dict[str, Any], query: str, **more: Any) -> Any:
    return reading(parameter("x", "query", schema, **more), query)


WRONG_TYPE = "error: wrong_type"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        *[("integer", text, value) for text, value in (("7", 7), ("-7", -7), ("0", 0), ("9" * 30, int("9" * 30)))],
        *[("integer", text, WRONG_TYPE) for text in ("", "x", "007", "1.0", "1e3", "%2B7", "1_000", "%207", "7%0A")],
        ("integer", "%D9%A7", WRONG_TYPE),  # an Arabic-Indic 7
        ("integer", "9" * 5000, WRONG_TYPE),
        *[("number", text, value) for text, value in (("1.5", 1.5), ("-2", -2.0), ("1e3", 1000.0), ("2E-1", 0.2))],
        *[("number", text, WRONG_TYPE) for text in ("", "x", ".5", "5.", "1e999", "NaN", "Infinity", "0x1", "1.5%0A")],
        *[("boolean", text, value) for text, value in (("true", True), ("false", False), ("True", True))],
        *[("boolean", text, WRONG_TYPE) for text in ("", "1", "0", "yes", "true%20")],
        *[("string", text, text) for text in ("", "7", "true", "null")],
        ("string", "%C3%A9+%26", "é &"),
    ],
)
def test_the_text_of_a_parameter_becomes_a_value_of_its_type(kind: str, text: str, value: Any) -> None:
    """Numbers are written as in JSON; whatever can't be read breaks the type."""
    got = in_query({"type": kind}, f"x={text}")
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("schema", "more", "query", "value"),
    [
        ("integer", {}, "x=1", [1]),
        ("integer", {}, "x=1&x=2", [1, 2]),
        ("integer", {"explode": False}, "x=1,2,3", [1, 2, 3]),
        ("integer", {"style": "pipeDelimited", "explode": False}, "x=1%7C2", [1, 2]),
        ("integer", {"style": "spaceDelimited", "explode": False}, "x=1%202", [1, 2]),
        ("boolean", {}, "x=true&x=false", [True, False]),
        ("number", {}, "x=1.5&x=2", [1.5, 2.0]),
        ("string", {"explode": False}, "x=a,b", ["a", "b"]),
        ("integer", {}, "x=1&x=b", WRONG_TYPE),
        ("integer", {}, "", None),
    ],
)
def test_an_array_in_the_query_is_split_by_its_style(schema: str, more: dict[str, Any], query: str, value: Any) -> None:
    """As Connexion splits it, with each item read by its own type."""
    assert in_query({"type": "array", "items": {"type": schema}}, query, **more) == value


def test_an_array_in_the_path_is_split_at_commas() -> None:
    """OpenAPI's style `simple`."""
    called = Called()

    async def function(ids: list[int]) -> Response:
        return called.note(ids=ids)

    ids = parameter("ids", "path", {"type": "array", "items": {"type": "integer"}, "maxItems": 2}, required=True)
    served = application(with_path("/things/{ids}", {"get": {"parameters": [ids]}}), function)
    assert ask(served, "GET", "/things/1,2").status == 200
    assert called.arguments == {"ids": [1, 2]}
    assert ask(served, "GET", "/things/1,2,3").status == 400
    assert ask(served, "GET", "/things/1,b").status == 400


def test_null_is_a_value_only_where_the_contract_allows_it() -> None:
    """A parameter that is nullable and not sent has its default all the same."""
    assert in_query({"type": "integer", "nullable": True, "default": 1}, "x=null") is None
    assert in_query({"type": "integer", "nullable": True, "default": 1}, "") == 1
    assert in_query({"type": "integer"}, "x=null") == WRONG_TYPE


def test_defaults_are_not_sent_and_so_not_required() -> None:
    """False and 0 are defaults as good as others; a required parameter has to be sent."""
    assert in_query({"type": "boolean", "default": False}, "") is False
    assert in_query({"type": "integer", "default": 0}, "") == 0
    assert in_query({"type": "integer"}, "", required=True) == "error: required"


def test_of_a_repeated_query_parameter_the_last_value_counts() -> None:
    """As in Connexion; an array has them all."""
    assert in_query({"type": "integer"}, "x=1&x=2") == 2


def test_of_a_repeated_header_that_may_be_any_text_the_first_value_counts() -> None:
    """Proxies may add a second X-Request-ID, which is no reason to refuse a payment."""
    schema = {"type": "string", "description": "Any text."}
    for any_text in (schema, {**schema, "maxLength": 9}):
        assert reading(parameter("X", "header", any_text), "", ("X", "a"), ("X", "b")) == "a"


@pytest.mark.parametrize("schema", [{"type": "string", "minLength": 1}, {"type": "string", "pattern": "^[a-z]*$"}])
def test_a_repeated_header_is_refused(schema: dict[str, Any]) -> None:
    """It is ambiguous, also if both values are the same, and whatever else the contract says of it."""
    assert reading(parameter("X", "header", schema), "", ("X", "a")) == "a"
    assert reading(parameter("X", "header", schema), "", ("x", " a\t")) == "a"
    assert reading(parameter("X", "header", schema), "") is None
    for values in (("a", "b"), ("a", "a"), ("a", ""), ("", "")):
        assert reading(parameter("X", "header", schema), "", *(("X", value) for value in values)).startswith(
            "error: wrong_"
        )


def test_a_cookie_is_one_of_those_in_the_cookie_header() -> None:
    """Its case matters, unlike a header's."""
    schema = {"type": "string", "maxLength": 3}
    assert reading(parameter("X", "cookie", schema), "", ("Cookie", "a=1; X=abc; b=2")) == "abc"
    assert reading(parameter("X", "cookie", schema), "", ("Cookie", "a=1"), ("Cookie", "X=abc")) == "abc"
    assert reading(parameter("X", "cookie", schema), "", ("Cookie", "x=abc")) is None
    assert reading(parameter("X", "cookie", schema), "", ("Cookie", "X=abcd")) == "error: wrong_format"


def test_parameters_of_the_path_item_are_those_of_each_operation() -> None:
    """An operation's own parameter of that name and place replaces it."""

    async def function() -> Response:
        return Response(status_code=200)

    item = {
        "parameters": [parameter("shop", "query", {"type": "string"}, required=True)],
        "get": {},
        "delete": {"parameters": [parameter("shop", "query", {"type": "integer"})]},
    }
    served = application(with_path("/things", item), function)
    assert ask(served, "GET", "/things?shop=a").status == 200
    assert ask(served, "GET", "/things").errors == {"shop": "required"}
    assert ask(served, "DELETE", "/things").status == 200
    assert ask(served, "DELETE", "/things?shop=a").errors == {"shop": "wrong_type"}


MERCHANT_KEY: list[Any] = [{"merchantKey": []}]


@pytest.mark.parametrize(
    ("top", "operations", "open_methods"),
    [
        pytest.param(MERCHANT_KEY, {}, set(), id="at the top"),
        pytest.param([], {"get": MERCHANT_KEY, "put": MERCHANT_KEY}, set(), id="on each operation"),
        pytest.param([], {"get": MERCHANT_KEY}, {"PUT"}, id="on one operation"),
        pytest.param(None, {"get": MERCHANT_KEY}, {"PUT"}, id="on one operation, none at the top"),
        pytest.param(MERCHANT_KEY, {"put": []}, {"PUT"}, id="not on one operation"),
    ],
)
def test_each_operation_needs_a_key_by_its_own_security(
    top: list[Any] | None, operations: dict[str, Any], open_methods: set[str]
) -> None:
    """What an operation says replaces what the contract says at the top."""
    users = []

    async def function(user: str) -> Response:
        users.append(user)
        return Response(status_code=200)

    item = {method: {"security": operations[method]} if method in operations else {} for method in ("get", "put")}
    document = with_path("/things", item)
    document["security"] = top
    if top is None:
        del document["security"]
    served = application(document, function, API_KEYS)
    for method in ("GET", "HEAD", "PUT"):
        users.clear()
        without, wrong = ask(served, method, "/things"), ask(served, method, "/things", ("Authorization", "Bearer x"))
        is_open = method in open_methods
        assert (without.status, wrong.status) == ((200, 200) if is_open else (401, 401))
        assert users == (["default", "default"] if is_open else [])
        assert ask(served, method, "/things", ("Authorization", f"Bearer {KEY}")).status == 200
        assert users[-1] == ("default" if is_open else "acme")


THING = "/paths/~1things~1{number}"
GET = f"{THING}/get"
SCHEMES = "/components/securitySchemes"
PARAMETER = f"{GET}/parameters/0"
TEXT = {"type": "string"}

# What the element is, the contract with it, and its JSON pointer.
Change = Callable[[dict[str, Any]], None]


def operation_with(**keys: Any) -> Change:
    return lambda document: document["paths"]["/things/{number}"]["get"].update(keys)


def item_with(**keys: Any) -> Change:
    return lambda document: document["paths"]["/things/{number}"].update(keys)


def parameter_with(place: str, schema: dict[str, Any] | None = None, **keys: Any) -> Change:
    return operation_with(parameters=[parameter("x", place, schema or TEXT, **keys)])


def body_of(content: dict[str, Any], **keys: Any) -> Change:
    return operation_with(requestBody={"content": content, **keys})


def scheme(**keys: Any) -> Change:
    return lambda document: document["components"]["securitySchemes"].update(merchantKey=keys)


def security(requirements: list[Any]) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["components"]["securitySchemes"]["other"] = {"type": "http", "scheme": "Bearer"}
        document["security"] = requirements

    return change


def two_steps(document: dict[str, Any]) -> None:
    document["components"]["parameters"] |= {
        "One": {"$ref": "#/components/parameters/a~1b~0c"},
        "a/b~c": parameter("x", "query", TEXT, allowReserved=True),
    }
    operation_with(parameters=[{"$ref": "#/components/parameters/One"}])(document)


def referenced_schema(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["Thing"] = {"type": "object"}
    parameter_with("query", {"$ref": "#/components/schemas/Thing"})(document)


JSON = "application/json"
ARRAY = {"type": "array", "items": TEXT}

UNSUPPORTED: dict[str, tuple[Change, str]] = {
    "deprecated": (operation_with(deprecated=True), f"{GET}/deprecated"),
    "callbacks": (operation_with(callbacks={}), f"{GET}/callbacks"),
    "servers of an operation": (operation_with(servers=[]), f"{GET}/servers"),
    "servers of a path": (item_with(servers=[]), f"{THING}/servers"),
    "a referenced path": (item_with(**{"$ref": "#/paths/~1payments"}), f"{THING}/$ref"),
    "a method that OpenAPI does not know": (item_with(link={}), f"{THING}/link"),
    "content of a parameter": (
        operation_with(parameters=[{"name": "x", "in": "query", "content": {JSON: {"schema": TEXT}}}]),
        f"{PARAMETER}/content",
    ),
    "allowReserved": (parameter_with("query", allowReserved=True), f"{PARAMETER}/allowReserved"),
    "allowEmptyValue": (parameter_with("query", allowEmptyValue=True), f"{PARAMETER}/allowEmptyValue"),
    "a deprecated parameter": (parameter_with("query", deprecated=True), f"{PARAMETER}/deprecated"),
    "deepObject": (parameter_with("query", {"type": "object"}, style="deepObject"), f"{PARAMETER}/style"),
    "label": (parameter_with("path", style="label", required=True), f"{PARAMETER}/style"),
    "matrix": (parameter_with("path", style="matrix", required=True), f"{PARAMETER}/style"),
    "an object in the query": (parameter_with("query", {"type": "object"}), f"{PARAMETER}/schema/type"),
    "a referenced object in the query": (referenced_schema, "/components/schemas/Thing/type"),
    "no type": (parameter_with("query", {"minimum": 1}), f"{PARAMETER}/schema/type"),
    "an array of objects": (
        parameter_with("query", {"type": "array", "items": {"type": "object"}}),
        f"{PARAMETER}/schema/items/type",
    ),
    "an array of arrays": (
        parameter_with("query", {"type": "array", "items": ARRAY}),
        f"{PARAMETER}/schema/items/type",
    ),
    "an array of anything": (parameter_with("query", {"type": "array"}), f"{PARAMETER}/schema/items/type"),
    "a path in a path": (
        parameter_with("path", {**TEXT, "format": "path"}, required=True),
        f"{PARAMETER}/schema/format",
    ),
    "an integer in a header": (parameter_with("header", {"type": "integer"}), f"{PARAMETER}/schema/type"),
    "an array in a header": (parameter_with("header", ARRAY), f"{PARAMETER}/schema/type"),
    "an integer in a cookie": (parameter_with("cookie", {"type": "integer"}), f"{PARAMETER}/schema/type"),
    "an array in a cookie": (parameter_with("cookie", ARRAY), f"{PARAMETER}/schema/type"),
    "a parameter of the path item": (
        item_with(parameters=[parameter("x", "header", {"type": "number"})]),
        f"{THING}/parameters/0/schema/type",
    ),
    "the second parameter": (
        operation_with(parameters=[parameter("x", "query", TEXT), parameter("y", "header", {"type": "number"})]),
        f"{GET}/parameters/1/schema/type",
    ),
    "a referenced parameter": (two_steps, "/components/parameters/a~1b~0c/allowReserved"),
    "two names for one argument": (
        operation_with(parameters=[parameter("x-id", "query", TEXT), parameter("X_Id", "query", TEXT)]),
        f"{GET}/parameters/1/name",
    ),
    "one name in two places": (
        operation_with(parameters=[NUMBER, parameter("Number", "header", TEXT)]),
        f"{GET}/parameters/1/name",
    ),
    "one name in the path item and in another place": (
        item_with(parameters=[parameter("number", "cookie", TEXT)]),
        f"{GET}/parameters/0/name",
    ),
    **{
        f"a parameter called {name}": (operation_with(parameters=[parameter(name, "query", TEXT)]), f"{PARAMETER}/name")
        for name in ("body", "User", "route")
    },
    "a second media type": (
        body_of({JSON: {"schema": TEXT}, "application/xml": {"schema": TEXT}}),
        f"{GET}/requestBody/content/application~1xml",
    ),
    "another media type": (body_of({"text/plain": {"schema": TEXT}}), f"{GET}/requestBody/content/text~1plain"),
    "a form": (
        body_of({"application/x-www-form-urlencoded": {"schema": TEXT}}),
        f"{GET}/requestBody/content/application~1x-www-form-urlencoded",
    ),
    "files": (
        body_of({"multipart/form-data": {"schema": TEXT}}),
        f"{GET}/requestBody/content/multipart~1form-data",
    ),
    "an encoding": (
        body_of({JSON: {"schema": TEXT, "encoding": {}}}),
        f"{GET}/requestBody/content/application~1json/encoding",
    ),
    "an unknown key of a body": (body_of({}, strict=True), f"{GET}/requestBody/strict"),
    "an API key in a header": (scheme(type="apiKey", name="X-Key", **{"in": "header"}), f"{SCHEMES}/merchantKey"),
    "OAuth 2": (scheme(type="oauth2", flows={}), f"{SCHEMES}/merchantKey"),
    "OpenID Connect": (scheme(type="openIdConnect", openIdConnectUrl="https://x"), f"{SCHEMES}/merchantKey"),
    "basic authentication": (scheme(type="http", scheme="basic"), f"{SCHEMES}/merchantKey"),
    "an optional key": (security([{"merchantKey": []}, {}]), "/security/1"),
    "two keys at once": (security([{"merchantKey": [], "other": []}]), "/security/0"),
    "an optional key of an operation": (operation_with(security=[{}]), f"{GET}/security/0"),
}


def with_thing() -> dict[str, Any]:
    return with_path("/things/{number}", {"get": {"parameters": [NUMBER]}})


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_element_that_is_not_enforced_stops_the_start(name: str) -> None:
    """One line with the element's JSON pointer (RFC 6901)."""
    change, pointer = UNSUPPORTED[name]
    document = with_thing()
    supported.check(document)
    change(document)
    with pytest.raises(UnsupportedContract) as caught:
        application(document, None)
    assert str(caught.value) == f"the contract has an element that the gateway does not enforce: {pointer}"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _document: None, id="none"),
        pytest.param(operation_with(deprecated=False), id="deprecated: false"),
        pytest.param(operation_with(**{"x-note": {"a": 1}}), id="an extension"),
        pytest.param(parameter_with("query", allowReserved=False), id="allowReserved: false"),
        pytest.param(operation_with(externalDocs={"url": "https://x"}, tags=["a"]), id="documentation"),
        pytest.param(security([{"merchantKey": []}, {"other": []}]), id="one key or another"),
        pytest.param(scheme(type="http", scheme="Bearer"), id="a scheme in capitals"),
        pytest.param(operation_with(security=[]), id="no key"),
    ],
)
def test_elements_that_change_nothing_do_not_stop_the_start(change: Change) -> None:
    """Documentation, extensions, and what is only said to be off."""
    document = with_thing()
    change(document)
    supported.check(document)


STARTING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
import app
import run
from handlers import contract
contract.PATH = Path(sys.argv.pop(1))
run.main()
"""


def test_the_start_is_refused_in_one_line(tmp_path: Any) -> None:
    """On standard error, with exit status 1 and nothing on standard output."""
    document = with_thing()
    operation_with(deprecated=True)(document)
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(document))
    command = [sys.executable, "-c", STARTING, str(ROOT), str(tmp_path / "contract.yaml")]
    ended = subprocess.run(
        command, env={"PORT": "0"}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    line = f"the contract has an element that the gateway does not enforce: {GET}/deprecated\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", line)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda post: post["requestBody"].update({"x-max-bytes": "many"}), "many"),
        (lambda post: post["parameters"].append(parameter_of("X", "header", pattern="^[0-9")), "[0-9"),
        (lambda post: post.update({"operationId": "unknown_operation"}), "unknown_operation"),
    ],
)
def test_an_operation_that_can_not_be_served_stops_the_start_and_says_why(
    change: Callable[[Any], None], reason: str, tmp_path: Any
) -> None:
    """The log names the operation and the reason; no request meets it first."""
    document = copy.deepcopy(FILE)
    change(document["paths"]["/payments"]["post"])
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(document))
    command = [sys.executable, "-c", STARTING, str(ROOT), str(tmp_path / "contract.yaml")]
    ended = subprocess.run(
        command, env={"PORT": "0"}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert "the contract's operation POST /payments can't be served: " in ended.stderr
    assert reason in ended.stderr


def parameter_of(name: str, place: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "description": name, "schema": {"type": "string", **schema}}
