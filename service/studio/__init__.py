"""The studio: the page on which people search, and the description of the interface. Its assets are in `static`.

Hand-written ES modules, CSS and SVG: no build, and nothing comes from elsewhere. All that a page shows it asks the
interface for, with the caller's key, so that the assets themselves are open to all.
"""

from __future__ import annotations

import html
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
_OWN = "'self'"
#: What the pages may load and run: their own files, and pictures that they hold.
POLICY = {
    "default-src": "'none'",
    "script-src": _OWN,
    "style-src": _OWN,
    "img-src": f"{_OWN} data: blob:",
    "font-src": _OWN,
    "connect-src": _OWN,
    "base-uri": _OWN,
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}

router = APIRouter(include_in_schema=False)


def _headers(**changes: str) -> dict[str, str]:
    policy = "; ".join(f"{name} {value}" for name, value in (POLICY | changes).items())
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _page(name: str, request: Request, **changes: str) -> HTMLResponse:
    """A page, its addresses being relative to where a proxy shows the application."""
    root = str(request.scope.get("root_path", "")).rstrip("/")
    text = (STATIC / name).read_text().replace("{{root}}", html.escape(root, quote=True))
    return HTMLResponse(text, headers=_headers(**changes))


@router.get("/")
async def studio(request: Request) -> Response:
    """The studio."""
    return _page("index.html", request)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The description of the interface, to read and to try; Swagger UI sets styles of elements in its markup."""
    return _page("docs.html", request, **{"style-src": f"{_OWN} 'unsafe-inline'"})


@router.get("/favicon.ico")
async def favicon(request: Request) -> Response:
    """Where browsers look for an icon by themselves."""
    root = str(request.scope.get("root_path", "")).rstrip("/")
    return RedirectResponse(f"{root}/studio/icon.svg")


class _Assets(StaticFiles):
    """Files that browsers ask after before they use them again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_headers())
        return response


def install(app: FastAPI) -> None:
    """Show the studio at `/` of a gateway, and its description at `/docs`."""
    app.include_router(router)
    app.mount("/studio", _Assets(directory=STATIC), name="studio")
