"""Of each camera, stream and ML service the cause of what is missing is named."""

from __future__ import annotations

from typing import Any

import pytest

from watchout.common.why.answer import CameraNow, MlNow, SocketNow, StreamNow
from watchout.ctl.why.cameras import camera_sentence, ml_sentence, stream_sentence

NOW = 1_000_000


def camera(**fields: Any) -> CameraNow:
    given = {
        "connection": "gw/1.1", "stream": "cam", "user": "ann", "seconds": 2.0, "status": "streaming", "fps": 4.0,
        "peak_fps": 30.0, "last_frame_at": NOW - 8000, "message_rate": 120.0, "byte_rate": 30e6,
        "socket": SocketNow(received_per_s=200_000, rtt_ms=250),
    }  # fmt: skip
    return CameraNow(**{**given, **fields})


@pytest.mark.parametrize(
    ("fields", "cause", "said"),
    [
        ({"fps": 29.0}, "camera_rate", "camera of cam (ann, gw/1.1): 29 fps: as many as ever since it registered (at"),
        ({"fps": 12.0, "peak_fps": 0.0}, "camera_rate", "(at most 12)"),
        (
            {}, "camera_sends_less",
            "4 fps: it sends less by itself, or its uplink carries no more (0.2 MB/s come from it); at its best it",
        ),
        ({"socket": None}, "camera_sends_less", "or its uplink carries no more; at its best"),
        ({"window": 1}, "camera_window", "its window of 1 frame and a round trip of 250 ms permit no more; at its"),
        ({"window": 8}, "camera_sends_less", "it sends less by itself"),
        ({"window": 1, "socket": None}, "camera_sends_less", "it sends less by itself"),
        ({"window": 1, "socket": None, "round_trip_ms": 300.0}, "camera_window", "and a round trip of 300 ms permit"),
        ({"window": 1, "round_trip_ms": 20.0}, "camera_window", "and a round trip of 250 ms permit"),
        ({"window": 8, "round_trip_ms": 2000.0}, "camera_window", "its window of 8 frames and a round trip of 2.0 s"),
        ({"demand_fps": 5.0}, "demand", "it was asked for 5, the most that anybody wants; at its best it sent 30"),
        ({"demand_fps": 30.0}, "camera_sends_less", "it sends less by itself"),
        ({"demand_fps": 0.0, "fps": 0.0}, "demand", "it was told that nobody watches, so it need not send"),
        (
            {"limited_per_s": 7.0, "window": 1}, "rate_limit",
            "7 messages/s are over a rate and dropped (MESSAGE_RATE 120/s, BYTE_RATE 30.0 MB/s)",
        ),
        ({"fps": 0.0}, "silent_camera", "camera of cam (ann, gw/1.1): it sent no frame for 8.0 s"),
        ({"fps": 0.0, "last_frame_at": None}, "silent_camera", "it sent no frame since it registered"),
        ({"producing": False, "fps": 0.0}, "no_video", "it registered without frames"),
    ],
)  # fmt: skip
def test_each_cause_of_a_camera_has_its_sentence(fields: dict[str, Any], cause: str, said: str) -> None:
    found = camera_sentence(camera(**fields), NOW)
    assert (found.cause, said in found.text) == (cause, True), found


def ml(**fields: Any) -> MlNow:
    given = {
        "stream": "cam", "service": "http://ml", "coverage": 0.4, "max_fps": 5.0, "offered": 500, "sent": 200,
        "answered": 200, "in_flight": 1, "in_flight_limit": 4, "latency_ms": 900.0,
    }  # fmt: skip
    return MlNow(**{**given, **fields})


@pytest.mark.parametrize(
    ("fields", "cause", "said"),
    [
        (
            {"in_flight": 4, "skipped": {"replaced": 290, "too_old": 10}}, "ml_backlog",
            ("ML service http://ml (bridge) looked at cam in 40% of the last minute: it is behind: 4 requests "
            "of at most 4 are under way, each takes 900 ms; of the others 290 gave way to a newer one, 10 waited too"),
        ),
        ({"skipped": {"too_old": 10}}, "ml_backlog", "it is behind"),
        ({"circuit": "open"}, "ml_away", "it fails, so frames are not sent until a probe gets an answer (circuit"),
        ({"circuit": "half-open", "in_flight": 9}, "ml_away", "(circuit half-open)"),
        ({"refuses": True}, "ml_refuses", "it refuses the frames of this stream, which are sent less often now"),
        ({"coverage": 1.0}, "ml_all", "200 of 500 frames, at most 5 per second (ML_FPS)"),
        ({"sent": 0}, "ml_waits", "no frame was sent to it yet"),
        ({"failed": 150, "answered": 50}, "ml_fails", "150 requests of 200 failed"),
        ({"skipped": {"away": 3}}, "ml_partly", "200 of 500 frames; of the others 3 came while the service was away"),
        ({"fallback": True}, "ml_partly", "; it is the fallback (ML_FALLBACK_URL)"),
        ({"skipped": {"of a later release": 3}}, "ml_partly", "3 of a later release"),
    ],
)  # fmt: skip
def test_each_cause_of_the_ml_service_has_its_sentence(fields: dict[str, Any], cause: str, said: str) -> None:
    found = ml_sentence(ml(**fields), "bridge")
    assert (found.cause, said in found.text) == (cause, True), found


def test_what_the_router_knows_of_a_stream_is_said() -> None:
    here = StreamNow(
        stream="cam", user="ann", status="streaming", gateway="gw", viewers=1, alert_viewers=2, started_at=NOW - 60_000
    )
    assert stream_sentence(here, NOW).text == (
        "cam is streaming at gw since 60 s, of user ann: 1 viewer with frames, 2 with alerts"
    )
    kept = StreamNow(stream="cam", user="ann", reserved_s=600_000)
    assert stream_sentence(kept, NOW).text == "cam has no camera now; its id is kept for user ann for 6.9 days"
    awaited = StreamNow(stream="cam", viewers=3)
    assert stream_sentence(awaited, NOW).text == (
        "cam has no camera, and 3 viewers with frames, 0 with alerts wait for it"
    )
    causes = [stream_sentence(each, NOW).cause for each in (here, kept, awaited)]
    assert causes == ["streaming", "offline", "offline"]
