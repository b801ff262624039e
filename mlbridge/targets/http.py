"""Target over HTTP: ``POST …/analyze`` for each frame or batch, the response may bring alerts (docs/protocol.md, "ML").

The service is not trusted: its response is bounded in bytes and time, redirects are failures, and neither the
environment (proxies, netrc) nor earlier responses (cookies) influence a request.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from watchout.common.alerts.model import AlertFault
from watchout.common.media.frames import Frame
from watchout.common.ml_targets import kinds
from watchout.common.ml_targets.reach import SchemeHint
from watchout.common.settings import Settings
from watchout.common.toolbox.http_client import HTTP_ERRORS, BodyTooLarge, HttpClient, http_reason, read_body
from watchout.common.toolbox.retry import read_retry_after
from watchout.common.tracing.context import TRACEPARENT
from watchout.mlbridge.breaker import MAX_RETRY_AFTER_S
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets.bodies import frame_headers, json_batch, json_body, multipart_batch, trace_headers
from watchout.mlbridge.targets.frame_batcher import BatchOutcome, FrameBatcher
from watchout.mlbridge.targets.results import (
    MAX_RESULT_BYTES,
    key_of,
    read_batch_result,
    read_json,
    read_result,
    traced_result,
)
from watchout.mlbridge.targets.target import OnAlerts, TargetFailure, TargetTimeout, discard_alerts
from watchout.mlbridge.targets.tls import ClientTls

#: 4xx that concern the service or its configuration, not the frame: credentials, method, protocol, rate.
OF_SERVICE: Final = frozenset((401, 402, 405, 407, 411, 414, 417, 421, 425, 426, 428, 429, 431))
#: 4xx that may concern either: a wrong path, or a stream that the service does not know.
UNSURE: Final = frozenset((403, 404, 408, 410))
#: Statuses whose ``Retry-After`` says when the service accepts requests again.
WITH_RETRY_AFTER: Final = (429, 503)
#: Statuses that mean a result without alerts when the body is empty.
NO_BODY: Final = (202, 204, 205)


class HttpTarget:
    """The `Target` of one service over HTTP. Built by `open_target`. Connections are kept and used again.

    Args:
        url: base URL; frames are posted to ``analyze`` below it, with its query.
        timeout_s: deadline of a request, in seconds.
        connections: most connections at once.
        raw: send the encoded picture itself with its ids as headers, not JSON.
        batch: most frames in one request; 1: each frame is sent alone.
        headers: sent with every request.
        tls: TLS context; None: the system's authorities for ``https``.
    """

    declaration: ClassVar = kinds.HTTP

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        connections: int,
        raw: bool = False,
        batch: int = 1,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        base = URL(url)
        self._url = (base / "analyze").with_query(base.query)
        self._timeout_s = timeout_s
        self._connections = connections
        self._raw = raw
        self._batch = batch
        self._boundary = f"watchout-{secrets.token_hex(16)}"
        self._headers = {
            "Accept": "application/json",
            **({} if raw else {"Content-Type": "application/json"}),
            **(headers or {}),
        }
        self._tls = tls
        self._hint = SchemeHint(url)
        self._answered = False
        self._client: HttpClient | None = None
        self._batcher: FrameBatcher | None = None
        self._on_alerts: OnAlerts = discard_alerts

    @property
    def public_url(self) -> str:
        """Scheme, host, port and path of the URL that frames are posted to."""
        return str(self._url.with_user(None).with_query(None))

    async def open(self, on_alerts: OnAlerts) -> None:
        """Prepare the client. `on_alerts` receives alerts that name no frame of their batch."""
        self._on_alerts = on_alerts
        self._client = HttpClient(
            user_agent="watchout-mlbridge",
            connections=self._connections,
            headers=self._headers,
            timeout_s=self._timeout_s,
            tls=True if self._tls is None else self._tls,
        )
        if self._batch > 1:
            self._batcher = FrameBatcher(self._send_batch, max_frames=self._batch)

    async def analyse(self, frame: Frame, *, isolated: bool = False) -> list[object]:
        """Post the frame, alone or in a batch, and return the alerts in the response. Raises as `Target.analyse`."""
        if self._batcher is not None:
            return await self._batcher.analyse(frame, alone=isolated)
        if not self._raw:
            return read_result(await self._post(json_body(frame), trace_headers(frame) or None))
        headers = {**frame_headers(frame), "Content-Type": frame.codec.content_type}
        return read_result(await self._post(frame.picture, headers))

    async def close(self) -> None:
        """Close all connections."""
        if self._batcher is not None:
            await self._batcher.close()
        if self._client is not None:
            await self._client.close()

    async def _send_batch(self, frames: list[Frame]) -> list[BatchOutcome]:
        """Post a batch. When the service refuses its content it is sent again in halves, down to single frames."""
        body, headers = self._batch_body(frames)
        try:
            found, unmatched = read_batch_result(await self._post(body, headers), [key_of(frame) for frame in frames])
        except TargetFailure as failure:
            if failure.blame is not Blame.FRAME or len(frames) == 1:
                return [failure] * len(frames)
            middle = len(frames) // 2
            halves = await asyncio.gather(self._send_batch(frames[:middle]), self._send_batch(frames[middle:]))
            return [*halves[0], *halves[1]]
        except AlertFault as failure:
            return [failure] * len(frames)
        if unmatched:
            self._on_alerts(unmatched)
        return [*found]

    def _batch_body(self, frames: Sequence[Frame]) -> tuple[bytes, dict[str, str] | None]:
        if self._raw:
            kind = f'multipart/form-data; boundary="{self._boundary}"'
            return multipart_batch(frames, self._boundary), {"Content-Type": kind}
        return json_batch(frames), None

    async def _post(self, body: bytes, headers: dict[str, str] | None) -> object:
        """Post a body and return the decoded response, or `Undecodable`. Raises `TargetFailure`."""
        assert self._client is not None, "open comes first"
        try:
            async with self._client.request("POST", self._url, headers=headers, body=body) as response:
                self._answered = True
                if not 200 <= response.status < 300:
                    raise _failure(response.status, response.headers)
                data = await read_body(response, MAX_RESULT_BYTES)
                found = {} if not data and response.status in NO_BODY else read_json(data)
                return traced_result(found, response.headers.get(TRACEPARENT))
        except BodyTooLarge as exc:
            raise TargetFailure(str(exc), blame=Blame.UNSURE) from None
        except TimeoutError:
            raise TargetTimeout(f"no whole answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as exc:
            raise TargetFailure(await self._hinted(http_reason(exc, with_text=True))) from None
        except HTTP_ERRORS as exc:
            raise TargetFailure(await self._hinted(http_reason(exc, with_text=True)), blame=Blame.UNSURE) from None

    async def _hinted(self, reason: str) -> str:
        """Return the reason, with the scheme that the server expects if this one never received a response."""
        return reason if self._answered else await self._hint.added_to(reason)


def blame_of(status: int) -> Blame:
    """Return what a status other than 2xx blames.

    Args:
        status: the status (RFC 9110 section 15); an unknown 4xx counts as 400.
    """
    if 400 <= status < 500 and status not in OF_SERVICE:
        return Blame.UNSURE if status in UNSURE else Blame.FRAME
    return Blame.UNSURE if status >= 500 else Blame.SERVICE


def _failure(status: int, headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> TargetFailure:
    failure = TargetFailure(f"it answered with status {status}", blame=blame_of(status))
    if status in WITH_RETRY_AFTER:
        failure.retry_after_s = read_retry_after(headers.get("Retry-After"), time.time(), most_s=MAX_RETRY_AFTER_S)
        if failure.retry_after_s is not None:
            failure.blame = Blame.SERVICE
    return failure


def open_target(url: str, settings: Settings) -> HttpTarget:
    """Build the target of a checked ``http://`` or ``https://`` URL.

    Args:
        url: a checked ``http://`` or ``https://`` URL; frames are posted to ``analyze`` below it.
        settings: ``ML_*``: time-out, requests in flight, format, batch size, headers and TLS files.

    Raises:
        StartError: a certificate or key file in the settings cannot be used.
    """
    return HttpTarget(
        url,
        timeout_s=settings.ml_timeout_s,
        connections=settings.ml_in_flight,
        raw=settings.ml_http_format == "raw",
        batch=settings.ml_batch,
        headers=dict(settings.ml_headers),
        tls=ClientTls.of(settings).context() if HttpTarget.declaration.uses_tls(url) else None,
    )
