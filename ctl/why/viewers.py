"""Says why a viewer gets the frames that it gets: which cause took how many of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from watchout.common.why.answer import SocketNow, ViewNow
from watchout.ctl.terminal import counted, size
from watchout.ctl.why.sentence import Figure, Sentence, fps, lasted, per_second

#: A viewer lacks frames when it gets fewer than this part of them, and at least `LACK_FPS` fewer.
LACK_SHARE: Final = 0.95
LACK_FPS: Final = 0.5
#: Share of the time without room announced by the peer from which the client is said not to read.
NOT_READING: Final = 0.3


def view_sentence(view: ViewNow) -> Sentence:
    """Return the sentence about one viewer's subscription.

    Args:
        view: What its gateway measured.
    """
    cause, reason = _reason(view)
    who = f"{view.connection or 'a viewer'} ({view.user}) of {view.stream}"
    text = f"{who}: {_rates(view)}: {reason}" if _has_rates(view) else f"{who}: {reason}"
    return Sentence(cause=cause, text=f"{text}; {_alerts(view)}", subject=view.connection, figures=_figures(view))


def _has_rates(view: ViewNow) -> bool:
    return view.video and view.status == "streaming" and view.camera_fps > 0


def _rates(view: ViewNow) -> str:
    return f"{fps(view.fps)} of {fps(view.camera_fps)} fps"


def _figures(view: ViewNow) -> dict[str, Figure]:
    figures: dict[str, Figure] = {
        "stream": view.stream,
        "fps": view.fps,
        "cameraFps": view.camera_fps,
        "arrivedFps": view.arrived_fps,
        "seconds": view.seconds,
        "frames": view.frames,
        "alertsTold": view.alerts_told,
        "messagesWaiting": view.messages_waiting,
    }
    for reason, rate in view.dropped.items():
        figures[f"dropped.{reason}"] = rate
    for reason, count in view.dropped_total.items():
        figures[f"droppedTotal.{reason}"] = count
    if view.socket is not None:
        figures |= {"bytesPerS": view.socket.bytes_per_s, "rttMs": view.socket.rtt_ms}
    return figures


def _reason(view: ViewNow) -> tuple[str, str]:
    """Return the cause in one word and as a clause: that which takes most of the frames."""
    if not view.video:
        return "hidden", "it asks for alerts only, as a hidden or paused view does, so it gets no frames"
    if view.status == "offline":
        return "offline", "the stream has no camera now"
    if view.status == "online":
        return "silent_camera", "the camera is connected and sends no frames"
    if view.camera_fps <= 0:
        return "silent_camera", f"no frame came from the camera for {lasted(view.seconds)}"
    if view.fps >= LACK_SHARE * view.camera_fps or view.camera_fps - view.fps < LACK_FPS:
        return "all", "it gets every frame that the camera sends"
    lost = {**view.dropped, "mesh": view.camera_fps - view.arrived_fps}
    if view.socket is not None and view.socket.blocked and view.fps == 0:
        return _slow(view, view.socket)
    most = max(lost, key=lambda reason: lost[reason])
    if most == "slow":
        return _slow(view, view.socket)
    return _REASONS.get(most, _unknown)(view, lost[most])


def _slow(view: ViewNow, socket: SocketNow | None) -> tuple[str, str]:
    if socket is None:
        return "slow_socket", "its socket takes no more"
    if socket.bytes_per_s < 1000 and view.fps == 0:
        text = f"its socket took nothing for {lasted(view.seconds)}"
    else:
        text = f"its socket takes {per_second(socket.bytes_per_s)}"
        if view.fps > 0:
            text += f", and every frame would need {per_second(socket.bytes_per_s / view.fps * view.camera_fps)}"
    if socket.waits_for_peer >= NOT_READING:
        return "not_reading", f"{text}, because the client does not read ({socket.waits_for_peer:.0%} of the time)"
    return "slow_socket", f"{text} (round trip {lasted(socket.rtt_ms / 1000)})" if socket.rtt_ms else text


def _window(view: ViewNow, _rate: float) -> tuple[str, str]:
    window = "" if view.window is None else f" of {counted(view.window, 'frame')}"
    trip = (
        ""
        if view.socket is None or not view.socket.rtt_ms
        else f", with a round trip of {lasted(view.socket.rtt_ms / 1000)}"
    )
    return "window", f"it acknowledges too late: its window{window} is full{trip}"


def _maximum(view: ViewNow, _rate: float) -> tuple[str, str]:
    asked = "fewer" if view.max_fps is None else f"at most {fps(view.max_fps)}"
    return "asked_rate", f"it asked for {asked} (maxFps)"


def _mesh(view: ViewNow, rate: float) -> tuple[str, str]:
    if view.max_fps is not None and view.arrived_fps >= view.max_fps * 0.8:
        return _maximum(view, rate)
    return "mesh", (
        f"{fps(view.arrived_fps)} reach its gateway: on the link from the camera's gateway newer frames take the place "
        "of older ones, as it carries no more, or all viewers there asked for fewer"
    )


def _undecodable(_view: ViewNow, _rate: float) -> tuple[str, str]:
    return "undecodable", "the others are no pictures that can be decoded, or need a frame that was dropped"


def _codec(_view: ViewNow, _rate: float) -> tuple[str, str]:
    return "codec", "its reader does not accept pictures of their codec"


def _unknown(_view: ViewNow, _rate: float) -> tuple[str, str]:
    return "unknown", "why is not known"


_REASONS: Final = {
    "window": _window, "rate": _maximum, "mesh": _mesh, "undecodable": _undecodable, "codec": _codec,
}  # fmt: skip


def _alerts(view: ViewNow) -> str:
    if not view.alerts:
        return "it asked for no alerts"
    if view.messages_waiting:
        return (
            f"{counted(view.messages_waiting, 'message')} ({size(view.bytes_waiting)}), alerts among them, wait for it"
        )
    return "alerts unaffected"


def view_sentences(views: list[ViewNow]) -> Iterator[Sentence]:
    """Yield a sentence for each view, those that lack most frames first.

    Args:
        views: What the gateways measured.
    """
    for view in sorted(views, key=lambda each: (each.fps - each.camera_fps, each.connection)):
        yield view_sentence(view)
