"""Says why a camera sends what it sends, and what the ML service and the router make of its stream. Pure."""

from __future__ import annotations

from typing import Final

from watchout.common.why.answer import CameraNow, MlNow, StreamNow
from watchout.ctl.terminal import counted
from watchout.ctl.why.sentence import Sentence, fps, lasted, listed, per_second

#: A camera that sends fewer than this part of its highest rate sends less.
LESS: Final = 0.8
#: A window limits the rate when no more than this times the rate passes through it.
NEAR: Final = 1.3
#: Coverage from which nothing is said about frames that the ML service did not get.
COVERED: Final = 0.95

#: Why a bridge did not send frames to the service, in words.
SKIPPED: Final = {
    "replaced": "gave way to a newer one",
    "too_old": "waited too long",
    "away": "came while the service was away",
    "backed_off": "came while the service refused this stream's frames",
    "over_bytes": "had no room among those that wait",
    "dependent": "cannot be decoded by themselves",
}


def camera_sentence(camera: CameraNow, now: int) -> Sentence:
    """Return the sentence about one camera.

    Args:
        camera: What its gateway measured.
        now: The present time, in ms since the epoch.
    """
    cause, reason = _reason(camera, now)
    who = f"camera of {camera.stream} ({camera.user}, {camera.connection})"
    return Sentence(
        cause=cause,
        text=f"{who}: {fps(camera.fps)} fps: {reason}" if camera.fps else f"{who}: {reason}",
        subject=camera.connection,
        figures={
            "stream": camera.stream, "fps": camera.fps, "peakFps": camera.peak_fps, "frames": camera.frames,
            "limited": camera.limited, "window": camera.window, "demandFps": camera.demand_fps,
            "bytesPerS": None if camera.socket is None else camera.socket.received_per_s,
            "rttMs": None if camera.socket is None else camera.socket.rtt_ms, "roundTripMs": camera.round_trip_ms,
        },
    )  # fmt: skip


def _reason(camera: CameraNow, now: int) -> tuple[str, str]:
    if not camera.producing:
        return "no_video", "it registered without frames"
    rtt = max(camera.round_trip_ms, 0.0 if camera.socket is None else camera.socket.rtt_ms) / 1000
    if camera.limited_per_s:
        return "rate_limit", (
            f"{fps(camera.limited_per_s)} messages/s are over a rate and dropped (MESSAGE_RATE "
            f"{camera.message_rate:g}/s, BYTE_RATE {per_second(camera.byte_rate)})"
        )
    if camera.demand_fps == 0 and camera.fps < LESS * max(camera.peak_fps, 1):
        return "demand", "it was told that nobody watches, so it need not send"
    if camera.fps == 0:
        last = camera.last_frame_at
        since = "since it registered" if last is None else f"for {lasted(max(0, now - last) / 1000)}"
        return "silent_camera", f"it sent no frame {since}"
    if camera.fps >= LESS * camera.peak_fps:
        most = max(camera.fps, camera.peak_fps)
        return "camera_rate", f"as many as ever since it registered (at most {fps(most)})"
    best = f"at its best it sent {fps(camera.peak_fps)}"
    if camera.demand_fps is not None and camera.demand_fps <= camera.fps * NEAR:
        return "demand", f"it was asked for {fps(camera.demand_fps)}, the most that anybody wants; {best}"
    if camera.window is not None and rtt > 0 and camera.window / rtt <= camera.fps * NEAR:
        return "camera_window", (
            f"its window of {counted(camera.window, 'frame')} and a round trip of {lasted(rtt)} permit no more; {best}"
        )
    came = "" if camera.socket is None else f" ({per_second(camera.socket.received_per_s)} come from it)"
    return "camera_sends_less", f"it sends less by itself, or its uplink carries no more{came}; {best}"


def ml_sentence(ml: MlNow, bridge: str) -> Sentence:
    """Return the sentence about how the ML service gets a stream.

    Args:
        ml: What the bridge knows.
        bridge: Its name.
    """
    cause, reason = _ml_reason(ml)
    text = f"ML service {ml.service} ({bridge}) looked at {ml.stream} in {ml.coverage:.0%} of the last minute: {reason}"
    if ml.fallback:
        text += "; it is the fallback (ML_FALLBACK_URL)"
    return Sentence(
        cause=cause,
        text=text,
        subject=ml.stream,
        figures={
            "stream": ml.stream, "coverage": ml.coverage, "offered": ml.offered, "sent": ml.sent,
            "answered": ml.answered, "failures": ml.failed, "latencyMs": ml.latency_ms, "circuit": ml.circuit,
            **{f"skipped.{name}": count for name, count in ml.skipped.items()},
        },
    )  # fmt: skip


def _ml_reason(ml: MlNow) -> tuple[str, str]:
    if ml.circuit != "closed":
        return "ml_away", f"it fails, so frames are not sent until a probe gets an answer (circuit {ml.circuit})"
    if ml.refuses:
        return "ml_refuses", "it refuses the frames of this stream, which are sent less often now"
    skipped = _skipped(ml)
    if ml.coverage >= COVERED:
        return "ml_all", f"{ml.answered} of {ml.offered} frames, at most {fps(ml.max_fps)} per second (ML_FPS){skipped}"
    if not ml.sent:
        return "ml_waits", f"no frame was sent to it yet{skipped}"
    if ml.failed > ml.answered:
        return "ml_fails", f"{counted(ml.failed, 'request')} of {ml.sent} failed{skipped}"
    if ml.in_flight >= max(1, ml.in_flight_limit) or ml.skipped.get("too_old"):
        return "ml_backlog", (
            f"it is behind: {counted(ml.in_flight, 'request')} of at most {ml.in_flight_limit} are under way, each "
            f"takes {lasted(ml.latency_ms / 1000)}{skipped}"
        )
    return "ml_partly", f"{ml.answered} of {ml.offered} frames{skipped}"


def _skipped(ml: MlNow) -> str:
    parts = [f"{count} {SKIPPED.get(name, name)}" for name, count in sorted(ml.skipped.items(), key=lambda i: -i[1])]
    return f"; of the others {listed(parts)}" if parts else ""


def stream_sentence(stream: StreamNow, now: int) -> Sentence:
    """Return the sentence about what the router knows of a stream.

    Args:
        stream: What it knows.
        now: The present time, in ms since the epoch.
    """
    viewers = f"{counted(stream.viewers, 'viewer')} with frames, {stream.alert_viewers} with alerts"
    if stream.gateway:
        since = lasted(max(0, now - stream.started_at) / 1000)
        text = f"{stream.stream} is {stream.status} at {stream.gateway} since {since}, of user {stream.user}: {viewers}"
        cause = "streaming" if stream.status == "streaming" else "silent_camera"
    elif stream.reserved_s:
        text = (
            f"{stream.stream} has no camera now; its id is kept for user {stream.user} for {lasted(stream.reserved_s)}"
        )
        cause = "offline"
    else:
        text = f"{stream.stream} has no camera, and {viewers} wait for it"
        cause = "offline"
    return Sentence(
        cause=cause, text=text, subject=stream.stream,
        figures={"fps": stream.fps, "frames": stream.frames, "viewers": stream.viewers, "user": stream.user},
    )  # fmt: skip
