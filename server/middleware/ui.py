"""The UI: Swagger UI, with a page, a start script, a style sheet and an icon of the gateway's own."""

from pathlib import Path
from typing import Final

from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

_OURS: Final = Path(__file__).parent.parent / "ui"
# Looked up without an import, which would import Flask.
_SWAGGER_UI: Final = ("flask_swagger_ui", "dist")


class Ui:
    """ASGI middleware that answers every HTTP request with a file. Raises Starlette's `HTTPException` if there is none.

    Connexion's own serves one folder only, so the package's files would have to be copied beside ours.

    path: the path prefix of the UI, which ends in a slash
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path
        self._files = StaticFiles(directory=_OURS, packages=[_SWAGGER_UI])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = f"{self._path}index.html" if scope["path"] == self._path else scope["path"]
        await self._files({**scope, "path": path, "root_path": self._path.rstrip("/")}, receive, send)
