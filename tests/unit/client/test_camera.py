"""A camera: registration, window, alerts and demand of `CameraCore`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.client_core import CoreRun
from watchout.client.camera_core import ACK_PATIENCE_S, MAX_ALERTS, CameraOptions
from watchout.client.errors import Refused, TakenOver, Unauthorized
from watchout.client.events import Alert, Demand


def camera(*, echoes: bool = True, registered: bool = True, **options: object) -> CoreRun:
    options.setdefault("stream_id", "cam")
    run = CoreRun(camera=CameraOptions(**options), echoes=echoes)  # type: ignore[arg-type]
    run.do(run.core.start())
    run.sign_in()
    if registered:
        run.answer(streamId=options["stream_id"] or "stream_1")
    return run


def sent(run: CoreRun, *timestamps: int) -> None:
    for at in timestamps:
        run.core.on_sent(at, run.now)


def test_a_camera_registers_with_window_and_info() -> None:
    run = camera(registered=False, window=3, info={"deviceName": "pi"})
    assert run.sent[-1] == {
        "type": "register", "clientType": "mobile", "streamId": "cam", "produces": ["video-frame", "alert"],
        "consumes": ["alert", "demand"], "window": 3, "info": {"deviceName": "pi"}, "requestId": "2",
    }  # fmt: skip
    assert not run.core.has_room
    run.answer()
    assert run.core.has_room


def test_the_id_that_the_gateway_made_is_kept_after_a_reconnect() -> None:
    run = camera(stream_id=None)
    assert run.core.stream_id == "stream_1"
    run.close(1012)
    assert not run.core.registered
    run.until(10)
    run.sign_in()
    assert run.sent[-1]["streamId"] == "stream_1"


def test_the_address_names_the_stream_as_soon_as_it_is_known() -> None:
    assert camera(stream_id="door:1.a_B-2").core.target == "/streams/register?streamId=door:1.a_B-2"
    assert camera(stream_id=None, registered=False).core.target == "/streams/register"
    assert camera(stream_id=None).core.target == "/streams/register?streamId=stream_1"


def test_at_most_a_window_of_frames_is_under_way() -> None:
    run = camera(window=2)
    sent(run, 10)
    assert not run.core.has_room, "of this uplink nothing is known yet"
    run.say("ack", streamId="cam", frameId=1, timestamp=10)
    sent(run, 15)
    assert run.core.has_room
    sent(run, 20)
    assert not run.core.has_room
    run.say("ack", streamId="cam", frameId=2, timestamp=15)
    assert (run.core.has_room, run.core.under_way) == (True, 1)
    sent(run, 30)
    run.say("ack", streamId="cam", frameId=3, timestamp=30)
    assert run.core.under_way == 0, "it acknowledges all up to it"
    run.say("ack", streamId="cam", frameId=9, timestamp=99)
    assert run.core.under_way == 0


def test_on_a_slow_uplink_one_frame_is_under_way_until_one_was_quick() -> None:
    run = camera(window=2)
    sent(run, 10, 20)
    run.until(0.7)
    run.say("ack", streamId="cam", frameId=1, timestamp=10)
    run.until(0.9)
    run.say("ack", streamId="cam", frameId=2, timestamp=20)
    sent(run, 30)
    assert not run.core.has_room, "the first one took longer than 0.6 s"
    run.until(1.3)
    run.say("ack", streamId="cam", frameId=3, timestamp=30)
    sent(run, 40)
    assert not run.core.has_room, "0.4 s is not quick"
    run.until(1.4)
    run.say("ack", streamId="cam", frameId=4, timestamp=40)
    sent(run, 50)
    assert run.core.has_room


def test_two_frames_of_one_millisecond_do_not_stop_it() -> None:
    run = camera(window=2)
    sent(run, 10, 10)
    run.say("ack", streamId="cam", frameId=2, timestamp=10)
    assert run.core.under_way == 0


@pytest.mark.parametrize("code", ["RATE_LIMITED", "INVALID_MESSAGE"])
def test_a_refused_frame_makes_room(code: str) -> None:
    run = camera(window=1)
    sent(run, 10)
    run.say("error", code=code, message="too many frames", streamId="cam")
    assert run.core.has_room
    assert run.reports[-1].code == code


def test_acknowledgements_that_never_come_slow_it_down_and_do_not_stop_it() -> None:
    run = camera(window=2)
    sent(run, 10)
    run.keep(ACK_PATIENCE_S - 0.1)
    assert not run.core.has_room
    run.until(ACK_PATIENCE_S + 0.1)
    assert run.core.has_room


def test_a_gateway_that_does_not_acknowledge_is_not_waited_for() -> None:
    run = camera(window=1, echoes=False)
    sent(run, *range(100))
    assert run.core.has_room


def test_a_new_connection_begins_with_an_empty_window() -> None:
    run = camera(window=1)
    sent(run, 10)
    run.close(None)
    run.until(10)
    run.sign_in()
    run.answer()
    assert run.core.has_room


def test_a_router_that_is_away_is_asked_again_on_the_same_socket() -> None:
    run = camera(registered=False)
    run.answer(error="ROUTING_ERROR")
    run.until(1.1)
    assert len(run.of("register")) == 2
    run.answer()
    assert (run.core.registered, run.opened) == (True, 1)


@pytest.mark.parametrize("code", ["UNAUTHORIZED", "INVALID_MESSAGE"])
def test_a_refused_registration_ends_it(code: str) -> None:
    run = camera(registered=False)
    run.answer(error=code)
    assert isinstance(run.core.error, Unauthorized if code == "UNAUTHORIZED" else Refused)
    run.until(1000)
    assert run.opened == 1


def test_a_take_over_ends_it() -> None:
    run = camera()
    run.say("error", code="STREAM_TAKEN_OVER", message="another socket registered it")
    run.close(4501)
    assert isinstance(run.core.error, TakenOver)


def test_the_demand_is_told_and_forgotten_with_the_connection() -> None:
    run = camera()
    run.say("demand", streamId="cam", viewers=2, fps=7.5)
    assert run.core.demand == Demand(viewers=2, fps=7.5)
    assert run.reports == [Demand(viewers=2, fps=7.5)]
    run.close(None)
    assert run.core.demand is None


def raise_alert(run: CoreRun, name: str = "p1") -> int:
    key, commands = run.core.raise_alert({"id": name, "severity": "high", "message": "help"}, run.now)
    run.do(commands)
    return int(key)


def test_an_alert_is_confirmed_by_its_answer_or_by_its_own_return() -> None:
    run = camera()
    first = raise_alert(run, "p1")
    run.answer(run.of("alert")[0])
    assert run.done == {first: None}
    second = raise_alert(run, "p2")
    run.say("alert", id="p2", streamId="cam", severity="high", message="help")
    assert run.done[second] is None
    assert isinstance(run.reports[-1], Alert)


@pytest.mark.parametrize("echoes", [True, False])
def test_a_refused_alert_is_an_error(echoes: bool) -> None:
    run = camera(echoes=echoes)
    key = raise_alert(run)
    run.answer(run.of("alert")[0], error="UNAUTHORIZED")
    assert isinstance(run.done[key], Unauthorized)
    assert run.core.error is None


def test_an_alert_that_was_not_confirmed_is_sent_again_with_its_id() -> None:
    run = camera()
    key = raise_alert(run)
    run.close(None)
    run.until(10)
    run.sign_in()
    run.answer()
    first, second = run.of("alert")
    assert first["id"] == second["id"] == "p1"
    run.answer(second)
    assert run.done == {key: None}
    run.close(None)
    run.until(40)
    run.sign_in()
    run.answer()
    assert len(run.of("alert")) == 2


def test_alerts_that_wait_are_bounded() -> None:
    run = camera(registered=False)
    keys = [raise_alert(run, f"p{number}") for number in range(MAX_ALERTS + 1)]
    assert isinstance(run.done[keys[-1]], Refused)
    assert len(run.done) == 1


@given(st.lists(st.sampled_from(["send", "ack", "lose", "refuse", "wait"]), max_size=60), st.integers(1, 4))
def test_the_window_is_kept_and_never_stops_for_good(events: list[str], window: int) -> None:
    run = camera(window=window)
    at, under_way = 0, []
    for event in events:
        if event == "send" and run.core.has_room:
            at += 1
            sent(run, at)
            under_way.append(at)
        elif event == "ack" and under_way:
            run.say("ack", streamId="cam", frameId=1, timestamp=under_way.pop(0))
        elif event == "refuse":
            run.say("error", code="RATE_LIMITED", message="m", streamId="cam")
        elif event == "wait":
            run.keep(run.now + 4)
        elif event == "lose":
            run.close(None)
            under_way.clear()
            run.until(run.now + 31)
            run.sign_in()
            run.answer()
        assert run.core.under_way <= window
    run.keep(run.now + 11 * window)
    assert run.core.has_room
