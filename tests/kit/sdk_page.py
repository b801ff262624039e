"""Pages that use the built JavaScript client, on an origin of their own and under a strict policy."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.kit.browser import serving

#: The console's own, but that the gateway is another host here.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src http: ws:; worker-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HTML: Final = (
    '<!doctype html><meta charset="utf-8"><title>watchout</title><body><script type="module" src="/page.js"></script>'
)


@contextlib.asynccontextmanager
async def sdk_page(script: Path, folders: Mapping[str, Path]) -> AsyncIterator[str]:
    """The URL of a page with this script; the files of each folder are below its name."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=_HTML, content_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def file(request: web.Request) -> web.Response:
        name, _, rest = request.match_info["path"].partition("/")
        path = script if name == "page.js" else folders.get(name, Path("/nowhere")) / rest
        if not path.is_file():
            raise web.HTTPNotFound
        kind = "text/javascript" if path.suffix == ".js" else "application/octet-stream"
        return web.Response(body=path.read_bytes(), content_type=kind, headers={"Content-Security-Policy": POLICY})

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/{path:.+}", file)
    async with serving(app) as url:
        yield url
