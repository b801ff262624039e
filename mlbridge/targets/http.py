"""An ML service over HTTP: one ``POST …/analyze`` per frame, its answer may bring alerts (docs/protocol.md, "ML").

The service is not trusted: its answer is bounded in bytes and time, redirects are failures, and nothing of the
environment (proxies, netrc) or of earlier answers (cookies) has a say.
"""

from __future__ import annotations

import io
import json
from typing import Final

import aiohttp
import msgspec
import pybase64
from yarl import URL

from common.alerts import split_answer
from common.frames import Frame
from mlbridge.targets import Heard, TargetFailure, TargetTimeout

#: Largest answer; past it the connection is dropped.
MAX_ANSWER_BYTES: Final = 1 << 20
#: Idle connections are closed after this: below the 5 s after which common servers close theirs, as a request that
#: crosses such a close is lost.
KEEPALIVE_S: Final = 4.0
#: aiohttp wants larger bodies as a file.
MAX_PLAIN_BODY_BYTES: Final = 1 << 20


class HttpTarget:
    """The client of one service. Connections last; there are at most `connections`."""

    def __init__(self, url: str, *, timeout_s: float, connections: int) -> None:
        base = URL(url)
        self._url = (base / "analyze").with_query(base.query)
        self._timeout_s = timeout_s
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    @property
    def shown_as(self) -> str:
        """Scheme, host, port and path."""
        return str(self._url.with_user(None).with_query(None))

    async def open(self, heard: Heard) -> None:  # noqa: ARG002 - every alert here answers a frame
        """Prepare the client; connections are opened when they are needed."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "watchout-mlbridge"},
            auto_decompress=False,
            trust_env=False,
        )

    async def show(self, frame: Frame) -> list[object]:
        """Post the frame and read the answer."""
        assert self._session is not None, "open comes first"
        body = _body(frame)
        try:
            async with self._session.post(
                self._url,
                data=body if len(body) <= MAX_PLAIN_BODY_BYTES else io.BytesIO(body),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                if not 200 <= response.status < 300:
                    raise TargetFailure(f"it answered with status {response.status}")
                answer = await _read(response)
        except TimeoutError:
            raise TargetTimeout(f"no whole answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise TargetFailure(_reason(exc)) from None
        return split_answer(_decode(answer))

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


def _body(frame: Frame) -> bytes:
    # A stream id holds nothing that JSON would escape.
    return b'{"streamId":"%b","frame":"%b","timestamp":%d,"frameId":%d}' % (
        frame.stream_id.encode("ascii"),
        pybase64.b64encode(frame.picture),
        frame.timestamp,
        frame.frame_id,
    )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    announced = response.content_length
    if announced is not None and announced > MAX_ANSWER_BYTES:
        raise TargetFailure(f"its answer has {announced} bytes, expected at most {MAX_ANSWER_BYTES}")
    answer = bytearray()
    async for chunk in response.content.iter_any():
        answer += chunk
        if len(answer) > MAX_ANSWER_BYTES:
            raise TargetFailure(f"its answer has over {MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


def _decode(answer: bytes) -> object:
    """The answer as JSON, None when it is none.

    What some services write for JSON (NaN, lone surrogates) is read too, so that the alert in it is refused with a
    reason and not just missing.
    """
    try:
        return msgspec.json.decode(answer)
    except (ValueError, RecursionError):
        pass
    try:
        value: object = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return value


def _reason(exc: Exception) -> str:
    match exc:
        case aiohttp.ClientConnectorError():
            return f"no connection: {exc.os_error.strerror or type(exc.os_error).__name__}"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
    return f"{type(exc).__name__}: {str(exc)[:200]}"
