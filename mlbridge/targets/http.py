"""An ML service over HTTP: ``POST …/analyze`` per frame or batch, its answer may bring alerts (docs/protocol.md, "ML").

The service is not trusted: its answer is bounded in bytes and time, redirects are failures, and nothing of the
environment (proxies, netrc) or of earlier answers (cookies) has a say.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from watchout.common.alerts.model import AlertFault
from watchout.common.media.frames import Frame
from watchout.common.toolbox.http_client import HTTP_ERRORS, BodyTooLarge, HttpClient, http_reason, read_body
from watchout.common.toolbox.reach import SchemeHint
from watchout.common.toolbox.retry import read_retry_after
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets import Heard, TargetFailure, TargetTimeout, discard
from watchout.mlbridge.targets.batch import Batches, Outcome
from watchout.mlbridge.targets.codec import (
    MAX_ANSWER_BYTES,
    frame_headers,
    json_batch,
    json_body,
    key_of,
    multipart_batch,
    read_answer,
    read_json,
    split_batch,
)

#: 4xx that speak of the service, or of what its operator has to mend: credentials, method, protocol, rate.
OF_SERVICE: Final = frozenset((401, 402, 405, 407, 411, 414, 417, 421, 425, 426, 428, 429, 431))
#: 4xx that may be either's: a path that is not there, or a stream that the service does not know.
UNSURE: Final = frozenset((403, 404, 408, 410))
#: Longest ``Retry-After`` that is obeyed, in seconds.
MAX_RETRY_AFTER_S: Final = 300.0
#: With these it says when to come again.
LATER: Final = (429, 503)
#: With these it says that there is nothing to say now, whatever the body.
NO_ANSWER: Final = (202, 204, 205)


class HttpTarget:
    """The client of one service. Connections last; there are at most `connections`.

    `raw`: a frame is the encoded picture itself, with its ids as headers, and not JSON. `batch`: most frames in a
    request; 1: each goes alone. `headers` go with every request.
    """

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
        self._batches: Batches | None = None
        self._heard: Heard = discard

    @property
    def shown_as(self) -> str:
        """Scheme, host, port and path."""
        return str(self._url.with_user(None).with_query(None))

    async def open(self, heard: Heard) -> None:
        """Prepare the client; it connects when it has to. `heard` gets a batch's alerts that name no frame of it."""
        self._heard = heard
        self._client = HttpClient(
            user_agent="watchout-mlbridge",
            connections=self._connections,
            headers=self._headers,
            timeout_s=self._timeout_s,
            tls=True if self._tls is None else self._tls,
        )
        if self._batch > 1:
            self._batches = Batches(self._ask_all, most=self._batch)

    async def show(self, frame: Frame, *, apart: bool = False) -> list[object]:
        """Post the frame, alone or with others, and read the answer."""
        if self._batches is not None:
            return await self._batches.show(frame, alone=apart)
        if not self._raw:
            return read_answer(await self._post(json_body(frame), None))
        headers = {**frame_headers(frame), "Content-Type": frame.codec.content_type}
        return read_answer(await self._post(frame.picture, headers))

    async def close(self) -> None:
        """Close all connections."""
        if self._batches is not None:
            await self._batches.close()
        if self._client is not None:
            await self._client.close()

    async def _ask_all(self, frames: list[Frame]) -> list[Outcome]:
        """Post a batch. One that is refused for what is in it is asked again in halves: one frame spoils no other."""
        body, headers = self._batch_body(frames)
        try:
            found, strangers = split_batch(await self._post(body, headers), [key_of(frame) for frame in frames])
        except TargetFailure as failure:
            if failure.blame is not Blame.FRAME or len(frames) == 1:
                return [failure] * len(frames)
            middle = len(frames) // 2
            halves = await asyncio.gather(self._ask_all(frames[:middle]), self._ask_all(frames[middle:]))
            return [*halves[0], *halves[1]]
        except AlertFault as failure:
            return [failure] * len(frames)
        if strangers:
            self._heard(strangers)
        return [*found]

    def _batch_body(self, frames: Sequence[Frame]) -> tuple[bytes, dict[str, str] | None]:
        if self._raw:
            kind = f'multipart/form-data; boundary="{self._boundary}"'
            return multipart_batch(frames, self._boundary), {"Content-Type": kind}
        return json_batch(frames), None

    async def _post(self, body: bytes, headers: dict[str, str] | None) -> object:
        """Post it; the answer decoded, `codec.Nonsense` for one that cannot be."""
        assert self._client is not None, "open comes first"
        try:
            async with self._client.request("POST", self._url, headers=headers, body=body) as response:
                self._answered = True
                if not 200 <= response.status < 300:
                    raise _failure(response.status, response.headers)
                answer = await read_body(response, MAX_ANSWER_BYTES)
                return {} if not answer and response.status in NO_ANSWER else read_json(answer)
        except BodyTooLarge as exc:
            raise TargetFailure(str(exc), blame=Blame.UNSURE) from None
        except TimeoutError:
            raise TargetTimeout(f"no whole answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as exc:
            raise TargetFailure(await self._hinted(http_reason(exc, with_text=True))) from None
        except HTTP_ERRORS as exc:
            raise TargetFailure(await self._hinted(http_reason(exc, with_text=True)), blame=Blame.UNSURE) from None

    async def _hinted(self, reason: str) -> str:
        """The reason, with the scheme that is expected where it may be another: nothing has been answered so far."""
        return reason if self._answered else await self._hint.added_to(reason)


def blame_of(status: int) -> Blame:
    """Whose fault an answer of this status is that is none of 2xx (RFC 9110 section 15; unknown 4xx count as 400)."""
    if 400 <= status < 500 and status not in OF_SERVICE:
        return Blame.UNSURE if status in UNSURE else Blame.FRAME
    return Blame.UNSURE if status >= 500 else Blame.SERVICE


def _failure(status: int, headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> TargetFailure:
    failure = TargetFailure(f"it answered with status {status}", blame=blame_of(status))
    if status in LATER:
        failure.retry_after_s = read_retry_after(headers.get("Retry-After"), time.time(), most_s=MAX_RETRY_AFTER_S)
        if failure.retry_after_s is not None:
            failure.blame = Blame.SERVICE
    return failure
