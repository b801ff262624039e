"""Subscriptions of `ViewerCore`: asking, answers, loss and recovery of alerts, frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.client_core import SERVER_MS, CoreRun, online
from watchout.client.errors import Refused, Unauthorized
from watchout.client.events import Acknowledged, Alert, Frame, Recovery, Status
from watchout.client.inbox import MAX_REMEMBERED, MAX_WAITING, Inbox


def alerts_of(run: CoreRun, key: int) -> list[str]:
    return [event.id for event in run.take(key) if isinstance(event, Alert)]


def test_a_subscription_says_what_is_wanted() -> None:
    run = CoreRun()
    run.subscribe("cam", max_fps=5, window=3, alerts_since=77)
    run.sign_in()
    assert run.sent[1] == {
        "type": "subscribe", "clientType": "dashboard", "streamId": "cam", "consumes": ["video-frame", "alert"],
        "format": "binary", "maxFps": 5, "window": 3, "alertsSince": 77, "requestId": "2",
    }  # fmt: skip
    run.subscribe("door", frames=False)
    assert run.sent[2]["consumes"] == ["alert"]
    assert "maxFps" not in run.sent[2]


def test_all_subscriptions_share_one_socket_and_come_back_together() -> None:
    run = CoreRun()
    for name in ("a", "b", "c"):
        run.subscribe(name)
    run.sign_in()
    assert [each["streamId"] for each in run.of("subscribe")] == ["a", "b", "c"]
    for each in run.of("subscribe"):
        run.answer(each)
    run.close(1012)
    run.until(run.now + 10)
    run.sign_in()
    assert [each["streamId"] for each in run.of("subscribe")] == ["a", "b", "c"] * 2
    assert run.opened == 2


def test_the_address_names_the_stream_when_all_subscriptions_are_of_one() -> None:
    run = CoreRun()
    assert run.core.target == "/streams/subscribe"
    run.subscribe("cam:1")
    run.subscribe("cam:1", frames=False)
    assert run.core.target == "/streams/subscribe?streamId=cam:1"
    run.subscribe("door")
    assert run.core.target == "/streams/subscribe"


@pytest.mark.parametrize("echoes", [True, False])
def test_of_two_subscriptions_exactly_the_forbidden_one_fails(echoes: bool) -> None:
    run = CoreRun(echoes=echoes)
    mine, other = run.subscribe("mine"), run.subscribe("other")
    run.sign_in()
    if echoes:
        first, second = run.of("subscribe")
        run.answer(second, error="UNAUTHORIZED")  # the answers may come in any order
        run.answer(first)
    else:
        assert len(run.of("subscribe")) == 1, "one at a time, as the error will name nothing"
        run.answer(run.of("subscribe")[-1])
        run.answer(run.of("subscribe")[-1], error="UNAUTHORIZED")
    assert isinstance(run.core.subscriber(other).error, Unauthorized)
    assert run.core.subscriber(mine).confirmed
    assert run.core.subscriber(mine).error is None
    run.frame(1, "mine")
    assert isinstance(run.take(mine)[0], Frame)
    run.close(None)
    run.until(run.now + 10)
    run.sign_in()
    assert [each["streamId"] for each in run.of("subscribe")][2:] == ["mine"]


def test_a_permission_that_ends_ends_that_subscription() -> None:
    run = online()
    other = run.subscribe("other")
    run.answer()
    run.say("error", code="UNAUTHORIZED", message="this stream belongs to another user", streamId="cam")
    assert isinstance(run.core.subscriber(run.key).error, Unauthorized)
    assert run.core.subscriber(other).error is None


def test_what_may_pass_is_asked_again_after_a_pause_beside_the_others() -> None:
    run = online()
    other = run.subscribe("other")
    run.answer(error="ROUTING_ERROR")
    assert len(run.of("subscribe")) == 2
    run.until(1.1)
    assert [each["streamId"] for each in run.of("subscribe")] == ["cam", "other", "other"]
    run.answer()
    assert run.core.subscriber(other).confirmed
    assert run.opened == 1


def test_alerts_are_asked_for_from_the_gateways_time_of_the_last_word_of_the_lost_connection() -> None:
    run = online()
    run.keep(100)
    run.until(110)
    run.frame(1)
    run.now = 116
    run.close(None)
    run.until(150)
    run.sign_in()
    assert run.sent[-1]["alertsSince"] == SERVER_MS + 110_000 - 5000
    assert "alertsSince" not in run.of("subscribe")[0]


def test_alerts_from_before_the_first_subscription_are_not_asked_for() -> None:
    run = online()
    run.until(2)
    run.close(None)
    run.until(10)
    run.sign_in()
    assert run.sent[-1]["alertsSince"] == SERVER_MS


def test_alerts_come_once_and_in_order_and_it_is_told_whether_all_came() -> None:
    run = online()
    run.alert("a1")
    run.alert("a2")
    run.close(None)
    run.until(run.now + 10)
    run.sign_in()
    run.answer(recovered=True)
    for name in ("a1", "a2", "a3", "a4"):
        run.alert(name)
    events = run.take(run.key)
    assert [event.id if isinstance(event, Alert) else event for event in events] == [
        "a1", "a2", Recovery(stream_id="cam", recovered=True), "a3", "a4"
    ]  # fmt: skip
    assert run.core.subscriber(run.key).recovered is True
    run.close(None)
    run.until(run.now + 10)
    run.sign_in()
    run.answer(recovered=False, **{"from": 1234})
    run.alert("a5")
    run.alert("a6")
    gap, fifth, sixth = run.take(run.key)
    assert gap == Recovery(stream_id="cam", recovered=False, from_ms=1234)
    assert (fifth.recovered, sixth.recovered) == (False, True)


@given(st.lists(st.sampled_from(["alert", "take", "lose", "late"]), max_size=40))
def test_no_alert_is_lost_or_doubled_whenever_the_connection_is_lost(events: list[str]) -> None:
    """The gateway keeps all; what is under way when a connection dies is lost with it."""
    run = online()
    raised: list[tuple[int, str]] = []
    came: list[str] = []
    for event in events:
        run.keep(run.now + 3)
        if event in ("alert", "late"):
            name = f"a{len(raised)}"
            raised.append((SERVER_MS + int(run.now * 1000), name))
            if event == "alert":
                run.alert(name)
        elif event == "take":
            came += alerts_of(run, run.key)
        if event in ("lose", "late"):  # late: the connection was dead when the alert was sent
            run.close(None)
            run.until(run.now + 31)
            run.sign_in()
            since = run.sent[-1]["alertsSince"]
            run.answer(recovered=True)
            for at, name in raised:
                if at >= since:
                    run.alert(name)
    came += alerts_of(run, run.key)
    assert came == [name for _, name in raised]


def test_a_program_that_reads_too_slowly_gets_the_alerts_that_had_no_room_from_the_gateway() -> None:
    run = online()
    names = [f"a{number}" for number in range(MAX_WAITING + 50)]
    for name in names[: MAX_WAITING + 20]:
        run.alert(name)
    assert alerts_of(run, run.key) == names[:MAX_WAITING]
    again = run.of("subscribe")[-1]
    assert again["alertsSince"] == SERVER_MS - 5000
    run.answer(again, recovered=True)
    for name in names[: MAX_WAITING + 20]:
        run.alert(name)
    for name in names[MAX_WAITING + 20 :]:
        run.alert(name)
    assert alerts_of(run, run.key) == names[MAX_WAITING:]


def test_frames_the_newest_waits_and_each_is_acknowledged_when_it_comes() -> None:
    run = online()
    windowed = run.subscribe("door", window=2)
    run.answer()
    for number in range(1, 6):
        run.frame(number, "door")
        run.frame(number)
    (frame,) = [event for event in run.take(windowed) if isinstance(event, Frame)]
    assert frame.frame_id == 5
    assert [(each["streamId"], each["frameId"]) for each in run.of("ack")] == [("door", n) for n in range(1, 6)]
    assert run.core.subscriber(windowed).inbox.replaced == 4


def test_a_frame_may_be_acknowledged_when_it_is_taken() -> None:
    run = CoreRun()
    key = run.subscribe("door", window=2, ack_when_taken=True)
    run.sign_in()
    run.answer()
    run.frame(1, "door")
    run.frame(2, "door")
    assert run.of("ack") == []
    run.take(key)
    assert [each["frameId"] for each in run.of("ack")] == [2]


def test_the_newest_frame_that_comes_again_after_a_reconnect_is_passed_over() -> None:
    run = online()
    run.frame(7)
    assert len(run.take(run.key)) == 1
    run.close(None)
    run.until(run.now + 10)
    run.sign_in()
    run.answer()
    run.frame(7)
    assert [event for event in run.take(run.key) if isinstance(event, Frame)] == []
    run.frame(1)  # a new stream of this name
    assert len(run.take(run.key)) == 1


def test_alerts_overtake_a_frame_that_waits() -> None:
    run = online()
    run.frame(1)
    run.alert("a")
    run.say("status", streamId="cam", status="streaming", info={"deviceName": "x"})
    kinds = [type(event) for event in run.take(run.key)]
    assert kinds == [Alert, Status, Frame]


def test_several_subscriptions_of_one_stream_are_one_at_the_gateway() -> None:
    run = CoreRun()
    slow, alone = run.subscribe("cam", max_fps=2, window=2, alerts=False), run.subscribe("cam", frames=False)
    run.sign_in()
    run.answer(run.of("subscribe")[-1])
    (asked,) = run.of("subscribe")
    assert (asked["consumes"], asked["maxFps"]) == (["video-frame", "alert"], 2)
    fast = run.subscribe("cam", alerts=False, window=2)
    assert "maxFps" not in run.sent[-1]
    run.answer()
    for number in range(1, 21):
        run.until(run.now + 0.1)
        run.frame(number)
        if number == 1:
            run.alert("a")
        run.take(fast)
    assert alerts_of(run, alone) == ["a"]
    assert run.core.subscriber(slow).inbox.replaced in (3, 4)
    assert not any(isinstance(event, Alert) for event in run.take(slow))
    run.unsubscribe(fast)
    assert run.sent[-1]["type"] == "subscribe"
    assert run.sent[-1]["maxFps"] == 2
    run.unsubscribe(slow)
    run.unsubscribe(alone)
    assert run.sent[-1]["type"] == "unsubscribe"
    count = len(run.sent)
    run.frame(21)
    assert len(run.sent) == count


def test_an_answer_to_a_former_wish_is_not_taken_for_the_present_one() -> None:
    run = CoreRun()
    run.subscribe("cam")
    run.sign_in()
    first = run.sent[-1]
    run.unsubscribe(1 if 1 in run.core._subscribers else next(iter(run.core._subscribers)))
    again = run.subscribe("cam")
    second = run.sent[-1]
    assert second["type"] == "subscribe"
    run.answer(first, error="UNAUTHORIZED")
    assert run.core.subscriber(again).error is None
    run.answer(second)
    assert run.core.subscriber(again).confirmed


def test_an_alert_is_acknowledged_and_what_became_of_it_is_told() -> None:
    run = online()
    key, commands = run.core.acknowledge("cam", "a1", "seen", run.now)
    run.do(commands)
    assert run.sent[-1].items() >= {"type": "acknowledge", "alertId": "a1", "note": "seen"}.items()
    run.answer()
    assert run.done == {key: None}
    key, commands = run.core.acknowledge("cam", "a2", None, run.now)
    run.do(commands)
    run.answer(error="UNAUTHORIZED")
    assert isinstance(run.done[key], Unauthorized)
    run.say("alert-acknowledged", streamId="cam", alertId="a1", userId="ann", note="seen")
    (event,) = run.take(run.key)
    assert (type(event), event.alert_id, event.user_id, event.note) == (Acknowledged, "a1", "ann", "seen")


def test_a_gateway_that_does_not_know_acknowledgements_is_an_error() -> None:
    run = online(echoes=False)
    key, commands = run.core.acknowledge("cam", "a1", None, run.now)
    run.do(commands)
    run.say("error", code="UNKNOWN_MESSAGE_TYPE", message="acknowledge is not known")
    assert isinstance(run.done[key], Refused)


def test_an_acknowledgement_that_was_not_answered_is_sent_again_on_the_next_connection() -> None:
    run = online()
    key, commands = run.core.acknowledge("cam", "a1", None, run.now)
    run.do(commands)
    run.close(None)
    run.until(11)
    run.sign_in()
    run.answer(run.of("acknowledge")[-1])
    assert (len(run.of("acknowledge")), run.done) == (2, {key: None})


def test_what_ends_the_connection_ends_every_subscription() -> None:
    run = online()
    other = run.subscribe("other")
    run.close(1008, "too much")
    for key in (run.key, other):
        assert run.core.subscriber(key).error is run.error


def test_an_inbox_is_bounded_whatever_comes() -> None:
    inbox = Inbox()
    for number in range(3 * MAX_REMEMBERED):
        inbox.put(Alert(id=f"a{number}", stream_id="cam", severity="low", message="m", timestamp=1))
        if number % 2:
            inbox.put(Status(stream_id="cam", status="online", timestamp=number))
            inbox.take()
            inbox.take()
    assert len(inbox._messages) <= MAX_WAITING
    assert len(inbox._seen) <= MAX_REMEMBERED
