"""Delivery of alerts to viewers and publishers."""

from __future__ import annotations

import pytest

from tests.kit.hub import FakePublisher, FakeViewer, HubHarness, alert


def test_alerts_reach_those_who_consume_them_in_order(harness: HubHarness) -> None:
    screen, mute, other = FakeViewer(harness.hub), FakeViewer(harness.hub), FakeViewer(harness.hub)
    screen.subscribe("door", video=False)
    mute.subscribe("door", alerts=False)
    other.subscribe("yard")
    for number in range(5):
        harness.hub.delivery.on_alert(alert(number))
    assert screen.alerts == ["a0", "a1", "a2", "a3", "a4"]
    assert mute.alerts == other.alerts == []
    assert harness.hub.delivery.alerts_out == 5


@pytest.mark.parametrize("wants", [True, False])
def test_a_camera_gets_the_alerts_of_its_stream_when_it_wants_them(harness: HubHarness, wants: bool) -> None:
    phone = FakePublisher()
    harness.publish(phone, wants_alerts=wants)
    harness.hub.delivery.on_alert(alert())
    harness.hub.delivery.on_alert(alert(2, "yard"))
    assert [m["id"] for m in phone.messages] == (["a1"] if wants else [])


def test_alerts_wait_while_recent_ones_are_fetched(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    held = screen.subscriptions[0].held_alerts = {}
    harness.hub.delivery.on_alert(alert(1))
    assert (screen.alerts, list(held)) == ([], ["a1"])
    screen.subscriptions[0].held_alerts = None
    harness.hub.delivery.on_alert(alert(2))
    assert screen.alerts == ["a2"]


def test_an_alert_of_a_stream_that_nobody_here_knows_is_nothing(harness: HubHarness) -> None:
    harness.hub.delivery.on_alert(alert())
    assert harness.hub.delivery.alerts_out == 0
