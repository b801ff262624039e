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
        path = f"/streams/{quote(stream_id)}/frame.jpg"
        status, headers, body = await self._ask("GET", path, max_bytes=self._max_picture_bytes)
        if status == 404:
            return None
        self._check(status, body)
        number, at = (_number(headers.get(name)) for name in ("X-Frame-Id", "X-Frame-Time"))
        return Frame(WireFrame(stream_id, number, at, picture=body))

    async def share(self, stream_id: str, seconds: int, *, alerts: bool) -> dict[str, Any]:
        """Return a new share of a stream of one's own, with its token, which is in no later answer.

        Args:
            stream_id: the stream.
            seconds: how long it lasts.
            alerts: whether the alerts are shared as well.
        """
        path = f"/streams/{quote(stream_id)}/shares"
        body = msgspec.json.encode({"seconds": seconds, "alerts": alerts})
        return self._object(path, *await self._ask("POST", path, body=body))

    async def shares(self, stream_id: str) -> list[dict[str, Any]]:
        """Return the shares of a stream of one's own."""
        return await self._list(f"/streams/{quote(stream_id)}/shares", "shares")

    async def unshare(self, stream_id: str, share_id: str) -> None:
        """End a share, and its sockets.

        Args:
            stream_id: the stream.
            share_id: id of the share.
        """
        path = f"/streams/{quote(stream_id)}/shares/{quote(share_id, safe='')}"
        status, _, body = await self._ask("DELETE", path)
        self._check(status, body)

    async def _list(self, path: str, name: str) -> list[dict[str, Any]]:
        rows = self._object(path, *await self._ask("GET", path)).get(name)
        if not isinstance(rows, list):
            raise self._is_none(path)
        return [row for row in rows if isinstance(row, dict)]

    def _object(self, path: str, status: int, _: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Return the JSON object of an answer."""
        self._check(status, body)
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeError):
            raise self._is_none(path) from None

    def _is_none(self, path: str) -> NotAGateway:
        return NotAGateway(f"{self._url}{path} does not answer as a watchout gateway")

    async def _ask(
        self, method: str, path: str, *, body: bytes | None = None, max_bytes: int = MAX_LIST_BYTES
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body. When the token is refused, another one is fetched and tried once."""
        token, _ = await self._tokens.get("connect", "")
        answer = await self._request(method, path, token, body, max_bytes)
        if answer[0] == 401 and self._tokens.refreshable:
            token, _ = await self._tokens.get("rejected", token)
            answer = await self._request(method, path, token, body, max_bytes)
        return answer

    async def _request(
        self, method: str, path: str, token: str, body: bytes | None, max_bytes: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        from watchout.common.toolbox.http_bounds import BodyTooLarge
        from watchout.common.toolbox.http_client import HTTP_ERRORS, read_body

        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._client.request(method, f"{self._url}{path}", headers=headers, body=body) as response:
                return response.status, response.headers, await read_body(response, max_bytes)
        except BodyTooLarge as exc:
            raise NotAGateway(f"{self._url}{path}: {exc}") from None
        except TimeoutError:
            raise Unreachable(f"{self._url} did not answer within {TIMEOUT_S:.0f} s") from None
        except HTTP_ERRORS as exc:
            raise Unreachable(f"{self._url} cannot be asked: {reason(exc)}") from None

    def _check(self, status: int, body: bytes) -> None:
        """Raise the error for a status that is not one of success."""
        if status in (200, 201, 204):
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
