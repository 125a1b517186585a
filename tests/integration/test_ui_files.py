"""The files of the UI: those of Swagger UI and the gateway's own."""

from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests

from tests.support import ROOT, Gateway

OURS = ROOT / "server" / "ui"
SPEC = find_spec("flask_swagger_ui")
assert SPEC is not None
assert SPEC.origin is not None
SWAGGER_UI = Path(SPEC.origin).parent / "dist"

# What the page needs; browsers refuse a script or a style sheet of another type, because of nosniff.
TYPES = {
    ".css": {"text/css; charset=utf-8"},
    ".html": {"text/html; charset=utf-8"},
    ".js": {"text/javascript; charset=utf-8", "application/javascript"},  # the second until Python 3.11
    ".svg": {"image/svg+xml"},
}


class Page(HTMLParser):
    """What an HTML page refers to, and what its elements contain or say of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.files: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if file := given.get("src") or given.get("href"):
            self.files.append(file)
        elif tag in {"script", "style"}:
            self.inline.append(tag)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]


@pytest.mark.parametrize(
    "file", [*OURS.iterdir(), *SWAGGER_UI.iterdir()], ids=lambda file: f"{file.parent.name}/{file.name}"
)
def test_every_file_of_the_ui_is_served_as_it_is(gateway: Gateway, file: Path) -> None:
    """GET sends its bytes, HEAD the same headers, and a browser that has it already gets a 304."""
    url = f"{gateway.api}/ui/{file.name}"
    got, head = requests.get(url, timeout=10), requests.head(url, timeout=10)
    assert (got.status_code, got.content) == (200, file.read_bytes())
    assert got.headers["Content-Type"] in TYPES.get(file.suffix, {got.headers["Content-Type"]})
    assert got.headers["Cache-Control"] == "no-cache", "it may be kept, and is asked for each time"
    assert (head.status_code, head.content) == (200, b"")
    assert all(head.headers[name] == got.headers[name] for name in got.headers.keys() - {"date", "x-request-id"})
    cached = requests.get(url, headers={"If-None-Match": got.headers["ETag"]}, timeout=10)
    assert (cached.status_code, cached.content) == (304, b"")
    assert cached.headers["Content-Security-Policy"] == got.headers["Content-Security-Policy"]


def test_the_page_has_two_addresses(gateway: Gateway) -> None:
    """The UI's folder is the page, and everything in the page is relative to it."""
    page, by_name = (requests.get(f"{gateway.api}/ui/{name}", timeout=10) for name in ("", "index.html"))
    assert page.content == by_name.content == (OURS / "index.html").read_bytes()
    assert page.headers["Content-Type"] in TYPES[".html"]


def test_the_page_consists_of_files_beside_it() -> None:
    """Nothing is inline, nothing is of another origin, and the policy needs no exception."""
    page = Page((OURS / "index.html").read_text())
    assert page.inline == []
    assert sorted(page.files) == [
        "../openapi.yaml", "icon.svg", "start.js", "style.css", "swagger-ui-bundle.js", "swagger-ui.css",
    ]  # fmt: skip


def test_the_policy_of_the_ui_allows_files_of_its_origin_only(gateway: Gateway) -> None:
    """No inline script or style runs, and no other origin is asked. Swagger UI's style sheet contains its images."""
    policy = requests.get(f"{gateway.api}/ui/", timeout=10).headers["Content-Security-Policy"]
    allowed = {name: set(sources) for name, *sources in map(str.split, policy.split(";"))}
    assert allowed.pop("img-src") == {"'self'", "data:"}
    for name in ("connect-src", "script-src", "style-src"):
        assert allowed.pop(name) == {"'self'"}
    assert allowed.keys() == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert set.union(*allowed.values()) == {"'none'"}
