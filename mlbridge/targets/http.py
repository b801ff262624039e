"""Target over HTTP: ``POST …/analyze`` for each frame or batch, the response may bring alerts (docs/protocol.md, "ML").

The service is not trusted: its response is bounded in bytes and time, redirects are failures, and neither the
environment (proxies, netrc) nor earlier responses (cookies) influence a request.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from yarl import URL

from watchout.common.alerts.model import AlertFault
from watchout.common.media.frames import Frame
from watchout.common.ml_targets import kinds
from watchout.common.ml_targets.reach import SchemeHint
from watchout.common.settings import Settings
from watchout.common.toolbox.http_bounds import BodyTooLarge
from watchout.common.toolbox.renewed import Renewed
from watchout.common.toolbox.retry import read_retry_after
from watchout.common.tracing.context import TRACEPARENT
from watchout.mlbridge.breaker import MAX_RETRY_AFTER_S
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets.accepted import accepted_types, takes
from watchout.mlbridge.targets.bodies import (
    content_type_line,
    frame_lines,
    json_batch,
    json_parts,
    multipart_batch,
    trace_lines,
)
from watchout.mlbridge.targets.frame_batcher import BatchOutcome, FrameBatcher
from watchout.mlbridge.targets.http_connections import HttpConnections, NoConnection, NoResponse
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

JSON_LINE: Final = content_type_line("application/json")
#: Content type of a batch of pictures as they are.
MULTIPART: Final = "multipart/form-data"
#: With ``auto``: all frames go in base64 for so long after the service refused a picture as it is, in seconds.
JSON_FOR_S: Final = 60.0
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

    With the format ``auto`` pictures go in base64 until a response says by ``Accept`` that the service takes them as
    they are; the latest response counts. When a service then refuses one, that frame is posted again in base64, and
    so are all frames for `JSON_FOR_S`.

    Args:
        url: base URL; frames are posted to ``analyze`` below it, with its query.
        timeout_s: deadline of a request, in seconds.
        connections: connections at once.
        body_format: ``json``: the picture in base64; ``raw``: the encoded picture itself with its ids as headers;
            ``auto``: as the service accepts.
        batch: most frames in one request; 1: each frame is sent alone.
        headers: sent with every request.
        tls: TLS context of each new connection; None: the system's authorities for ``https``.
    """

    declaration: ClassVar = kinds.HTTP

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        connections: int,
        body_format: str = "auto",
        batch: int = 1,
        headers: Mapping[str, str] | None = None,
        tls: Renewed[ssl.SSLContext] | None = None,
    ) -> None:
        base = URL(url)
        self._url = (base / "analyze").with_query(base.query)
        self._timeout_s = timeout_s
        self._connections = connections
        self._format = body_format
        self._batch = batch
        self._boundary = f"watchout-{secrets.token_hex(16)}"
        self._headers = [
            ("User-Agent", "watchout-mlbridge"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            *(headers or {}).items(),
        ]
        self._tls = tls
        self._hint = SchemeHint(url)
        self._answered = False
        #: With ``auto``: what the latest response accepts, and until when that is disregarded, in seconds.
        self._accepted: frozenset[str] = frozenset()
        self._json_until = -math.inf
        self._http: HttpConnections | None = None
        self._batcher: FrameBatcher | None = None
        self._on_alerts: OnAlerts = discard_alerts

    @property
    def public_url(self) -> str:
        """Scheme, host, port and path of the URL that frames are posted to."""
        return str(self._url.with_user(None).with_query(None))

    async def open(self, on_alerts: OnAlerts) -> None:
        """Prepare the client. `on_alerts` receives alerts that name no frame of their batch."""
        self._on_alerts = on_alerts
        self._http = HttpConnections(
            self._url,
            self._headers,
            connections=self._connections,
            timeout_s=self._timeout_s,
            max_body_bytes=MAX_RESULT_BYTES,
            tls=self._tls,
        )
        if self._batch > 1:
            self._batcher = FrameBatcher(self._send_batch, max_frames=self._batch)

    async def analyse(self, frame: Frame, *, isolated: bool = False) -> list[object]:
        """Post the frame, alone or in a batch, and return the alerts in the response. Raises as `Target.analyse`."""
        if self._batcher is not None:
            return await self._batcher.analyse(frame, alone=isolated)
        if self._wants(frame.codec.content_type):
            try:
                return read_result(await self._post((frame.picture,), frame_lines(frame)))
            except TargetFailure as failure:
                if not self._wants_json_after(failure):
                    raise
        return read_result(await self._post(json_parts(frame), JSON_LINE + trace_lines(frame)))

    async def close(self) -> None:
        """Close all connections."""
        if self._batcher is not None:
            await self._batcher.close()
        if self._http is not None:
            await self._http.close()

    def _wants(self, content_type: str) -> bool:
        """Return whether the service gets this content type in place of JSON."""
        if self._format != "auto":
            return self._format == "raw"
        return takes(self._accepted, content_type) and time.monotonic() >= self._json_until

    def _wants_json_after(self, failure: TargetFailure) -> bool:
        """Return whether a request without JSON failed because the service wants JSON, and remember it.

        A response that accepts pictures refuses this picture; a failure without a response says nothing.
        """
        if self._format != "auto" or not isinstance(failure, _StatusFailure) or failure.accepts_pictures:
            return False
        self._json_until = time.monotonic() + JSON_FOR_S
        return True

    async def _send_batch(self, frames: list[Frame]) -> list[BatchOutcome]:
        """Post a batch. When the service refuses its content it is sent again in halves, down to single frames."""
        try:
            response = await self._post_batch(frames)
            found, unmatched = read_batch_result(response, [key_of(frame) for frame in frames])
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

    async def _post_batch(self, frames: Sequence[Frame]) -> object:
        """Post a batch in the format that the service wants, and return its decoded response."""
        if self._wants(MULTIPART):
            lines = content_type_line(f'{MULTIPART}; boundary="{self._boundary}"')
            try:
                return await self._post((multipart_batch(frames, self._boundary),), lines)
            except TargetFailure as failure:
                if not self._wants_json_after(failure):
                    raise
        return await self._post((json_batch(frames),), JSON_LINE)

    async def _post(self, body: Sequence[bytes | memoryview], lines: bytes) -> object:
        """Post a body, given in parts, and return the decoded response, or `Undecodable`. Raises `TargetFailure`."""
        assert self._http is not None, "open comes first"
        try:
            response = await self._http.post(*body, headers=lines)
        except BodyTooLarge as exc:
            raise TargetFailure(str(exc), blame=Blame.UNSURE) from None
        except TimeoutError:
            raise TargetTimeout(f"no whole answer within {self._timeout_s:g} s") from None
        except NoConnection as exc:
            raise TargetFailure(await self._hinted(str(exc))) from None
        except NoResponse as exc:
            raise TargetFailure(await self._hinted(str(exc)), blame=Blame.UNSURE) from None
        self._answered = True
        headers, data = response.headers, response.body
        accepted = accepted_types(headers.get("accept"))
        if not 200 <= response.status < 300:
            raise _failure(response.status, headers.get("retry-after"), accepted)
        self._accepted = accepted
        found = {} if not data and response.status in NO_BODY else read_json(data)
        return traced_result(found, headers.get(TRACEPARENT))

    async def _hinted(self, reason: str) -> str:
        """Return the reason, with the scheme that the server expects if this one never received a response."""
        return reason if self._answered else await self._hint.added_to(reason)


class _StatusFailure(TargetFailure):
    """A response with another status than 2xx; `accepts_pictures`: its ``Accept`` names more than JSON."""

    accepts_pictures = False


def blame_of(status: int) -> Blame:
    """Return what a status other than 2xx blames.

    Args:
        status: the status (RFC 9110 section 15); an unknown 4xx counts as 400.
    """
    if 400 <= status < 500 and status not in OF_SERVICE:
        return Blame.UNSURE if status in UNSURE else Blame.FRAME
    return Blame.UNSURE if status >= 500 else Blame.SERVICE


def _failure(status: int, retry_after: str | None, accepted: frozenset[str]) -> _StatusFailure:
    failure = _StatusFailure(f"it answered with status {status}", blame=blame_of(status))
    failure.accepts_pictures = bool(accepted - {"application/json"})
    if status in WITH_RETRY_AFTER:
        failure.retry_after_s = read_retry_after(retry_after, time.time(), most_s=MAX_RETRY_AFTER_S)
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
        body_format=settings.ml_http_format,
        batch=settings.ml_batch,
        headers=dict(settings.ml_headers),
        tls=ClientTls.of(settings).renewed() if HttpTarget.declaration.uses_tls(url) else None,
    )
