"""The API catalog (RFC 9727)."""

from urllib.parse import urljoin

import requests

from tests.support import Gateway


def test_the_catalog_leads_to_the_contract_the_ui_and_health(gateway: Gateway) -> None:
    """Each link answers with the media type that the catalog gives for it, and HEAD answers as RFC 9727 says."""
    url = f"{gateway.root}/.well-known/api-catalog"
    catalog = requests.get(url, timeout=10)
    assert catalog.headers["Content-Type"] == (
        'application/linkset+json; profile="https://www.rfc-editor.org/info/rfc9727"'
    )
    [api] = catalog.json()["linkset"]
    assert urljoin(url, api.pop("anchor")) == gateway.api
    assert set(api) == {"service-desc", "service-doc", "status"}
    for link in (link for links in api.values() for link in links):
        linked = requests.get(urljoin(url, link["href"]), timeout=10)
        assert linked.status_code == 200
        assert linked.headers["Content-Type"].partition(";")[0] == link["type"]
    head = requests.head(url, timeout=10)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Link"] == '</.well-known/api-catalog>; rel="api-catalog"'
