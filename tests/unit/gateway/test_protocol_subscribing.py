"""A client's protocol: subscriptions of a viewer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.client_dialogues import (
    subscribe,
    subscribed,
)
from tests.kit.playbook import (
    ANN,
    BOB,
    Playbook,
    alerts_failed,
    alerts_fetched,
    camera,
    closes,
    error,
    lane_is_full,
    owner_is,
    right_is_lost,
    router_is_silent,
    says,
    success,
    viewer,
    watches,
)
from watchout.common.errors import CloseCode
from watchout.common.settings import Settings
from watchout.gateway.client.asked_replies import PendingReply
from watchout.gateway.client.commands import (
    EndSubscription,
    FindStream,
    PingSilence,
    WriteWaiting,
)


def test_a_viewer_subscribes_to_a_stream_of_its_user() -> None:
    talk = subscribed(clientType="dashboard", consumes=["video-frame", "alert"])
    assert talk
    (subscription,) = talk.session.subscriptions()
    assert (subscription.video, subscription.alerts) == (True, True)
    assert (subscription.format, subscription.max_fps, subscription.window) == ("json", None, None)
    assert subscription.last_frame
    assert subscription.identity == ANN


def test_a_viewer_may_wish_for_format_rate_window_and_recent_alerts() -> None:
    assert (
        Playbook(viewer())
        >> says(
            type="subscribe", streamId="door", consumes=["video-frame", "alert"], format="binary", maxFps=2,
            lastFrame=False, alertsSince=1000.0, window=3,
        )
        << FindStream("door")
        >> owner_is("ann", "online")
        << watches(
            "door", status="online", owner="ann", alerts_since=1000, video=True, alerts=True, format="binary",
            max_fps=2.0, last_frame=False, window=3,
        )
        >> alerts_fetched(None)
        << success("Subscription successful", streamId="door", recovered=True)
    )  # fmt: skip


def test_what_is_missing_is_said_with_the_success_which_waits_for_it() -> None:
    talk = Playbook(viewer()) >> says(
        type="subscribe", streamId="door", consumes=["alert"], alertsSince=7, requestId="r", pingEvery=5
    )
    talk = talk << FindStream("door") >> owner_is("ann") << watches("door", owner="ann", alerts_since=7)
    assert talk.session.pending is PendingReply.ALERTS
    recovered = success("Subscription successful", streamId="door", requestId="r", recovered=False, **{"from": 9})
    assert talk >> alerts_fetched(9) << recovered << PingSilence(5)
    assert talk.session.pending is None


def test_a_permission_that_is_lost_before_the_success_answers_the_subscription() -> None:
    talk = Playbook(viewer()) >> says(
        type="subscribe", streamId="door", consumes=["alert"], alertsSince=7, requestId="r"
    )
    talk = talk << FindStream("door") >> owner_is("ann") << watches("door", owner="ann", alerts_since=7)
    (subscription,) = talk.session.subscriptions()
    talk = talk >> right_is_lost("door") << EndSubscription(subscription)
    assert talk << error("UNAUTHORIZED", streamId="door", requestId="r")
    assert talk.session.pending is None
    assert talk >> alerts_fetched(None)


def test_recent_alerts_are_only_for_those_who_consume_alerts() -> None:
    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="door", consumes=["video-frame"], alertsSince=0)
        << FindStream("door")
        >> owner_is("ann")
        << success("Subscription successful", streamId="door")
        << watches("door", owner="ann", alerts_since=None)
    )


def test_a_viewer_may_wait_for_a_stream_that_does_not_exist_yet() -> None:
    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="not-yet", consumes=["video-frame"])
        << FindStream("not-yet")
        >> owner_is(None, "offline")
        << success("Subscription successful", streamId="not-yet")
        << watches("not-yet", status="offline", owner=None)
    )


@pytest.mark.parametrize("fields", [{}, {"consumes": []}, {"consumes": None}, {"consumes": ["sound"]}])
def test_whoever_consumes_nothing_is_told_the_status_once(fields: dict[str, Any]) -> None:
    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="door", **fields)
        << FindStream("door")
        >> owner_is("ann", "online")
        << success("Subscription successful", streamId="door")
        << {"type": "status", "streamId": "door", "status": "online"}
    )


def test_a_stream_of_another_user_is_unauthorized_and_the_socket_stays() -> None:
    talk = (
        Playbook(viewer(BOB))
        >> says(type="subscribe", streamId="door", consumes=["video-frame"])
        << FindStream("door")
        >> owner_is("ann", "streaming")
        << error("UNAUTHORIZED")
    )
    assert talk.session.subscriptions() == []
    assert talk >> says(type="subscribe", streamId="mine") << FindStream("mine")


def test_where_everybody_signed_in_may_view_strangers_may_too() -> None:
    assert (
        Playbook(viewer(BOB, Settings(stream_access="authenticated")))
        >> says(type="subscribe", streamId="door", consumes=["alert"])
        << FindStream("door")
        >> owner_is("ann", "streaming")
        << success("Subscription successful", streamId="door")
        << watches("door", status="streaming", owner="ann")
    )


def test_a_silent_router_is_a_routing_error_and_subscribing_may_be_tried_again() -> None:
    talk = Playbook(viewer()) >> says(type="subscribe", streamId="door") << FindStream("door")
    assert talk.session.pending is PendingReply.OWNER
    assert talk >> router_is_silent() << error("ROUTING_ERROR")
    assert talk.session.pending is None
    assert talk >> says(type="subscribe", streamId="door") << FindStream("door")


def test_subscribe_on_the_register_path_is_invalid() -> None:
    for event in (
        says(type="subscribe", streamId="door"),
        says(type="unsubscribe", streamId="door"),
        says(type="ack", streamId="door", frameId=1),
    ):
        assert Playbook(camera()) >> event << error("INVALID_MESSAGE")


def test_a_viewer_may_subscribe_to_several_streams() -> None:
    talk = subscribe(subscribe(subscribed("a"), "b"), "c")
    assert [s.stream for s in talk.session.subscriptions()] == ["a", "b", "c"]


def test_subscribing_again_replaces_the_subscription() -> None:
    talk = subscribed()
    (former,) = talk.session.subscriptions()
    assert (
        talk
        >> says(type="subscribe", streamId="door", consumes=["alert"])
        << FindStream("door")
        >> owner_is("ann", "online")
        << EndSubscription(former)
        << success("Subscription successful", streamId="door")
        << watches("door", status="online", owner="ann", video=False, alerts=True)
    )
    assert len(talk.session.subscriptions()) == 1


def test_subscribing_again_in_vain_leaves_the_subscription_as_it_is() -> None:
    talk = subscribed()
    (former,) = talk.session.subscriptions()
    assert talk >> says(type="subscribe", streamId="door") << FindStream("door")
    assert talk >> router_is_silent() << error("ROUTING_ERROR")
    assert talk.session.subscriptions() == [former]


def test_unsubscribe_ends_the_subscription_once() -> None:
    talk = subscribed()
    (former,) = talk.session.subscriptions()
    done = {"type": "success", "event": "unsubscribed", "message": "Unsubscription successful", "streamId": "door"}
    assert talk >> says(type="unsubscribe", streamId="door") << EndSubscription(former) << done
    assert talk >> says(type="unsubscribe", streamId="door") << done
    assert talk.session.subscriptions() == []


def test_ack_moves_the_window_up_to_the_frame() -> None:
    talk = subscribed(window=3)
    (subscription,) = talk.session.subscriptions()
    subscription.unacked.extend([4, 5, 6])
    assert talk >> says(type="ack", streamId="door", frameId=5) << WriteWaiting()
    assert list(subscription.unacked) == [6]
    assert talk >> says(type="ack", streamId="door", frameId=99) << WriteWaiting()
    assert list(subscription.unacked) == []


def test_an_ack_for_a_stream_that_is_not_subscribed_is_nothing() -> None:
    assert Playbook(viewer()) >> says(type="ack", streamId="door", frameId=1)


def test_a_viewer_that_lost_its_right_is_told_and_the_socket_stays() -> None:
    talk = subscribe(subscribed("a"), "b")
    lost, kept = talk.session.subscriptions()
    assert talk >> right_is_lost("a") << EndSubscription(lost) << error("UNAUTHORIZED") >> right_is_lost("a")
    assert talk.session.subscriptions() == [kept]


def test_the_streams_of_one_socket_are_limited_but_subscribing_again_is_not() -> None:
    talk = Playbook(viewer(settings=Settings(max_subscriptions=2)))
    subscribe(subscribe(talk, "a"), "b")
    assert talk >> says(type="subscribe", streamId="c") << error("RATE_LIMITED")
    assert talk >> says(type="subscribe", streamId="b") << FindStream("b")


def test_recent_alerts_that_cannot_be_had_do_not_disturb_what_is_asked_meanwhile() -> None:
    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="a", consumes=["alert"], alertsSince=0)
        << FindStream("a")
        >> owner_is("ann")
        << watches("a", owner="ann", alerts_since=0)
        >> alerts_fetched(5)
        << success("Subscription successful", streamId="a", recovered=False, **{"from": 5})
        >> says(type="subscribe", streamId="b", consumes=["alert"])
        << FindStream("b")
        >> alerts_failed()
        << error("ROUTING_ERROR")
        >> owner_is("ann")
        << success("Subscription successful", streamId="b")
        << watches("b", owner="ann")
    )


def test_a_viewer_whose_lane_is_full_is_told_and_closed_with_4400() -> None:
    assert subscribed() >> lane_is_full() << error("SLOW_CONSUMER") << closes(CloseCode.SLOW_CONSUMER)
