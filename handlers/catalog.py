"""The API catalog (RFC 9727): where programs find the contract, the UI and the health checks."""

import json
from typing import Final

from starlette.responses import Response

from handlers import health
from handlers.contract import Endpoint

PATH: Final = "/.well-known/api-catalog"

_MEDIA_TYPE: Final = 'application/linkset+json; profile="https://www.rfc-editor.org/info/rfc9727"'


def endpoints(base_path: str) -> dict[str, Endpoint]:
    """Return the endpoint of the catalog by its path.

    The links are relative, because a gateway behind a proxy does not know its public name.
    """
    linkset = {
        "anchor": base_path,
        "service-desc": [
            {"href": f"{base_path}/openapi.json", "type": "application/json"},
            {"href": f"{base_path}/openapi.yaml", "type": "application/yaml"},
        ],
        "service-doc": [{"href": f"{base_path}/ui/", "type": "text/html"}],
        "status": [{"href": health.READY, "type": "application/json"}],
    }
    content = json.dumps({"linkset": [linkset]}).encode()
    headers = {"Content-Type": _MEDIA_TYPE, "Link": f'<{PATH}>; rel="api-catalog"'}

    async def answer() -> Response:
        return Response(content, headers=headers)

    return {PATH: answer}
