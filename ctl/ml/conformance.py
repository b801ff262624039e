"""The verdicts of ``watchout-ctl ml check``: what the service returned, what was expected, the remedy. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from watchout.common.alerts.model import MAX_ALERTS, AlertFault, check_draft
from watchout.common.media.frames import Frame
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.ml.report import quantile
from watchout.ctl.terminal import counted, printable, size
from watchout.mlbridge.targets import UnusableResult
from watchout.mlbridge.targets.results import beginning, read_result

#: Names of the checks, in the order in which they are shown.
CHECKS: Final = (
    "reachable", "answers", "json", "alerts", "frame-ids", "unknown-field", "two-at-once", "garbage", "large-frame",
    "answer-size", "keep-alive", "load",
)  # fmt: skip
#: Bytes of a response over which `of_size` warns, since one is read for every frame.
GOOD_ANSWER_BYTES: Final = 64 << 10
#: Timestamps below this are before 2001 as ms; most are seconds by mistake.
LEAST_MS: Final = 1_000_000_000_000
#: Largest difference between the times of an alert and its frame, in ms.
FAR_MS: Final = 60_000
_SHOWN: Final = 200

_FIELD_REMEDIES: Final = {
    "severity": 'Write "severity" as one of low, medium, high, critical.',
    "message": 'Write "message" as text of 1 to 4096 characters.',
    "type": 'Leave "type" out, or write "alert".',
    "streamId": 'Leave "streamId" out, or write that of the frame.',
    "timestamp": 'Leave "timestamp" out, or write whole milliseconds since 1970: int(time.time() * 1000).',
    "frameId": 'Leave "frameId" out, or write that of the frame, as a whole number.',
    "id": 'Leave "id" out, or write text of 1 to 128 printable ASCII characters without spaces.',
    "metadata": 'Leave "metadata" out, or write a JSON object of at most 16 KiB without NaN or Infinity.',
}
_STATUS_REMEDIES: Final = {
    400: 'Read the frame as docs/schemas/frame.json has it: the picture is base64 in "frame".',
    401: "Give what it wants to see with the URL or ML_HEADERS.",
    403: "Give what it wants to see with the URL or ML_HEADERS.",
    404: "Serve POST /analyze, or put the path before it into the URL: http://host/v1 is asked at /v1/analyze.",
    405: "Answer POST at this path.",
    411: "Take a body without a length or of any length.",
    413: "Raise the limit of the body's size.",
    415: "Take Content-Type application/json (image/jpeg where frames go as raw pictures).",
    422: "Read the frame as docs/schemas/frame.json has it, and pass over fields that you do not know.",
    429: "Take more frames, or lower ML_FPS and ML_IN_FLIGHT.",
    503: "Start the model before the port, so that nobody is refused.",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the service returned for one frame. Made by the probes of `watchout.ctl.ml.probes`.

    Attributes:
        frame: the frame that was sent.
        ms: time until the result or the failure, in ms.
        fault: why there is no result; empty: there is one.
        late: the deadline passed.
        values: the alerts in the result, not checked.
        alert_fault: why the list of alerts was refused; empty: it was not.
        status: status of the HTTP response; None over other kinds of targets, as the next ones.
        content_type: its media type.
        body: its body; empty when it is larger than mlbridge reads.
        decoded: its decoded body.
        is_json: whether the body is JSON.
        reused: whether the request used a connection that was open before.
    """

    frame: Frame
    ms: float
    fault: str = ""
    late: bool = False
    values: tuple[object, ...] = ()
    alert_fault: str = ""
    status: int | None = None
    content_type: str = ""
    body: bytes = b""
    decoded: object = None
    is_json: bool = True
    reused: bool | None = None

    @property
    def accepted(self) -> bool:
        """Whether mlbridge would count the frame as analysed."""
        return not self.fault and (self.status is None or 200 <= self.status < 300)

    @property
    def unusable(self) -> str:
        """Why a response over HTTP is no result; empty: it is one."""
        if not self.accepted or self.status is None:
            return ""
        if not self.is_json:
            return f"no JSON: {beginning(self.body)}"
        try:
            read_result(self.decoded)
        except UnusableResult as fault:
            return str(fault)
        except AlertFault:
            pass  # reported with the alerts
        return ""

    @property
    def says(self) -> str:
        """What the service returned, as part of a sentence."""
        if self.fault:
            return f"no usable answer ({self.fault})"
        if self.status is None:
            return "it was taken"
        text = printable(self.body[:_SHOWN].decode("utf-8", "replace").strip())
        return f"status {self.status}{f' with {text!r}' if text and not self.accepted else ''}"


def of_answer(result: ProbeResult, timeout_s: float) -> Finding:
    """Check that a valid frame has a result in time."""
    if result.accepted:
        return ok("answers", f"A valid frame was answered in {result.ms:.0f} ms.", ms=round(result.ms, 1))
    if result.late:
        return wrong(
            "answers", f"A valid frame got {result.says}, expected a whole answer within {timeout_s:g} s.",
            "Answer sooner (a model that is slow to load: before the port opens), or raise ML_TIMEOUT_S.",
        )  # fmt: skip
    return wrong("answers", f"A valid frame got {result.says}, expected a status of 2xx.", _remedy_of(result))


def _remedy_of(result: ProbeResult) -> str:
    status = result.status or 0
    if 300 <= status < 400:
        return "Give the URL that it leads to: redirects are not followed."
    return _STATUS_REMEDIES.get(status) or ("Look into the log of the service." if status >= 500 or not status else "")


def of_json(result: ProbeResult) -> Finding:
    """Check that mlbridge can read the body of a successful response."""
    if result.unusable:
        what = f"no answer: {result.unusable}"
        remedy = "Answer with {} when there is no alert, and a status that is not 2xx for what failed."
        if not result.is_json:
            what = result.unusable
        elif isinstance(result.decoded, list):
            what = "a list, expected an object"
            remedy = 'Answer {"alerts":[…]}.'
        elif isinstance(result.decoded, dict) and "severity" in result.decoded:
            what = "itself an alert, expected an object around it"
            remedy = 'Answer {"alert":{…}}.'
        elif isinstance(result.decoded, dict) and not result.decoded.get("error"):
            remedy = 'Add "alerts":[…], empty when there are none: what your model found is for you to judge.'
        return wrong("json", f"The answer is {what}. Such frames do not count as analysed.", remedy)
    if result.body and result.content_type != "application/json":
        return warning(
            "json", f"The answer is a JSON object, its Content-Type is {printable(result.content_type)!r}.",
            "Send application/json: proxies and logs believe it.",
        )  # fmt: skip
    return ok("json", "The answer is a JSON object." if result.body else f"Status {result.status} means no alert.")


def of_alerts(results: Sequence[ProbeResult], *, heard: Sequence[object], pictures: int) -> list[Finding]:
    """Check the alerts.

    Args:
        results: results of all frames.
        heard: alerts that belong to no frame.
        pictures: number of pictures that the user gave and expects alerts for.
    """
    found: dict[str, Finding] = {}
    count = 0
    for frame, value in _with_frames(results, heard):
        count += 1
        for finding in _of_alert(value, frame):
            found.setdefault(finding.says, finding)
    for result in results:
        if result.alert_fault:
            text = f"The answer to {_name(result.frame)} was refused: {result.alert_fault}."
            found.setdefault(text, wrong("alerts", text, f'Answer {{"alerts":[…]}} with at most {MAX_ALERTS} of them.'))
    if found:
        return list(found.values())[:20]
    if count:
        return [ok("alerts", f"{counted(count, 'alert')} came, and all fit.", alerts=count)]
    if pictures:
        text = (
            f"No alert came for {'the picture' if pictures == 1 else f'any of the {pictures} pictures'} of --picture."
        )
        remedy = "If there should be one: a detector of motion needs several pictures, in their order."
        return [warning("alerts", text, remedy)]
    text = "No alert came for the drawn picture: whether alerts fit is not known."
    return [warning("alerts", text, "Give pictures on which it should alert with --picture.")]


def _of_alert(value: object, frame: Frame | None) -> list[Finding]:
    if isinstance(value, str) and frame is None:  # a target's word on a message that could not be read
        return [wrong("alerts", f"A message was refused: {value}.", "Send an alert, or a list of them.")]
    try:
        draft = check_draft(value)
    except AlertFault as fault:
        return [wrong("alerts", f"An alert was refused: {fault}.", _alert_remedy(str(fault)))]
    found = []
    if frame is None and draft.stream_id is None:
        text = "An alert that came by itself has no streamId, and is refused."
        found.append(wrong("alerts", text, "Copy streamId, frameId and timestamp from the frame into the alert."))
    if draft.timestamp is not None and draft.timestamp < LEAST_MS:
        text = f"An alert's timestamp is {draft.timestamp}, which is in 1970 to 2001 as milliseconds."
        found.append(wrong("alerts", text, _FIELD_REMEDIES["timestamp"]))
    elif draft.timestamp is not None and frame is not None and abs(draft.timestamp - frame.timestamp) > FAR_MS:
        text = f"An alert's timestamp is {abs(draft.timestamp - frame.timestamp) / 1000:.0f} s from that of its frame."
        found.append(warning("alerts", text, "Leave it out: the frame's is taken."))
    found += _of_metadata(draft.metadata or {})
    return found


def _of_metadata(metadata: dict[str, Any]) -> list[Finding]:
    found = []
    confidence = metadata.get("confidence")
    if confidence is not None and not _is_share(confidence):
        text = f"An alert's metadata.confidence is {printable(confidence)[:_SHOWN]}, expected a number from 0 to 1."
        found.append(warning("alerts", text, "Viewers show it as a share of 1."))
    location = metadata.get("location")
    if location is not None and not (isinstance(location, dict) and _is_share(location.get("x"), location.get("y"))):
        text = f"An alert's metadata.location is {printable(location)[:_SHOWN]}, expected x and y from 0 to 1."
        found.append(warning("alerts", text, "Divide pixels by the picture's width and height."))
    return found


def _is_share(*values: object) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in values)


def _alert_remedy(reason: str) -> str:
    named = re.search(r"\$\.(\w+)|field `(\w+)`|^(metadata)", reason)
    name = next((group for group in named.groups() if group), "") if named else ""
    return _FIELD_REMEDIES.get(name, "See docs/schemas/alert.json.")


def of_frame_ids(results: Sequence[ProbeResult], *, heard: Sequence[object]) -> list[Finding]:
    """Check that alerts name streams and frames that were sent, and the frame of the result that holds them."""
    shown = {(result.frame.stream_id, result.frame.frame_id) for result in results}
    streams = {stream for stream, _ in shown}
    foreign: dict[str, Finding] = {}
    count = 0
    for frame, value in _with_frames(results, heard):
        if not isinstance(value, dict):
            continue
        stream = value.get("streamId", None if frame is None else frame.stream_id)
        number = value.get("frameId")
        count += 1
        if stream is not None and stream not in streams:
            text = f"An alert names the stream {printable(stream)!r}, which it was never shown."
            foreign.setdefault(text, wrong("frame-ids", text, _FIELD_REMEDIES["streamId"]))
        elif number is not None and (stream, number) not in shown:
            text = f"An alert names frame {printable(number)} of {printable(stream)}, which it was never shown."
            foreign.setdefault(text, wrong("frame-ids", text, _FIELD_REMEDIES["frameId"]))
        elif frame is not None and stream != frame.stream_id:
            text = f"The answer to {_name(frame)} holds an alert of stream {printable(stream)}: answers were mixed up."
            foreign.setdefault(text, wrong("frame-ids", text, "Keep what belongs to a request apart from others."))
        elif frame is not None and number is not None and number != frame.frame_id:
            text = f"The answer to {_name(frame)} holds an alert of frame {printable(number)}."
            remedy = "That is right when the event began then; else answers were mixed up."
            foreign.setdefault("another frame", warning("frame-ids", text, remedy))
    if foreign:
        return list(foreign.values())[:20]
    if count:
        return [ok("frame-ids", f"Every alert is of the frame that it answers ({count}).")]
    return [ok("frame-ids", "No alert names a frame that was not shown; none came.")]


def of_unknown_field(result: ProbeResult) -> Finding:
    """Check that a frame with an unknown field is accepted."""
    if result.accepted:
        return ok("unknown-field", "A frame with an unknown field was answered.")
    return wrong(
        "unknown-field", f"A frame with an unknown field got {result.says}, expected that the field is passed over.",
        "Allow unknown fields: watchout may add some.",
    )  # fmt: skip


def of_two(results: Sequence[ProbeResult], alone_ms: float) -> Finding:
    """Check that two frames of two streams, sent at once, both have a result."""
    failed = [result for result in results if not result.accepted]
    if failed:
        return wrong(
            "two-at-once", f"Of two frames at once, one got {failed[0].says}, expected that both are answered.",
            "Let the second wait for the first, or work on both.",
        )  # fmt: skip
    slower = max(result.ms for result in results)
    return ok("two-at-once", f"Two frames at once were answered in {slower:.0f} ms (one alone: {alone_ms:.0f} ms).")


def of_garbage(broken: Sequence[ProbeResult], after: ProbeResult, *, is_http: bool) -> Finding:
    """Check that a broken picture does not affect frames after it.

    Over HTTP a response is expected; other kinds may refuse a frame, but must not let mlbridge wait for its result.
    """
    if not after.accepted:
        return wrong(
            "garbage", f"After a broken picture a valid frame got {after.says}: the service is harmed.",
            "Catch what decoding raises; answer 400, or {}.",
        )  # fmt: skip
    if not is_http and any(result.late for result in broken):
        return warning(
            "garbage", "A broken picture got no answer in time: mlbridge waits for each answer, then connects anew.",
            'Answer it without alerts: {"streamId":…,"frameId":…,"alerts":[]}.',
        )  # fmt: skip
    silent = [result for result in broken if result.fault and is_http]
    if silent:
        return wrong(
            "garbage", f"A broken picture got {silent[0].says}, expected an answer of any status.",
            "Catch what decoding raises; answer 400, or {}.",
        )  # fmt: skip
    failed = [result for result in broken if (result.status or 0) >= 500]
    if failed:
        return warning(
            "garbage", f"A broken picture got {failed[0].says}: mlbridge takes the service for ill, and pauses.",
            "Answer {}: the next picture may be whole.",
        )  # fmt: skip
    return ok("garbage", "Broken pictures did no harm.")


def of_large(result: ProbeResult) -> Finding:
    """Check that a large picture is accepted."""
    told = f"A picture of {size(len(result.frame.picture))}"
    if result.accepted:
        return ok("large-frame", f"{told} was answered in {result.ms:.0f} ms.")
    remedy = "Raise the limit of the body's size (aiohttp: client_max_size; nginx: client_max_body_size)."
    return warning("large-frame", f"{told} got {result.says}: frames of good cameras would be lost.", remedy)


def of_size(results: Sequence[ProbeResult]) -> Finding:
    """Check that responses are small."""
    largest = max((len(result.body) for result in results if result.accepted), default=0)
    if largest > GOOD_ANSWER_BYTES:
        return warning(
            "answer-size", f"An answer has {size(largest)}: it is read for every frame.",
            "Leave out what is no alert (pictures, masks, boxes of nobody).",
        )  # fmt: skip
    return ok("answer-size", f"The largest answer has {size(largest)}.", bytes=largest)


def of_keep_alive(results: Sequence[ProbeResult]) -> Finding:
    """Check that connections are kept open between requests."""
    after = [result for result in results if result.reused is not None][1:]
    fresh = sum(not result.reused for result in after)
    if not fresh:
        return ok("keep-alive", f"One connection served {counted(len(after) + 1, 'request')}.")
    return warning(
        "keep-alive", f"{fresh} of {counted(len(after), 'request')} needed a new connection, expected that it lasts.",
        "Speak HTTP/1.1 with keep-alive: a new connection for each frame costs time, with TLS a lot.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The results of a load test of ``watchout-ctl ml check``: several streams at once, the frames of each one in
    order.

    Attributes:
        streams: number of streams.
        took_s: length of the test, in seconds.
        results: results of all frames.
    """

    streams: int
    took_s: float
    results: Sequence[ProbeResult] = field(default_factory=tuple)


def of_load(load: LoadResult, *, is_http: bool, ml_fps: float, max_age_s: float, timeout_s: float) -> Finding:
    """Judge a load test: rate, latency, failures. Services over other kinds than HTTP may refuse frames."""
    answered = sorted(result.ms for result in load.results if result.accepted)
    failed = [result for result in load.results if not result.accepted]
    paced = not is_http and any(not result.late for result in failed)
    rate = len(answered) / load.took_s if load.took_s > 0 else 0.0
    p50, p99 = quantile(answered, 0.5), quantile(answered, 0.99)
    facts = {"fps": round(rate, 1), "p50Ms": round(p50, 1), "p99Ms": round(p99, 1), "failed": len(failed)}
    if paced:
        text = f"{load.streams} streams at once: it took {rate:.0f} frames per second, then no more ({failed[0].says})."
        return warning("load", text, "mlbridge sends less to such a service.", **facts)
    if failed:
        text = (
            f"With {load.streams} streams at once {len(failed)} of {counted(len(load.results), 'frame')} failed, "
            f"one of them with {failed[0].says}."
        )
        return wrong("load", text, "Let frames wait or answer sooner; mlbridge sends less to a slow service.", **facts)
    text = f"{load.streams} streams at once: {rate:.0f} frames per second, p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    if p99 > max_age_s * 1000:
        remedy = f"Alerts would be marked as stale (ML_MAX_AGE_S is {max_age_s:g}): make it faster, or raise that."
        return warning(
            "load", f"{text}, expected p99 below {max_age_s:g} s (deadline {timeout_s:g} s).", remedy, **facts
        )
    streams = int(rate / ml_fps)
    return ok("load", f"{text}; enough for {counted(streams, 'stream')} at ML_FPS={ml_fps:g}.", **facts)


def _with_frames(results: Iterable[ProbeResult], heard: Iterable[object]) -> list[tuple[Frame | None, object]]:
    return [(result.frame, value) for result in results for value in result.values] + [(None, value) for value in heard]


def _name(frame: Frame) -> str:
    return f"frame {frame.frame_id} of {frame.stream_id}"
