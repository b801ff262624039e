"""The console's files over HTTP: who gets the page, caching, compression, the headers that guard it, and its bounds."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from watchout.gateway.http import console_pages
from watchout.gateway.http.console_pages import CONTENT_TYPES, ConsolePages, installed_files, load_files
from watchout.gateway.http.middleware import convert_errors

BROWSER: Final = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Encoding": "identity"}
SCRIPT: Final = "/console/main-ABCD2345.js"
SOURCE: Final = b"console.log('x');" * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {
        "index.html": b"<!doctype html><title>watchout</title>" * 10, "main-ABCD2345.js": SOURCE,
        "licences.txt": b"MIT " * 100, "icon-ABCD2345.svg": b"<svg/>", "notes.md": b"not served", "main.js.map": b"{}",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[TestClient]:
    async for made in served(ConsolePages(load_files(folder), "help")):
        yield made


async def served(pages: ConsolePages) -> AsyncIterator[TestClient]:
    app = web.Application(middlewares=[convert_errors])
    app.router.add_get("/", pages.front)
    app.router.add_get("/console/{name}", pages.asset)
    async with TestClient(TestServer(app), auto_decompress=False) as made:
        yield made


async def test_a_browser_gets_the_page_and_a_program_the_help(client: TestClient) -> None:
    page = await client.get("/", headers=BROWSER)
    assert page.content_type == "text/html"
    assert b"<title>" in await page.read()
    for accept in ("*/*", "text/plain", "application/json"):
        text = await client.get("/", headers={"Accept": accept})
        assert (text.status, text.content_type, await text.text()) == (200, "text/plain", "help")
        assert text.headers["Vary"] == "Accept"
        assert "Content-Security-Policy" not in text.headers


async def test_the_page_permits_its_own_files_only(client: TestClient) -> None:
    headers = (await client.get("/", headers=BROWSER)).headers
    policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'",
        "worker-src": "'self'", "img-src": "'self' data: blob:", "base-uri": "'none'", "form-action": "'none'",
        "frame-ancestors": "'none'",
    }  # fmt: skip
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "camera=(self)" in headers["Permissions-Policy"]


async def test_the_page_is_asked_for_again_and_a_file_with_a_hash_is_kept(client: TestClient) -> None:
    page, script = await client.get("/", headers=BROWSER), await client.get(SCRIPT, headers=BROWSER)
    licences = await client.get("/console/licences.txt", headers=BROWSER)
    assert page.headers["Cache-Control"] == licences.headers["Cache-Control"] == "no-cache"
    assert page.headers["Vary"] == "Accept, Accept-Encoding"
    assert script.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert script.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", SCRIPT])
async def test_what_the_client_has_is_not_sent_again(client: TestClient, path: str) -> None:
    tags = set()
    for encoding in ("identity", "gzip"):
        headers = {**BROWSER, "Accept-Encoding": encoding}
        first = await client.get(path, headers=headers)
        tags.add(first.headers["ETag"])
        again = await client.get(path, headers={**headers, "If-None-Match": f'"x", W/{first.headers["ETag"]}'})
        assert (again.status, await again.read()) == (304, b"")
        assert {again.headers[name] for name in ("ETag", "Vary")} == {first.headers[name] for name in ("ETag", "Vary")}
        other = await client.get(path, headers={**headers, "If-None-Match": '"x"'})
        assert other.status == 200
    assert len(tags) == 2, "the compressed form is another one"


async def test_gzip_holds_the_same_bytes(client: TestClient) -> None:
    plain = await client.get(SCRIPT, headers={"Accept-Encoding": "identity"})
    packed = await client.get(SCRIPT, headers={"Accept-Encoding": "br, gzip"})
    assert "Content-Encoding" not in plain.headers
    assert (packed.headers["Content-Encoding"], packed.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert await plain.read() == gzip.decompress(await packed.read()) == SOURCE


async def test_what_gzip_makes_longer_is_sent_as_it_is(client: TestClient) -> None:
    icon = await client.get("/console/icon-ABCD2345.svg", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in icon.headers
    assert await icon.read() == b"<svg/>"


@pytest.mark.parametrize("path", ["/", SCRIPT])
async def test_head_has_the_headers_of_get(client: TestClient, path: str) -> None:
    get, head = await client.get(path, headers=BROWSER), await client.head(path, headers=BROWSER)
    assert await head.read() == b""
    assert {**get.headers, "Date": ""} == {**head.headers, "Date": ""}


@pytest.mark.parametrize("path", ["/", SCRIPT])
async def test_other_methods_are_refused(client: TestClient, path: str) -> None:
    for method in ("POST", "PUT", "DELETE"):
        refused = await client.request(method, path, headers=BROWSER)
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "name", ["index.html", "notes.md", "main.js.map", "main-OLD.js", "..%2f__init__.py", "main-ABCD2345.js/"]
)
async def test_what_is_no_file_of_the_console_is_not_there(client: TestClient, name: str) -> None:
    for headers in ({}, BROWSER):
        assert (await client.get(f"/console/{name}", headers=headers)).status == 404


async def test_without_a_console_everybody_gets_the_help(tmp_path: Path) -> None:
    async for client in served(ConsolePages(load_files(tmp_path), "help")):
        text = await client.get("/", headers=BROWSER)
        assert (text.status, await text.text()) == (200, "help")
        assert "Vary" not in text.headers
        assert (await client.get(SCRIPT)).status == 404


def test_a_console_over_its_bound_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_pages, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="expected at most 100"):
        load_files(folder)


def test_the_installed_console_is_whole() -> None:
    """Each file that the page names is there, nothing comes from elsewhere, and the licences are with it."""
    files = installed_files()
    page = files["index.html"].plain.decode()
    named = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert len(named) >= 3
    for name in named:
        assert name.startswith("console/")
        assert name.removeprefix("console/") in files
        assert files[name.removeprefix("console/")].headers["Cache-Control"].startswith("public")
    assert not re.search(r"<script(?![^>]*src)|style=|\son\w+=", page), "the policy forbids inline scripts and styles"
    assert "preact" in files["licences.txt"].plain.decode()
    assert sum(len(each.packed or each.plain) for name, each in files.items() if name != "licences.txt") <= 60_000
    assert {Path(name).suffix for name in files} <= set(CONTENT_TYPES)
