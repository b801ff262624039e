"""The web console: its page at `/` for browsers, its files below `/console/`, from memory.

The files are package data in the folder `console` beside this module; `console/` at the top of the repository is their
source.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from watchout.gateway.http.conditional import not_modified
from watchout.gateway.http.negotiation import accepts_gzip, prefers_html
from watchout.gateway.http.responses import HttpError

FOLDER: Final = Path(__file__).with_name("console")
PAGE: Final = "index.html"
#: Most bytes of all files together; a folder with more is not the console.
MAX_BYTES: Final = 2 << 20

#: The types of the files; files of other types are not served.
CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
#: A name that holds the hash of its content: what it stands for never changes.
_HASHED: Final = re.compile(r".*-[A-Z0-9]{8}\.[a-z]+\Z")
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"

#: The page loads its own files and nothing else; pictures come from memory (`blob:`, `data:`) or from the gateway.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Headers of the page. `same-origin`: the gateway judges cookies of pictures by their `Referer` where a browser sends
#: no better header, and no other site ever gets an address of the console.
PAGE_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Permissions-Policy": "camera=(self), fullscreen=(self), microphone=(), geolocation=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
}
#: Headers of every file.
FILE_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}


@dataclass(frozen=True, slots=True)
class ConsoleFile:
    """One file of the console in memory, made by `of`.

    Attributes:
        plain: Its bytes.
        packed: The same bytes in gzip; None when that is not shorter.
        tag: Entity tag of the plain bytes.
        headers: The headers of each response with it.
    """

    plain: bytes
    packed: bytes | None
    tag: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, name: str, content: bytes) -> ConsoleFile:
        """Compress and label one file."""
        packed = gzip.compress(content, 9, mtime=0)
        headers = {
            "Content-Type": CONTENT_TYPES[Path(name).suffix],
            "Cache-Control": _FOR_EVER if _HASHED.match(name) else _ASK_AGAIN,
            "Vary": "Accept, Accept-Encoding" if name == PAGE else "Accept-Encoding",
            **FILE_HEADERS,
            **(PAGE_HEADERS if name == PAGE else {}),
        }
        digest = hashlib.sha256(content).hexdigest()[:32]
        return cls(content, packed if len(packed) < len(content) else None, f'"{digest}"', headers)

    def response(self, request: web.Request) -> web.Response:
        """Return the file in the form that the client accepts, or 304 when the client has that form."""
        body, headers = self.plain, {**self.headers, "ETag": self.tag}
        if self.packed is not None and accepts_gzip(request.headers.getall("Accept-Encoding", ())):
            body = self.packed
            headers |= {"Content-Encoding": "gzip", "ETag": f'{self.tag[:-1]}-gzip"'}
        if not_modified(request.headers.getall("If-None-Match", ()), headers["ETag"]):
            kept = ("ETag", "Cache-Control", "Vary")
            return web.Response(status=304, headers={name: headers[name] for name in kept})
        return web.Response(body=body, headers=headers)


def load_files(folder: Path) -> dict[str, ConsoleFile]:
    """Return the files of a console by name; empty when the folder holds no page.

    Raises `ValueError` when they are more than `MAX_BYTES`.
    """
    if not (folder / PAGE).is_file():
        return {}
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in CONTENT_TYPES}
    size = sum(map(len, contents.values()))
    if size > MAX_BYTES:
        raise ValueError(f"the console in {folder} has {size} bytes, expected at most {MAX_BYTES}")
    return {name: ConsoleFile.of(name, content) for name, content in contents.items()}


@functools.cache
def installed_files() -> Mapping[str, ConsoleFile]:
    """Return the files that this installation brings; read once."""
    return load_files(FOLDER)


class ConsolePages:
    """Handlers of `GET /` and `/console/{name}`. Made by `make_app`. `asset` raises `HttpError` 404.

    Args:
        files: The files of the console, from `installed_files`; empty: there is no console.
        help_text: What `/` says to programs, and to everybody when there is no console.
    """

    def __init__(self, files: Mapping[str, ConsoleFile], help_text: str) -> None:
        self._files = files
        self._help = help_text

    async def front(self, request: web.Request) -> web.Response:
        """Return the console's page to a browser, and the list of paths to everybody else."""
        page = self._files.get(PAGE)
        if page is not None and prefers_html(request.headers.getall("Accept", ())):
            return page.response(request)
        headers = {"Vary": "Accept"} if page is not None else {}
        return web.Response(text=self._help, headers={**headers, "X-Content-Type-Options": "nosniff"})

    async def asset(self, request: web.Request) -> web.Response:
        """Return one file of the console."""
        name = request.match_info["name"]
        found = self._files.get(name) if name != PAGE else None
        if found is None:
            text = "there is no such file of the console; after an update of watchout, load the page again"
            raise HttpError(404, "NOT_FOUND", text)
        return found.response(request)
