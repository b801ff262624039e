"""Checks the head of an HTTP request: its size, and a grammar that no two parsers read differently (RFC 9112). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

#: Most bytes of a head, cookies not counted.
MAX_HEAD_BYTES: Final = 16 * 1024
#: Most bytes of one line of a head.
MAX_LINE_BYTES: Final = 8190
#: Most header lines of a head.
MAX_HEADERS: Final = 100
#: Most bytes of all cookies of a head. They do not count for the other limits: a browser sends the cookies of every
#: app on the same host.
MAX_COOKIE_BYTES: Final = 64 * 1024

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_REQUEST_LINE: Final = re.compile(rb"%b{1,32} [\x21-\x7e]+ HTTP/1\.([01])" % _TOKEN)
_FIELD: Final = re.compile(rb"(%b+):([\t\x20-\x7e\x80-\xff]*)" % _TOKEN)
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
#: Health checks are answered although a limit of connections is reached, so that the gateway is not taken for dead.
_HEALTH: Final = re.compile(rb"(?:GET|HEAD) /health(?:/live)?[ ?]")
_METHOD: Final = re.compile(rb"%b{0,32}( |\Z)" % _TOKEN)


class HeadFault(Exception):
    """A request head that is refused; raised by the checks of this module.

    The caller sends an error response with `status`, `code` and the text of the exception, which is a fixed sentence
    per status and quotes nothing of the request, and then closes the connection.
    """

    def __init__(self, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        self.status = status
        super().__init__(_FAULTS[status])

    @property
    def code(self) -> str:
        """The code of the error body."""
        return "BAD_REQUEST" if self.status is HTTPStatus.BAD_REQUEST else "TOO_LARGE"


_LONGER: Final = "a token that is too long for it goes into the first message of a WebSocket"
_FAULTS: Final = {
    HTTPStatus.BAD_REQUEST: "not a valid HTTP request",
    HTTPStatus.REQUEST_URI_TOO_LONG: (f"the first line of a request has at most {MAX_LINE_BYTES} bytes; {_LONGER}"),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (
        f"the head of a request has at most {MAX_HEAD_BYTES} bytes, {MAX_HEADERS} header lines and {MAX_LINE_BYTES} "
        f"bytes a line; {_LONGER}"
    ),
}


def check_head(head: bytes) -> None:
    """Check a complete head, its empty line included. Raises `HeadFault`.

    Stricter than RFC 9112 requires of a server where parsers differ: no bare CR or LF, no folded lines, no space before
    a colon, no control characters. Exactly one Host header (section 3.2), which only HTTP/1.0 may omit.
    """
    check_size(head)
    line, *lines = head[:-4].split(b"\r\n")
    if len(line) > MAX_LINE_BYTES:
        raise HeadFault(HTTPStatus.REQUEST_URI_TOO_LONG)
    if (request := _REQUEST_LINE.fullmatch(line)) is None:
        raise HeadFault
    fields: list[tuple[bytes, bytes]] = []
    for each in lines[: MAX_HEADERS + 1]:
        if len(each) > MAX_LINE_BYTES and not _is_cookie(each):
            raise HeadFault(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if (field := _FIELD.fullmatch(each)) is None:
            raise HeadFault
        fields.append((field[1], field[2]))
    check_fields(fields, host_needed=request[1] == b"1")


def check_beginning(data: bytes) -> None:
    """Check the bytes of a head that is not complete: they may begin a request, and are not too many.

    Raises `HeadFault`.
    """
    if not _METHOD.match(data):
        raise HeadFault
    check_size(data)


def check_size(head: bytes) -> None:
    """Check the size of a complete or incomplete head. Raises `HeadFault`."""
    if len(head) <= MAX_HEAD_BYTES:
        return
    cookies = sum(len(line) for line in head.split(b"\r\n")[1:] if _is_cookie(line))
    if len(head) - cookies > MAX_HEAD_BYTES or cookies > MAX_COOKIE_BYTES:
        raise HeadFault(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


def check_fields(fields: Sequence[tuple[bytes, bytes]], *, host_needed: bool) -> None:
    """Check headers, as pairs of name and value, of a request that another parser (aiohttp) has read.

    Covers what `check_head` checks beyond single lines: number, sizes, and the Host header, which may be missing
    unless `host_needed`. Raises `HeadFault`.
    """
    sizes = [(name.lower() == b"cookie", len(name) + len(value)) for name, value in fields]
    cookies, others = (sum(size for is_cookie, size in sizes if is_cookie is which) for which in (True, False))
    longest = max((size for is_cookie, size in sizes if not is_cookie), default=0)
    if (
        len(fields) > MAX_HEADERS or others > MAX_HEAD_BYTES or longest > MAX_LINE_BYTES or cookies > MAX_COOKIE_BYTES
    ):  # fmt: skip
        raise HeadFault(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    hosts = [value.strip() for name, value in fields if name.lower() == b"host"]
    if len(hosts) > 1 or (host_needed and not hosts) or not all(_HOST.fullmatch(host) for host in hosts):
        raise HeadFault


def is_health_check(head: bytes) -> bool:
    """Whether a request asks for `/health` or `/health/live`."""
    return _HEALTH.match(head) is not None


def _is_cookie(line: bytes) -> bool:
    return line[:7].lower() == b"cookie:"
