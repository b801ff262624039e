"""Rewrites the head of a WebSocket handshake in the one form that the websockets library reads. Pure.

RFC 9110, 9112 and 6455 allow several forms of the request target and of headers. What they forbid is refused, with the
name of the wrong header. The head must have passed `gateway.listen.head.check_head`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from websockets.exceptions import InvalidHeaderFormat
from websockets.headers import parse_extension

from watchout.gateway.model import SocketPath

#: Longest header line that is passed to the library, in bytes; the library's own limit is 8192.
MAX_LINE_BYTES: Final = 8000

#: Headers that are read later. All others are left out, besides those of the handshake itself.
_KEPT: Final = frozenset(
    {
        "authorization", "cookie", "origin", "sec-websocket-extensions", "x-forwarded-host", "x-forwarded-port",
        "x-forwarded-proto",
    }
)  # fmt: skip
_REQUEST_LINE: Final = re.compile(rb"GET ([\x21-\x7e]+) HTTP/1\.1\r\n")
_ABSOLUTE: Final = re.compile(r"(?:https?|wss?)://(?P<host>[^/?#@\\]+)(?P<rest>[/?].*)?", re.IGNORECASE | re.DOTALL)
_ESCAPE: Final = re.compile(r"%([0-9a-fA-F]{2})")
#: Characters whose escape means the character itself (RFC 3986 section 6.2.2.2).
_UNRESERVED: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KEY_BYTES: Final = 16
_VERSION: Final = "13"


class HandshakeFault(Exception):
    """A WebSocket handshake that is refused; raised by `one_form`, which normalizes the head of the request.

    `WebSocket` sends an HTTP error with `status`, `code` and the text, which quotes nothing of the request, and closes.
    """

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        self.status = status
        super().__init__(message)

    @property
    def code(self) -> str:
        """The code of the error body."""
        return "UPGRADE_REQUIRED" if self.status is HTTPStatus.UPGRADE_REQUIRED else "BAD_REQUEST"


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """The target of a request (RFC 9112 section 3.2), as `read_target` returns it.

    `path` has no escapes that mean the character itself; `query` is "" when there is none; `host` is None unless the
    target is an absolute URL.
    """

    path: str
    query: str
    host: str | None = None


def read_target(target: str) -> RequestTarget | None:
    """Return a request target in origin-form or absolute-form (RFC 9112 section 3.2); None when it is neither."""
    host = None
    if (match := _ABSOLUTE.fullmatch(target)) is not None:
        host, rest = match["host"], match["rest"] or "/"
        target = rest if rest.startswith("/") else f"/{rest}"
    if not target.startswith("/"):
        return None
    path, _, query = target.partition("?")
    return RequestTarget(_ESCAPE.sub(_unescape, path), query, host)


def values_of(head: bytes, name: str) -> list[str]:
    """Return the values of a header in a complete head, one for each line with its name; white space is stripped."""
    found = re.findall(rb"\r\n%b:([^\r\n]*)" % re.escape(name.encode()), head, re.IGNORECASE)
    return [value.decode("latin-1").strip(" \t") for value in found]


def is_upgrade(head: bytes) -> bool:
    """Whether a complete head is a request for a WebSocket on one of the gateway's paths."""
    line = _REQUEST_LINE.match(head)
    if line is None or (target := read_target(line[1].decode("ascii"))) is None or target.path not in set(SocketPath):
        return False
    return names_websocket(values_of(head, "upgrade"))


def names_websocket(upgrade: Sequence[str]) -> bool:
    """Whether the values of `Upgrade` headers, one for each line, contain `websocket`."""
    return any(each.lower() == "websocket" for each in _elements(upgrade))


def one_form(head: bytes, cookies: Sequence[str]) -> bytes:
    """Return a head for which `is_upgrade` is true in the form that the library reads. Raises `HandshakeFault`.

    Only headers that are read later are kept. Of a `Cookie` line that is too long for the library, only the cookies
    named in `cookies` are kept.
    """
    line = _REQUEST_LINE.match(head)
    target = None if line is None else read_target(line[1].decode("ascii"))
    if target is None:
        raise HandshakeFault("the target of a WebSocket request must be a path or an http URL")
    _check_body(head)
    key = _checked_key(head)
    hosts = [target.host] if target.host is not None else values_of(head, "host")
    lines = [
        f"GET {target.path}?{target.query} HTTP/1.1" if target.query else f"GET {target.path} HTTP/1.1",
        *(f"Host: {host}" for host in hosts),
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        f"Sec-WebSocket-Version: {_VERSION}",
    ]
    if offered := _subprotocols(values_of(head, "sec-websocket-protocol")):
        lines.append(f"Sec-WebSocket-Protocol: {offered[0]}")
    for name, value in _fields(head):
        if name not in _KEPT or (name == "sec-websocket-extensions" and not _is_extensions(value)):
            continue
        kept = _only(value, cookies) if name == "cookie" and len(value) > MAX_LINE_BYTES else value
        lines.append(f"{name}: {kept}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _unescape(escape: re.Match[str]) -> str:
    """Return the character of an escape that is not needed, else the escape itself."""
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0]


def _fields(head: bytes) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:-2])
    return [(name.lower(), value.strip(" \t")) for name, _, value in pairs]


def _elements(values: Sequence[str]) -> list[str]:
    """Return the elements of a list header with one or more lines (RFC 9110 section 5.6.1), without empty ones."""
    found = (each.strip(" \t") for value in values for each in value.split(","))
    return [each for each in found if each]


def _check_body(head: bytes) -> None:
    if values_of(head, "transfer-encoding") or set(values_of(head, "content-length")) - {"0"}:
        raise HandshakeFault("a WebSocket handshake has no body")
    if len(values_of(head, "origin")) > 1:
        raise HandshakeFault("more than one Origin header")


def _checked_key(head: bytes) -> str:
    if not any(each.lower() == "upgrade" for each in _elements(values_of(head, "connection"))):
        text = "no `Connection: Upgrade` header; a proxy in between may have removed it"
        raise HandshakeFault(text, HTTPStatus.UPGRADE_REQUIRED)
    versions = values_of(head, "sec-websocket-version")
    if len(versions) != 1:
        raise HandshakeFault(f"expected one Sec-WebSocket-Version header, got {len(versions)}")
    if versions[0] != _VERSION:
        raise HandshakeFault(f"only Sec-WebSocket-Version {_VERSION} is supported", HTTPStatus.UPGRADE_REQUIRED)
    keys = values_of(head, "sec-websocket-key")
    if len(keys) != 1:
        raise HandshakeFault(f"expected one Sec-WebSocket-Key header, got {len(keys)}")
    try:
        size = len(base64.b64decode(keys[0], validate=True))
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        size = 0
    if size != _KEY_BYTES:
        raise HandshakeFault(f"Sec-WebSocket-Key is not {_KEY_BYTES} bytes in base64")
    return keys[0]


def _subprotocols(values: Sequence[str]) -> list[str]:
    offered = _elements(values)
    if not all(_TOKEN.fullmatch(each) for each in offered):
        raise HandshakeFault("Sec-WebSocket-Protocol is not a list of tokens (RFC 6455 section 4.1)")
    return offered


def _is_extensions(value: str) -> bool:
    """Whether a `Sec-WebSocket-Extensions` line offers any; False for an empty one. Raises `HandshakeFault`."""
    if not value.strip(", \t"):
        return False
    try:
        parse_extension(value)
    except InvalidHeaderFormat:
        raise HandshakeFault("Sec-WebSocket-Extensions is malformed (RFC 6455 section 9.1)") from None
    return True


def _only(value: str, names: Sequence[str]) -> str:
    """Return the cookies of these names in a `Cookie` value, without very long ones."""
    pairs = [pair for pair in value.split(";") if pair.partition("=")[0].strip(" \t") in names]
    return ";".join(pair for pair in pairs if len(pair) < MAX_LINE_BYTES // 2)


def path_and_query(target: str) -> tuple[SocketPath, str]:
    """Return path and query of a target that `one_form` has written."""
    url = urlsplit(target)
    return SocketPath(url.path), url.query
