"""Delivery of alerts to viewers and publishers."""

from __future__ import annotations

import pytest

from tests.kit.hub import FakePublisher, FakeViewer, HubHarness, alert
from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.gateway.hub.delivery import acknowledged_key


def test_alerts_reach_those_who_consume_them_in_order(harness: HubHarness) -> None:
    screen, mute, other = FakeViewer(harness.hub), FakeViewer(harness.hub), FakeViewer(harness.hub)
    screen.subscribe("door", video=False)
    mute.subscribe("door", alerts=False)
    other.subscribe("yard")
    for number in range(5):
        harness.hub.delivery.on_alert(alert(number), 0.0)
    assert screen.alerts == ["a0", "a1", "a2", "a3", "a4"]
    assert mute.alerts == other.alerts == []
    assert harness.hub.delivery.alerts_out == 5


@pytest.mark.parametrize("wants", [True, False])
def test_a_camera_gets_the_alerts_of_its_stream_when_it_wants_them(harness: HubHarness, wants: bool) -> None:
    phone = FakePublisher()
    harness.publish(phone, wants_alerts=wants)
    harness.hub.delivery.on_alert(alert(), 0.0)
    harness.hub.delivery.on_alert(alert(2, "yard"), 0.0)
    assert [m["id"] for m in phone.messages] == (["a1"] if wants else [])


def test_alerts_wait_while_recent_ones_are_fetched(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    held = screen.subscriptions[0].held_alerts = {}
    harness.hub.delivery.on_alert(alert(1), 0.0)
    assert (screen.alerts, list(held)) == ([], ["a1"])
    screen.subscriptions[0].held_alerts = None
    harness.hub.delivery.on_alert(alert(2), 0.0)
    assert screen.alerts == ["a2"]


def test_an_alert_of_a_stream_that_nobody_here_knows_is_nothing(harness: HubHarness) -> None:
    harness.hub.delivery.on_alert(alert(), 0.0)
    assert harness.hub.delivery.alerts_out == 0


@pytest.mark.parametrize("published", [True, False])
def test_an_alert_that_nobody_here_wants_is_told_to_nobody_and_to_who_comes_when_it_is_sent_again(
    harness: HubHarness, published: bool
) -> None:
    told: list[str] = []
    harness.hub.delivery.on_told = lambda _stream, name, _viewers, _publishers: told.append(name)
    if published:
        harness.publish(FakePublisher())
    FakeViewer(harness.hub).subscribe("door", alerts=False)
    harness.hub.delivery.on_alert(alert(1), 0.0)
    harness.hub.delivery.on_acknowledged(alert(1), GIVEN, 0.0)
    assert told == []
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    harness.hub.delivery.on_alert(alert(1), 0.0)
    harness.hub.delivery.on_acknowledged(alert(1), GIVEN, 0.0)
    assert [m["type"] for m in screen.messages] == ["status", "alert", "alert-acknowledged"]
    assert told == ["a1"]


GIVEN = Acknowledgement(user="bob", at=50_000, note="seen")


def test_an_acknowledgement_goes_once_to_those_who_have_the_alerts_of_the_stream(harness: HubHarness) -> None:
    phone, deaf_phone = FakePublisher(), FakePublisher()
    harness.publish(phone, wants_alerts=True)
    harness.publish(deaf_phone, "yard", wants_alerts=False)
    screen, mute = FakeViewer(harness.hub), FakeViewer(harness.hub)
    screen.subscribe("door", video=False)
    mute.subscribe("door", alerts=False)
    harness.hub.delivery.on_alert(alert(), 0.0)
    for repeated in (False, False, True):
        harness.hub.delivery.on_acknowledged(alert(), GIVEN, 0.0, accepted_s=0.0 if repeated else None)
        harness.hub.delivery.on_acknowledged(alert(1, "yard"), GIVEN, 0.0, accepted_s=0.0 if repeated else None)
    expected = {
        "type": "alert-acknowledged", "streamId": "door", "alertId": "a1", "userId": "bob", "note": "seen",
        "timestamp": 50_000,
    }  # fmt: skip
    for each in (screen, phone):
        assert [m for m in each.messages if m["type"] == "alert-acknowledged"] == [expected]
    assert [m["type"] for m in mute.messages] == ["status"]
    assert deaf_phone.messages == []


def test_an_acknowledgement_that_is_repeated_goes_to_nobody_who_came_after_it(harness: HubHarness) -> None:
    before, after = FakeViewer(harness.hub), FakeViewer(harness.hub)
    before.subscribe("door", now=0.0)
    after.subscribe("door", now=0.002)
    harness.hub.delivery.on_acknowledged(alert(), GIVEN, 0.0, accepted_s=0.001)
    assert [m["type"] for m in before.messages] == ["status", "alert-acknowledged"]
    assert [m["type"] for m in after.messages] == ["status"]


def test_an_acknowledgement_waits_while_recent_alerts_are_fetched_beside_its_alert(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    held = screen.subscriptions[0].held_alerts = {}
    harness.hub.delivery.on_alert(alert(), 0.0)
    harness.hub.delivery.on_acknowledged(alert(), GIVEN, 0.0)
    assert list(held) == ["a1", acknowledged_key("a1")]
    assert [m["type"] for m in screen.messages] == ["status"]


def test_a_gateway_of_the_former_release_takes_an_acknowledgement_for_an_alert_that_it_has_delivered(
    harness: HubHarness,
) -> None:
    # It does not know the field `acked`: all that it sees is an alert that is sent again.
    screen, late = FakeViewer(harness.hub), FakeViewer(harness.hub)
    screen.subscribe("door")
    harness.hub.delivery.on_alert(alert(), 0.0)
    late.subscribe("door", now=0.001)
    harness.hub.delivery.on_alert(alert(), 0.0, accepted_s=0.0)
    assert (screen.alerts, late.alerts) == (["a1"], [])
