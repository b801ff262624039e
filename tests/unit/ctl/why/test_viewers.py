"""Of each viewer the cause that takes most of its frames is named, with figures."""

from __future__ import annotations

from typing import Any

import pytest

from watchout.common.why.answer import SocketNow, ViewNow
from watchout.ctl.why.viewers import view_sentence, view_sentences

SLOW = SocketNow(bytes_per_s=600_000, rtt_ms=40, waits_for_peer=0.05)


def view(**fields: Any) -> ViewNow:
    given = {
        "connection": "gw/1.2", "stream": "cam", "user": "ann", "seconds": 2.0, "status": "streaming",
        "camera_fps": 30.0, "arrived_fps": 30.0, "fps": 11.0, "socket": SLOW,
    }  # fmt: skip
    return ViewNow(**{**given, **fields})


@pytest.mark.parametrize(
    ("fields", "cause", "said"),
    [
        (
            {"dropped": {"slow": 19.0}}, "slow_socket",
            ("gw/1.2 (ann) of cam: 11 of 30 fps: its socket takes 0.6 MB/s, and every frame would need 1.6 MB/s (round "
            "trip 40 ms); alerts unaffected"),
        ),
        (
            {"dropped": {"slow": 19.0}, "socket": SocketNow(bytes_per_s=600_000, waits_for_peer=0.8)}, "not_reading",
            "because the client does not read (80% of the time); alerts unaffected",
        ),
        (
            {"fps": 0.0, "dropped": {"slow": 30.0}, "socket": SocketNow(blocked=True)}, "slow_socket",
            "0 of 30 fps: its socket took nothing for 2.0 s; alerts unaffected",
        ),
        (
            {"fps": 0.0, "dropped": {}, "socket": SocketNow(blocked=True, waits_for_peer=1.0)}, "not_reading",
            "0 of 30 fps: its socket took nothing for 2.0 s, because the client does not read (100% of the time)",
        ),
        ({"dropped": {"slow": 19.0}, "socket": None}, "slow_socket", "11 of 30 fps: its socket takes no more;"),
        (
            {"dropped": {"window": 19.0}, "window": 2, "unacknowledged": 2}, "window",
            "it acknowledges too late: its window of 2 frames is full, with a round trip of 40 ms;",
        ),
        ({"dropped": {"window": 19.0}, "socket": None}, "window", "it acknowledges too late: its window is full;"),
        ({"dropped": {"rate": 19.0}, "max_fps": 11.0}, "asked_rate", "it asked for at most 11 (maxFps);"),
        ({"dropped": {"rate": 19.0}}, "asked_rate", "it asked for fewer (maxFps);"),
        ({"arrived_fps": 11.0}, "mesh", "11 of 30 fps: 11 reach its gateway: on the link from the camera's gateway"),
        ({"arrived_fps": 11.0, "max_fps": 12.0}, "asked_rate", "it asked for at most 12 (maxFps);"),
        ({"arrived_fps": 11.0, "max_fps": 25.0}, "mesh", "11 reach its gateway"),
        ({"dropped": {"undecodable": 19.0}}, "undecodable", "the others are no pictures that can be decoded"),
        ({"dropped": {"codec": 19.0}}, "codec", "its reader does not accept pictures of their codec"),
        ({"dropped": {"of a later release": 19.0}}, "unknown", "why is not known"),
        ({"dropped": {"slow": 4.0, "rate": 15.0}, "max_fps": 11.0}, "asked_rate", "it asked for at most 11"),
        ({"dropped": {"slow": 15.0, "rate": 4.0}, "max_fps": 11.0}, "slow_socket", "its socket takes 0.6 MB/s"),
        ({"fps": 30.0}, "all", "30 of 30 fps: it gets every frame that the camera sends; alerts unaffected"),
        ({"fps": 29.0, "dropped": {"slow": 1.0}}, "all", "29 of 30 fps: it gets every frame"),
        ({"fps": 0.6, "camera_fps": 1.0}, "all", "0.6 of 1 fps: it gets every frame"),
        ({"video": False}, "hidden", "gw/1.2 (ann) of cam: it asks for alerts only, as a hidden or paused view does"),
        ({"status": "offline", "camera_fps": 0.0}, "offline", "(ann) of cam: the stream has no camera now"),
        ({"status": "online", "camera_fps": 0.0}, "silent_camera", "the camera is connected and sends no frames"),
        ({"camera_fps": 0.0, "fps": 0.0}, "silent_camera", "no frame came from the camera for 2.0 s"),
        ({"fps": 30.0, "alerts": False}, "all", "; it asked for no alerts"),
        (
            {"fps": 30.0, "messages_waiting": 23, "bytes_waiting": 5200}, "all",
            "; 23 messages (5.2 kB), alerts among them, wait for it",
        ),
        ({"connection": "", "fps": 30.0}, "all", "a viewer (ann) of cam: 30 of 30 fps"),
    ],
)  # fmt: skip
def test_each_cause_has_its_sentence(fields: dict[str, Any], cause: str, said: str) -> None:
    found = view_sentence(view(**fields))
    assert (found.cause, said in found.text) == (cause, True), found
    assert found.at is None


def test_the_figures_are_those_of_the_measurement() -> None:
    found = view_sentence(view(dropped={"slow": 19.0}, dropped_total={"slow": 700}, frames=400, alerts_told=3))
    assert found.figures == {
        "stream": "cam", "fps": 11.0, "cameraFps": 30.0, "arrivedFps": 30.0, "seconds": 2.0, "frames": 400,
        "alertsTold": 3, "messagesWaiting": 0, "dropped.slow": 19.0, "droppedTotal.slow": 700, "bytesPerS": 600_000,
        "rttMs": 40,
    }  # fmt: skip


def test_those_that_lack_most_frames_come_first() -> None:
    views = [view(connection="all", fps=30.0), view(connection="most", fps=2.0), view(connection="some", fps=20.0)]
    assert [each.subject for each in view_sentences(views)] == ["most", "some", "all"]
