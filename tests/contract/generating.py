"""Requests for the differential test: valid ones, and ones with random changes like the errors that clients make."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import connexion.spec
from connexion.http_facts import METHODS
from connexion.json_schema import Draft4RequestValidator

from tests.support import valid_payment

UUID = "3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c"
STRINGS = {
    "uuid": UUID,
    "date": "2026-11-24",
    "date-time": "2026-11-24T10:15:30Z",
    "email": "a@example.com",
    "ipv4": "192.0.2.1",
}

# JSON values that are wrong for some field, and right for another.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 12, 13, 99, 100, 150, 200, 201, 2030, 10**12, 10**400, 0.5, 1.0, 1.5, -0.1),
    *("", "a", "b", "ab", "abc", "123", "1234", "12345", "x" * 600, "GBP", "EUR", "eur", "gift", "null", "true"),
    *("2222405343248877", "4" * 14, "4" * 20, "123\n", "2222405343248877\n", "٤" * 16, "\uff11\uff12\uff13", "12a"),
    *(*STRINGS.values(), UUID.upper(), "2026-13-01", "2026-11-24T25:00:00Z", "a@", "192.0.2.256", UUID + "0"),
    *([], {}, [1], ["a", "b", "c"], ["a", ""], {"city": "Rome"}, {"city": 1}, {"zip": 1}, [{"sku": "a"}], [{}]),
    *({"a": "b"}, {"a": 1}, {"a": "b", "c": "d"}, {"city": "Rome", "x": 1}),
)

# Numbers to Python's int() and float(), and not to JSON.
LOOSE_NUMBERS = ("01", "+1", ".5", "5.", "nan", "inf", "1e999", "1_000", " 5", "5 ", "\uff11", "\u0663")

# Texts for parameters.
TEXTS = (
    *(
        "",
        "1",
        "2",
        "3",
        "9",
        "10",
        "0",
        "-1",
        "01",
        "+1",
        "1.0",
        "1.5",
        "-0.5",
        "1e3",
        ".5",
        "5.",
        "nan",
        "inf",
        "1e999",
    ),
    *("a", "ab", "abc", "abcdefghi", "ABC", "web", "shop", "true", "TRUE", "False", "yes", "null", "None"),
    *(
        "1,2",
        "1,,2",
        "1,1",
        "1,2,3,4",
        "a,b",
        "a,c",
        "1|2",
        "1 2",
        "true false",
        "1_000",
        " 5",
        "5 ",
        "\uff11",
        "٣",
        "9" * 5000,
    ),
    *(UUID, UUID.upper(), UUID[:-1], UUID + "\n", "x y", "é", "~"),
)

# Those that may be in a header.
SAFE_TEXTS = [text for text in TEXTS if text.isascii() and text.isprintable() and text == text.strip()]

MALFORMED = (b"{", b"{} {}", b"'a'", b"[1,]", b"\xff\xfe", b"01", b'{"a": "\t"}', b"nul", b'{"a" 1}')

CONTENT_TYPES = (
    *("application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"),
    *("text/plain", "application/xml", "application/x-www-form-urlencoded", "application/problem+json", "json", ""),
)


@dataclass(frozen=True)
class Request:
    """One HTTP request. `changes` names the changes that were made to a valid request."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    changes: tuple[str, ...]

    def scope(self) -> dict[str, Any]:
        """Return the ASGI scope of the request."""
        length = [("content-length", str(len(self.body)))] if self.body else []
        return {
            "type": "http",
            "http_version": "1.1",
            "method": self.method,
            "path": unquote(self.path),
            "raw_path": self.path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": self.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in (*self.headers, *length)],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "extensions": {},
        }


@dataclass
class Draft:
    """A request that is being generated."""

    method: str
    template: str
    path: dict[str, str] = field(default_factory=dict)
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    cookies: dict[str, str] = field(default_factory=dict)
    body: Any = None
    raw: bytes | None = None
    suffix: str = ""
    changes: list[str] = field(default_factory=list)

    def finished(self) -> Request:
        path = self.template
        for name, text in self.path.items():
            path = path.replace(f"{{{name}}}", quote(text, safe=","))
        headers = [*self.headers]
        if self.cookies:
            headers.append(("Cookie", "; ".join(f"{name}={text}" for name, text in self.cookies.items())))
        body = self.raw if self.raw is not None else b"" if self.body is None else json.dumps(self.body).encode()
        return Request(
            self.method,
            path + self.suffix,
            "&".join(f"{quote(name)}={quote(text)}" for name, text in self.query),
            tuple(headers),
            body,
            tuple(self.changes),
        )


def generated(document: dict[str, Any], base: str, key: str, number: int, rng: random.Random) -> Iterator[Request]:
    """Yield requests for the document's operations: one in four is valid, the others have one or two changes."""
    resolved = connexion.spec.Specification.from_dict(copy.deepcopy(document))
    operations = [
        (base + path, method.upper(), item[method], [*item[method].get("parameters", []), *item.get("parameters", [])])
        for path, item in resolved["paths"].items()
        for method in sorted(METHODS & item.keys())
    ]
    for _ in range(number):
        template, method, operation, parameters = rng.choice(operations)
        draft = Draft(method, template, headers=[("Authorization", f"Bearer {key}")])
        _fill(draft, operation, parameters, rng)
        for _ in range(rng.choice([0, 1, 1, 2])):
            name, change = rng.choice(_changes(operation, parameters))
            change(draft, rng)
            draft.changes.append(name)
        yield draft.finished()


def _fill(draft: Draft, operation: Any, parameters: list[Any], rng: random.Random) -> None:
    """Make a valid request."""
    for parameter in parameters:
        if parameter.get("required") or rng.random() < 0.5:
            _set(draft, parameter, _text(parameter, _value(parameter["name"], parameter["schema"], rng)))
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        draft.body = _value("", schema, rng)
        draft.headers.append(("Content-Type", "application/json"))


def _value(name: str, schema: dict[str, Any], rng: random.Random) -> Any:
    """Return a valid value."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    valid = Draft4RequestValidator(schema).is_valid
    candidates = [valid_payment().get(name), schema.get("example"), STRINGS.get(schema.get("format", ""))]
    for candidate in candidates:
        if candidate is not None and not isinstance(candidate, dict) and valid(candidate):
            return candidate
    if schema.get("type") == "object" and "properties" in schema:
        names = [name for name in schema["properties"] if name in schema.get("required", []) or rng.random() < 0.4]
        return {name: _value(name, schema["properties"][name], rng) for name in names}
    if schema.get("type") == "array":
        size = rng.randint(schema.get("minItems", 0), schema.get("maxItems", 2))
        return [_value(str(number), schema["items"], rng) for number in range(size)]
    return rng.choice([value for value in VALUES if value is not None and value != 10**400 and valid(value)])


def _text(parameter: dict[str, Any], value: Any) -> list[str]:
    """Return the texts that a parameter's value is sent as, one for each repetition."""

    def plain(part: Any) -> str:
        return {True: "true", False: "false"}.get(part, str(part)) if isinstance(part, bool) else str(part)

    if not isinstance(value, list):
        return [plain(value)]
    style, explode = parameter.get("style", "form"), parameter.get("explode", parameter.get("style", "form") == "form")
    if parameter["in"] == "query" and explode:
        return [plain(part) for part in value]
    return [{"spaceDelimited": " ", "pipeDelimited": "|"}.get(style, ",").join(plain(part) for part in value)]


def _set(draft: Draft, parameter: dict[str, Any], texts: list[str]) -> None:
    name = parameter["name"]
    match parameter["in"]:
        case "path":
            draft.path[name] = texts[0]
        case "query":
            draft.query = [pair for pair in draft.query if pair[0] != name] + [(name, text) for text in texts]
        case "cookie":
            draft.cookies[name] = texts[0]
        case _:
            draft.headers = [pair for pair in draft.headers if pair[0] != name] + [(name, text) for text in texts]


Change = tuple[str, Callable[[Draft, random.Random], None]]


def _changes(operation: Any, parameters: list[Any]) -> list[Change]:
    changes: list[Change] = [*_ANYWHERE]
    for parameter in parameters:
        changes += _parameter_changes(parameter)
    if "requestBody" in operation:
        changes += [*_BODY, *_BODY]
    return changes


def _parameter_changes(parameter: dict[str, Any]) -> list[Change]:
    name, place = parameter["name"], parameter["in"]

    def other_text(draft: Draft, rng: random.Random) -> None:
        texts = {"query": TEXTS, "path": [text for text in TEXTS if text]}.get(place, SAFE_TEXTS)
        _set(draft, parameter, [rng.choice(texts)])

    def missing(draft: Draft, _: random.Random) -> None:
        draft.query = [pair for pair in draft.query if pair[0] != name]
        draft.headers = [pair for pair in draft.headers if pair[0] != name]
        draft.cookies.pop(name, None)

    def repeated(draft: Draft, rng: random.Random) -> None:
        pairs = draft.query if place == "query" else draft.headers
        same = [pair for pair in pairs if pair[0] == name]
        if same:
            pairs.append(
                (name, rng.choice([same[0][1], *(text for text in TEXTS if text.isascii() and text.isprintable())]))
            )

    changes: list[Change] = [(f"other text in {place}", other_text), (f"other text in {place}", other_text)]
    if place != "path":
        changes.append((f"missing in {place}", missing))
    if place in {"query", "header"}:
        changes.append((f"repeated in {place}", repeated))
    return changes


def _set_header(draft: Draft, name: str, value: str | None) -> None:
    draft.headers = [pair for pair in draft.headers if pair[0] != name] + ([(name, value)] if value is not None else [])


def _other_method(draft: Draft, rng: random.Random) -> None:
    draft.method = rng.choice(["GET", "PUT", "PATCH", "DELETE", "HEAD", "POST"])


def _other_path(draft: Draft, rng: random.Random) -> None:
    draft.suffix = rng.choice(["/", "/x", "%0A", "%00", "//", "/.."])


def _unknown_parameter(draft: Draft, _: random.Random) -> None:
    draft.query.append(("surprise", "1"))


def _no_key(draft: Draft, _: random.Random) -> None:
    _set_header(draft, "Authorization", None)


def _wrong_key(draft: Draft, rng: random.Random) -> None:
    _set_header(
        draft, "Authorization", rng.choice(["Bearer wrong", "Bearer", "Basic YTpi", "", "Bearer  wrong", "Token x"])
    )


def _key_in_other_case(draft: Draft, _: random.Random) -> None:
    draft.headers = [(name, value.replace("Bearer", "bEARER")) for name, value in draft.headers]


_ANYWHERE: list[Change] = [
    ("other method", _other_method),
    ("other path", _other_path),
    ("unknown parameter", _unknown_parameter),
    ("no key", _no_key),
    ("wrong key", _wrong_key),
    ("key in other case", _key_in_other_case),
]


def _fields(draft: Draft) -> list[tuple[Any, Any]]:
    """Return the positions in the body where a value can be replaced, as pairs of container and key."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    if isinstance(draft.body, (dict, list)):
        walk(draft.body)
    return places


def _other_value(draft: Draft, rng: random.Random) -> None:
    if places := _fields(draft):
        container, key = rng.choice(places)
        container[key] = copy.deepcopy(rng.choice(VALUES))


def _newline(draft: Draft, rng: random.Random) -> None:
    if places := [(holder, key) for holder, key in _fields(draft) if isinstance(holder[key], str)]:
        holder, key = rng.choice(places)
        holder[key] += "\n"


def _missing_field(draft: Draft, rng: random.Random) -> None:
    if places := _fields(draft):
        container, key = rng.choice(places)
        del container[key]


def _unknown_field(draft: Draft, rng: random.Random) -> None:
    if isinstance(draft.body, dict):
        draft.body[rng.choice(["surprise", "email", "note", "items", "one", "open", "tags"])] = rng.choice(VALUES)


def _other_body(draft: Draft, rng: random.Random) -> None:
    draft.body = rng.choice(VALUES)


def _malformed(draft: Draft, rng: random.Random) -> None:
    draft.raw = rng.choice(MALFORMED)


def _no_body(draft: Draft, _: random.Random) -> None:
    draft.raw = b""


def _raw(draft: Draft, addition: bytes) -> None:
    """Add JSON text to an object that no Python value represents."""
    text = json.dumps(draft.body).encode()
    draft.raw = text[:-1] + addition + b"}" if text.startswith(b'{"') else text


def _no_content_type(draft: Draft, _: random.Random) -> None:
    _set_header(draft, "Content-Type", None)


def _other_content_type(draft: Draft, rng: random.Random) -> None:
    _set_header(draft, "Content-Type", rng.choice(CONTENT_TYPES))


_BODY: list[Change] = [
    *[("other value", _other_value)] * 4,
    *[("missing field", _missing_field)] * 2,
    ("newline", _newline),
    ("unknown field", _unknown_field),
    ("other body", _other_body),
    ("malformed", _malformed),
    ("no body", _no_body),
    ("repeated field name", lambda draft, _: _raw(draft, b', "amount": 150')),
    ("NaN", lambda draft, _: _raw(draft, b', "amount": NaN')),
    ("unpaired surrogate", lambda draft, _: _raw(draft, b', "cvv": "\\ud800"')),
    ("no content type", _no_content_type),
    ("other content type", _other_content_type),
    ("content encoding", lambda draft, _: _set_header(draft, "Content-Encoding", "gzip")),
    ("other charset", lambda draft, _: _set_header(draft, "Content-Type", "application/json; charset=latin-1")),
]
