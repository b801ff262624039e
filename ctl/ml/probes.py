"""Sends the frames of ``watchout-ctl ml check`` to an ML service. `watchout.ctl.ml.conformance` judges the results.

HTTP requests are made directly, because a check needs statuses, bodies and connections that a target does not expose.
Batches and all other kinds use mlbridge's own target. Every request has a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Final, Protocol

import aiohttp
from yarl import URL

from watchout.common.alerts.model import AlertFault
from watchout.common.clock import now_ms
from watchout.common.media.frames import Frame
from watchout.common.ml_targets import kinds
from watchout.common.ml_targets.declaration import of_url
from watchout.common.ml_targets.reach import reach
from watchout.common.settings import Settings
from watchout.common.toolbox.http_bounds import BodyTooLarge
from watchout.common.toolbox.http_client import HTTP_ERRORS, HttpClient, http_reason, read_body
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.doctor.scrubbing import SCRUBBED_CHARACTERS, scrubbed, secrets_of, visible_address
from watchout.ctl.environment import Failure
from watchout.ctl.ml import conformance
from watchout.ctl.ml.conformance import LoadResult, ProbeResult
from watchout.ctl.ml.pictures import GARBAGE, SAMPLE, TRUNCATED, padded
from watchout.mlbridge.targets import Target, TargetFailure, TargetTimeout, UnusableResult, open_target
from watchout.mlbridge.targets.accepted import accepted_types, takes
from watchout.mlbridge.targets.bodies import frame_headers, json_body
from watchout.mlbridge.targets.http import NO_BODY
from watchout.mlbridge.targets.results import MAX_RESULT_BYTES, Undecodable, read_json, read_result
from watchout.mlbridge.targets.tls import ClientTls

#: Deadline of the connection that checks whether the service is reachable, in seconds.
REACH_S: Final = 5.0
#: Number of times that the sample is sent before alerts are judged: motion detectors need more than one frame.
SAMPLE_FRAMES: Final = 3
LARGE_BYTES: Final = 2 << 20
#: Most frames and most streams of the load test.
LOAD_FRAMES: Final = 10_000
LOAD_STREAMS: Final = 8
#: Most alerts without a frame that are kept.
MAX_HEARD: Final = 1_000
#: Attempts to send a valid frame after a broken one, and the pause between them in seconds.
RECONNECTS: Final = 5
RECONNECT_S: Final = 0.5
#: How long to wait for alerts without a frame, in seconds.
LINGER_S: Final = 2.0
STREAM: Final = "check-1"
OTHER_STREAM: Final = "check-2"


class FrameProbe(Protocol):
    """Sends one frame to an ML service for ``watchout-ctl ml check``; implemented by `_HttpProbe` and `_TargetProbe`.

    Failures of the service are in the `ProbeResult`; none is raised.
    """

    async def show(self, frame: Frame, *, unknown_field: bool = False) -> ProbeResult:
        """Send a frame and return the result. Failures of the service are in the result; none is raised.

        `unknown_field`: add a field that the protocol does not name.
        """


async def examine(settings: Settings, pictures: Sequence[bytes], *, load_s: float) -> list[Finding]:
    """Run all checks against the service of the settings.

    Args:
        settings: the settings of mlbridge.
        pictures: pictures for which the user expects alerts.
        load_s: length of the load test, in seconds; 0: none.

    Returns:
        The findings, in the order in which they are shown, without secrets.

    Raises:
        Failure: ``ML_SERVICE_URL`` is not set.
    """
    url = settings.ml_service_url
    if url is None:
        raise Failure("no ML service is named: give its URL, or set ML_SERVICE_URL")
    reached = await _reach(url)
    findings = [reached]
    if reached.level == "ok":
        is_http = of_url(url) is kinds.HTTP and settings.ml_batch == 1
        async with _over_http(settings) if is_http else _over_target(settings) as asking:
            findings += await Examination(asking, settings, pictures, is_http=is_http, load_s=load_s).run()
    findings.sort(key=lambda finding: conformance.CHECKS.index(finding.check))
    shown = [text for _, value in settings.ml_headers for text in (value, *value.split())]
    secrets = (
        *sorted((text for text in shown if len(text) >= SCRUBBED_CHARACTERS), key=len, reverse=True),
        *secrets_of({"ML_SERVICE_URL": url}),
    )
    return [scrubbed(finding, secrets) for finding in findings]  # a service may echo what it was sent


async def _reach(url: str) -> Finding:
    at = visible_address(url) or "the service"
    reached = await reach(url, REACH_S)
    if not reached.fault:
        return ok("reachable", f"{at} takes connections.")
    if reached.connected:
        return wrong("reachable", f"{at}: {reached.fault}.", "Write the URL as it says.")
    reason = reached.fault
    remedy = "Start it; one in a container must listen on 0.0.0.0 and publish its port."
    return wrong("reachable", f"{at} cannot be reached: {reason}.", remedy)


class Examination:
    """Runs the checks against one reachable service, one after the other. Created by `examine`.

    Args:
        asking: sends frames.
        settings: the settings of mlbridge.
        pictures: pictures for which the user expects alerts.
        is_http: whether the service is asked directly over HTTP.
        load_s: length of the load test, in seconds; 0: none.
    """

    def __init__(
        self, asking: FrameProbe, settings: Settings, pictures: Sequence[bytes], *, is_http: bool, load_s: float
    ) -> None:
        self._asking = asking
        self._settings = settings
        self._pictures = pictures
        self._is_http = is_http
        self._load_s = load_s
        self._numbers = itertools.count(1)

    async def run(self) -> list[Finding]:
        """Run the checks and return the findings. Stops after the first frame if it has no result."""
        first = await self._show(SAMPLE)
        answered = conformance.of_answer(first, self._settings.ml_timeout_s)
        if not first.accepted:
            left = ", ".join(name for name in conformance.CHECKS[2:])
            return [answered, warning("json", f"Not checked: {left}.", "Mend the first, then check again.")]
        findings = [answered]
        # Each of them stays a frame that alerts may name.
        cames = [first, *[await self._show(SAMPLE) for _ in range(SAMPLE_FRAMES - 1)]]
        shown = [await self._show(picture) for picture in self._pictures]
        cames += shown
        if self._is_http:
            unusable = next((came for came in cames if came.unusable), first)
            findings += [conformance.of_json(unusable), conformance.of_keep_alive(cames)]
            findings.append(conformance.of_unknown_field(await self._show(SAMPLE, unknown_field=True)))
        pair: list[ProbeResult] = []
        for picture in (SAMPLE, *self._pictures[-1:]):
            pair += await asyncio.gather(*(self._show(picture, stream=stream) for stream in (STREAM, OTHER_STREAM)))
        findings.append(conformance.of_two(pair, cames[-1].ms))
        cames += pair
        broken = [await self._show(picture) for picture in (GARBAGE, TRUNCATED)]
        after = await self._show(SAMPLE)
        for _ in range(0 if self._is_http else RECONNECTS):  # a refused frame may cost the connection
            if after.accepted:
                break
            await asyncio.sleep(RECONNECT_S)
            after = await self._show(SAMPLE)
        findings.append(conformance.of_garbage(broken, after, is_http=self._is_http))
        large = await self._show(padded(LARGE_BYTES))
        findings.append(conformance.of_large(large))
        if after.accepted and self._load_s:
            load = await self._load()
            findings.append(
                conformance.of_load(
                    load, is_http=self._is_http, ml_fps=self._settings.ml_fps, max_age_s=self._settings.ml_max_age_s,
                    timeout_s=self._settings.ml_timeout_s,
                )
            )  # fmt: skip
            cames += load.results
        cames += [*broken, after, large]
        heard = await self._heard()
        findings += conformance.of_alerts(cames, heard=heard, pictures=len(self._pictures))
        findings += conformance.of_frame_ids(cames, heard=heard)
        if self._is_http:
            findings.append(conformance.of_size(cames))
        return findings

    async def _show(self, picture: bytes, *, stream: str = STREAM, unknown_field: bool = False) -> ProbeResult:
        frame = Frame(stream, next(self._numbers), now_ms(), picture=picture)
        return await self._asking.show(frame, unknown_field=unknown_field)

    async def _load(self) -> LoadResult:
        loop = asyncio.get_running_loop()
        streams = min(LOAD_STREAMS, self._settings.ml_in_flight)
        cames: list[ProbeResult] = []
        began = loop.time()

        async def camera(number: int) -> None:
            while loop.time() - began < self._load_s and len(cames) < LOAD_FRAMES:
                came = await self._show(SAMPLE, stream=f"check-load-{number}")
                cames.append(came)
                if not came.accepted:
                    return

        await asyncio.gather(*(camera(number) for number in range(streams)))
        return LoadResult(streams, loop.time() - began, cames)

    async def _heard(self) -> Sequence[object]:
        if not isinstance(self._asking, _TargetProbe):
            return ()
        await asyncio.sleep(LINGER_S)
        return self._asking.heard


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _ConnectionUse:
    """Records whether an HTTP request used a connection that was open before; made by `_HttpProbe`, set by aiohttp's
    tracing.
    """

    reused: bool = False


class _HttpProbe:
    """Sends frames with ``POST …/analyze`` and records status, body and connection. Implements `FrameProbe`."""

    def __init__(self, client: HttpClient, settings: Settings) -> None:
        base = URL(settings.ml_service_url or "")
        self._url = (base / "analyze").with_query(base.query)
        self._client = client
        self._timeout_s = settings.ml_timeout_s
        self._format = settings.ml_http_format
        self._accepted: frozenset[str] = frozenset()  # by the latest response, as mlbridge goes by it

    def _wants_picture(self, frame: Frame) -> bool:
        if self._format != "auto":
            return self._format == "raw"
        return takes(self._accepted, frame.codec.content_type)

    def _request(self, frame: Frame, unknown_field: bool) -> tuple[bytes, dict[str, str]]:
        if self._wants_picture(frame):
            more = {"X-Watchout-Check": "1"} if unknown_field else {}
            return frame.picture, {"Content-Type": frame.codec.content_type, **frame_headers(frame), **more}
        body = json_body(frame)
        if unknown_field:
            body = body[:-1] + b',"watchoutCheck":{"a":[1]}}'
        return body, {"Content-Type": "application/json"}

    async def show(self, frame: Frame, *, unknown_field: bool = False) -> ProbeResult:
        """Post a frame. See `FrameProbe.show`."""
        body, headers = self._request(frame, unknown_field)
        connection = _ConnectionUse()
        began = time.perf_counter()
        came = ProbeResult(frame, 0.0)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.request("POST", self._url, headers=headers, body=body, trace=connection) as response,
            ):
                self._accepted = accepted_types(response.headers.get("Accept"))
                came = replace(came, status=response.status, content_type=response.content_type)
                came = await _with_body(came, response)
        except TimeoutError:
            came = replace(came, fault=f"no whole answer within {self._timeout_s:g} s", late=True)
        except HTTP_ERRORS as exc:
            came = replace(came, fault=http_reason(exc, with_text=True))
        came = replace(came, ms=(time.perf_counter() - began) * 1e3, reused=connection.reused)
        return _decoded(came) if came.accepted else came


async def _with_body(came: ProbeResult, response: aiohttp.ClientResponse) -> ProbeResult:
    try:
        return replace(came, body=await read_body(response, MAX_RESULT_BYTES))
    except BodyTooLarge:
        return replace(came, fault=f"its answer has over {MAX_RESULT_BYTES} bytes")


def _decoded(came: ProbeResult) -> ProbeResult:
    if not came.body and came.status in NO_BODY:
        return replace(came, decoded={})
    decoded = read_json(came.body)
    came = replace(came, decoded=decoded, is_json=not isinstance(decoded, Undecodable))
    try:
        return replace(came, values=tuple(read_result(decoded)))
    except UnusableResult:
        return came  # `unusable` is derived from the body
    except AlertFault as fault:
        return replace(came, alert_fault=str(fault))


@contextlib.asynccontextmanager
async def _over_http(settings: Settings) -> AsyncIterator[FrameProbe]:
    trace = aiohttp.TraceConfig()

    async def reused(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.reused = True

    trace.on_connection_reuseconn.append(reused)
    is_secure = kinds.HTTP.uses_tls(settings.ml_service_url or "")
    tls = ClientTls.of(settings).context() if is_secure else True
    async with HttpClient(
        user_agent="watchout-ctl",
        connections=max(2, settings.ml_in_flight),
        headers={"Accept": "application/json", **dict(settings.ml_headers)},
        tls=tls,
        traces=[trace],
    ) as client:
        yield _HttpProbe(client, settings)


# ── every other kind ─────────────────────────────────────────────────────────────────────────────────────────────


class _TargetProbe:
    """Sends frames with mlbridge's own target. Implements `FrameProbe`; `heard` are alerts without a frame."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self.heard: list[object] = []
        self._target = target
        self._timeout_s = timeout_s

    async def show(self, frame: Frame, *, unknown_field: bool = False) -> ProbeResult:
        """Send a frame. See `FrameProbe.show`; `unknown_field` is ignored."""
        del unknown_field
        began = time.perf_counter()
        came = ProbeResult(frame, 0.0)
        try:
            async with asyncio.timeout(self._timeout_s):
                came = replace(came, values=tuple(await self._target.analyse(frame)))
        except (TimeoutError, TargetTimeout):
            came = replace(came, fault=f"no answer within {self._timeout_s:g} s", late=True)
        except UnusableResult as unusable:
            if not unusable.counted:  # else it is in `heard`, as it names no frame
                came = replace(came, alert_fault=str(unusable))
        except TargetFailure as failure:
            came = replace(came, fault=str(failure))
        except AlertFault as fault:
            came = replace(came, alert_fault=str(fault))
        return replace(came, ms=(time.perf_counter() - began) * 1e3)


@contextlib.asynccontextmanager
async def _over_target(settings: Settings) -> AsyncIterator[FrameProbe]:
    target = open_target(settings)
    assert target is not None, "the URL is set"
    asking = _TargetProbe(target, settings.ml_timeout_s)

    def hear(values: list[object]) -> None:
        if len(asking.heard) < MAX_HEARD:
            asking.heard.extend(values)

    try:
        await target.open(hear)
        yield asking
    finally:
        await target.close()
