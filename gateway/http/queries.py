"""Reads the query parameters of HTTP requests. An invalid value raises `HttpError` 400, which names it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, cast

from aiohttp import web

from watchout.common.alerts.model import SEVERITIES, STREAM_ID, Severity
from watchout.gateway.http.responses import HttpError

MAX_ALERTS: Final = 1000
MAX_STREAMS: Final = 1000
MAX_MS: Final = 2**53 - 1
#: A non-negative number in the syntax of JSON.
_TIME: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]{1,2})?\Z")
MAX_TIME_CHARS: Final = 40


@dataclass(frozen=True, slots=True)
class AlertQuery:
    """The query of `GET /alerts`, read by `of`.

    Attributes:
        stream: Id of the stream; None: all streams.
        since: Earliest time of an alert, in ms since the epoch.
        limit: Most alerts; the newest ones are returned.
        severity: Lowest severity.
        newest_first: Order of the result.
    """

    stream: str | None
    since: int
    limit: int
    severity: Severity
    newest_first: bool

    @classmethod
    def of(cls, request: web.Request) -> AlertQuery:
        """Read the query of a request. Raises `HttpError`."""
        stream = request.query.get("streamId")
        if stream is not None and not STREAM_ID.match(stream):
            text = f"streamId has 1 to 128 of A-Z a-z 0-9 _ . : -, got {stream[:40]!a}"
            raise HttpError(400, "INVALID_MESSAGE", text)
        return cls(
            stream,
            time_ms(request, "since"),
            whole(request, "limit", 1, MAX_ALERTS, 100),
            cast("Severity", one_of(request, "severity", SEVERITIES, SEVERITIES[0])),
            one_of(request, "order", ("asc", "desc"), "asc") == "desc",
        )


@dataclass(frozen=True, slots=True)
class ListPart:
    """The part of a list of streams that a request selects, read by `of`.

    Attributes:
        after: It begins with the first stream above this id; "": with the first of all.
        limit: Most streams.
    """

    after: str
    limit: int

    @classmethod
    def of(cls, request: web.Request, *, least: int = 0) -> ListPart | None:
        """Read the query of a request; None: the whole list. Raises `HttpError`.

        Args:
            request: The request.
            least: The least `limit`; 0 where there is something to read besides the list.
        """
        after = request.query.get("after", "")
        if after and not STREAM_ID.match(after):
            text = f"after is the id of a stream, 1 to 128 of A-Z a-z 0-9 _ . : -, got {after[:40]!a}"
            raise HttpError(400, "INVALID_MESSAGE", text)
        if not after and not request.query.get("limit"):
            return None
        return cls(after, whole(request, "limit", least, MAX_STREAMS, MAX_STREAMS))


def time_ms(request: web.Request, name: str) -> int:
    """Return a time in ms since the epoch, without its fraction; 0 without the parameter."""
    raw = request.query.get(name, "")
    if not raw:
        return 0
    if len(raw) > MAX_TIME_CHARS or not _TIME.match(raw) or not 0 <= (value := float(raw)) <= MAX_MS:
        text = f"{name} is a time in ms since the epoch, from 0 to {MAX_MS}, got {raw[:40]!a}"
        raise HttpError(400, "INVALID_MESSAGE", text)
    return int(raw) if raw.isdigit() else int(value)


def whole(request: web.Request, name: str, low: int, high: int, default: int) -> int:
    """Return a whole number from `low` to `high`; the default without the parameter."""
    raw = request.query.get(name, "")
    if not raw:
        return default
    if not raw.isascii() or not raw.isdigit() or len(raw) > 16 or not low <= int(raw) <= high:
        raise HttpError(400, "INVALID_MESSAGE", f"{name} is a whole number from {low} to {high}, got {raw[:40]!a}")
    return int(raw)


def number(request: web.Request, name: str, low: float, high: float) -> float | None:
    """Return a number from `low` to `high`; None without the parameter."""
    raw = request.query.get(name, "")
    if not raw:
        return None
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise HttpError(400, "INVALID_MESSAGE", f"{name} is a number from {low:g} to {high:g}, got {raw[:40]!a}")
    return value


def one_of(request: web.Request, name: str, words: tuple[str, ...], default: str) -> str:
    """Return one of `words`; the default without the parameter."""
    raw = request.query.get(name, "")
    if not raw:
        return default
    if raw not in words:
        raise HttpError(400, "INVALID_MESSAGE", f"{name} is one of {', '.join(words)}, got {raw[:40]!a}")
    return raw
