"""The HTTP requests of a client: the list of streams, recent alerts, the newest picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from watchout.client.errors import NotAGateway, TokenRefused, Unreachable, refusal
from watchout.client.events import Alert, Frame, read_alert, whole
from watchout.client.tokens import TokenSource
from watchout.common.media.frames import Frame as WireFrame
from watchout.common.toolbox.gateway_address import http_url
from watchout.common.toolbox.reason import reason

#: Deadline of a request in seconds, and most bytes of a list.
TIMEOUT_S: Final = 10.0
MAX_LIST_BYTES: Final = 16 << 20


class GatewayHttp:
    """The HTTP side of one client; created at its first request, in the running loop.

    All methods raise `Unreachable` when the same request may succeed later, `TokenRefused` when the token is not valid,
    and otherwise `Refused` or `NotAGateway`.

    Args:
        url: the gateway, of `gateway_url`.
        tokens: the client's token.
        max_picture_bytes: largest picture that is accepted, in bytes.
    """

    def __init__(self, url: str, tokens: TokenSource, max_picture_bytes: int) -> None:
        # aiohttp is slow to import, and most clients do not need it
        from watchout.common.toolbox.http_client import HttpClient

        self._url = http_url(url)
        self._tokens = tokens
        self._token = ""
        self._max_picture_bytes = max_picture_bytes
        self._client = HttpClient(user_agent="watchout-client", connections=4, timeout_s=TIMEOUT_S)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def streams(self) -> list[dict[str, Any]]:
        """Return the rows of ``GET /streams``."""
        return await self._list("/streams", "streams")

    async def alerts(
        self, stream_id: str | None, *, since: int | None, limit: int | None, severity: str | None
    ) -> list[Alert]:
        """Return the alerts of ``GET /alerts``.

        Args:
            stream_id: the stream; None: all streams of which the user may receive alerts.
            since: ms since 1970; None: all that are kept.
            limit: most alerts; the newest are returned. None: the gateway's default.
            severity: the lowest severity to return; None: all.
        """
        asked = {"streamId": stream_id, "since": since, "limit": limit, "severity": severity}
        query = urlencode({key: value for key, value in asked.items() if value is not None})
        rows = await self._list(f"/alerts?{query}" if query else "/alerts", "alerts")
        return [read_alert(row) for row in rows]

    async def snapshot(self, stream_id: str) -> Frame | None:
        """Return the newest frame of a stream; None when there is none that this user may view."""
        status, headers, body = await self._get(f"/streams/{quote(stream_id)}/frame.jpg", self._max_picture_bytes)
        if status == 404:
            return None
        self._check(status, body)
        number, at = (_number(headers.get(name)) for name in ("X-Frame-Id", "X-Frame-Time"))
        return Frame(WireFrame(stream_id, number, at, picture=body))

    async def _list(self, path: str, name: str) -> list[dict[str, Any]]:
        status, _, body = await self._get(path, MAX_LIST_BYTES)
        self._check(status, body)
        try:
            rows = msgspec.json.decode(body, type=dict[str, Any]).get(name)
        except (msgspec.MsgspecError, UnicodeError):
            rows = None
        if not isinstance(rows, list):
            raise NotAGateway(f"{self._url}{path} does not answer as a watchout gateway")
        return [row for row in rows if isinstance(row, dict)]

    async def _get(self, path: str, max_bytes: int) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body. When the token is refused, another one is fetched and tried once."""
        self._token, _ = await self._tokens.get("connect", self._token)
        answer = await self._request(path, max_bytes)
        if answer[0] == 401 and self._tokens.refreshable:
            self._token, _ = await self._tokens.get("rejected", self._token)
            answer = await self._request(path, max_bytes)
        return answer

    async def _request(self, path: str, max_bytes: int) -> tuple[int, Mapping[str, str], bytes]:
        from watchout.common.toolbox.http_client import HTTP_ERRORS, BodyTooLarge, read_body

        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with self._client.request("GET", f"{self._url}{path}", headers=headers) as response:
                return response.status, response.headers, await read_body(response, max_bytes)
        except BodyTooLarge as exc:
            raise NotAGateway(f"{self._url}{path}: {exc}") from None
        except TimeoutError:
            raise Unreachable(f"{self._url} did not answer within {TIMEOUT_S:.0f} s") from None
        except HTTP_ERRORS as exc:
            raise Unreachable(f"{self._url} cannot be asked: {reason(exc)}") from None

    def _check(self, status: int, body: bytes) -> None:
        """Raise the error for a status that is not 200."""
        if status == 200:
            return
        try:
            error = msgspec.json.decode(body, type=dict[str, Any])["error"]
            code, message = str(error["code"]), str(error["message"])
        except (msgspec.MsgspecError, UnicodeError, KeyError, TypeError):
            code, message = "", ""
        if status == 401:
            raise TokenRefused(code or "AUTH_FAILED", message or "the token is not valid")
        if status == 429 or status >= 500:
            raise Unreachable(f"{self._url} responds with HTTP status {status} {message}".rstrip())
        if not code:
            raise NotAGateway(f"{self._url} responds with HTTP status {status}: is that a watchout gateway?")
        raise refusal(code, message)


def _number(text: str | None) -> int:
    return whole(int(text)) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else 0
