"""Serves the page's files, which hold no data, to anyone; everything they ask for needs the key."""

from __future__ import annotations

from importlib.resources import files

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/v1/segment/ui"

MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

HEADERS = {
    # Nothing from elsewhere, nothing inline, no frames; pictures may come from the page itself.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # After an update of the server the old script would meet the new routes.
    "Cache-Control": "no-cache",
}


def read_files() -> dict[str, tuple[bytes, str]]:
    """Path under the server's root to a file's bytes and media type."""
    found: dict[str, tuple[bytes, str]] = {}
    for file in (files(__package__) / "static").iterdir():
        suffix = file.name[file.name.rindex(".") :]
        path = PATH if file.name == "index.html" else f"{PATH}/{file.name}"
        found[path] = (file.read_bytes(), f"{MEDIA_TYPES[suffix]}; charset=utf-8")
    return found


class PageShell:
    """ASGI middleware that answers GET and HEAD of the page's own files and of nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._files = read_files()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        answer = self._answer(scope) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response | None:
        if scope["method"] not in ("GET", "HEAD"):
            return None
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path == f"{PATH}/":
            # The page's own addresses are relative to the path without the slash.
            return RedirectResponse("../ui", status_code=308, headers=HEADERS)
        if path not in self._files:
            return None
        content, media_type = self._files[path]
        return Response(content, headers={**HEADERS, "Content-Type": media_type})
