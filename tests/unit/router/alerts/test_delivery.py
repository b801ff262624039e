"""An alert at the router: accepted once, sent to the gateways with interest, kept, and sent again to who missed it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from tests.unit.router.recorded_bus import EPOCH, GATEWAY, NOW_MS, OPERATOR, OTHER, RecordedBus, join
from watchout.common import metric_names
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import AcceptedReply, AcknowledgeRequest, AlertNotification, Interest, RaiseAlert
from watchout.common.metrics import Metrics
from watchout.router.alerts.delivery import AlertDelivery
from watchout.router.alerts.ids import AlertIds
from watchout.router.alerts.log import AlertLog
from watchout.router.alerts.recent import RecentAlerts
from watchout.router.alerts.replay import BATCH, AlertReplay
from watchout.router.members import Members
from watchout.router.outbox import Outbox
from watchout.router.streams.registry import Streams
from watchout.router.webhook.events import WebhookEvent

NOW = 1000.0


@dataclass
class RecordedWebhook:
    offered: list[WebhookEvent] = field(default_factory=list)

    def offer(self, event: WebhookEvent) -> None:
        self.offered.append(event)


class Place:
    """A delivery with two gateways and an operator's command as members."""

    def __init__(self) -> None:
        self.bus, self.metrics, self.webhook = RecordedBus(), Metrics(), RecordedWebhook()
        #: The monotonic clock when something is sent again.
        self.now = NOW
        self.recent = RecentAlerts(limit=1000, minutes=10)
        self.streams = Streams(EPOCH, max_streams=100, syncing=False)
        self.replay = AlertReplay(log := AlertLog())
        members = Members(EPOCH)
        for member, kind in ((GATEWAY, "gateway"), (OTHER, "gateway"), (OPERATOR, "ctl")):
            join(members, member, kind)
        outbox = Outbox(EPOCH, members)
        outbox.attach(self.bus)
        self.delivery = AlertDelivery(
            epoch=EPOCH, metrics=self.metrics, streams=self.streams, ids=AlertIds(), recent=self.recent, log=log,
            replay=self.replay, outbox=outbox, webhook=self.webhook,  # type: ignore[arg-type]
            monotonic_s=lambda: self.now,
        )  # fmt: skip

    def interest(self, member: bytes, alert_viewers: int, stream: str = "cam") -> None:
        told = Interest(stream=stream, viewers=alert_viewers, alert_viewers=alert_viewers)
        self.streams.set_interest(member, told, NOW, NOW_MS)
        self.bus.take(member)

    def accept(self, id: str = "a1", *, stream: str = "cam", accepted_at: int | None = None) -> AcceptedReply:
        """Raise an alert as the operator's command; what it was told."""
        alert = Alert(id=id, stream_id=stream, severity="low", message=id, timestamp=NOW_MS)
        request = RaiseAlert(request=9, alert=alert, accepted_at=accepted_at)
        self.delivery.accept(OPERATOR, request, NOW, NOW_MS)
        (reply,) = self.bus.take(OPERATOR)
        assert isinstance(reply, AcceptedReply)
        assert reply.request == 9
        return reply

    def notified(self, member: bytes) -> list[AlertNotification]:
        taken = self.bus.take(member)
        assert all(isinstance(body, AlertNotification) for body in taken)
        return taken  # type: ignore[return-value]

    def count(self, name: str) -> float:
        return self.metrics.read().get(name, 0)


@pytest.fixture
def place() -> Place:
    return Place()


def test_the_gateways_with_alert_viewers_of_the_stream_are_notified_and_no_other(place: Place) -> None:
    place.interest(GATEWAY, 2)
    place.interest(OTHER, 3, stream="door")
    reply = place.accept()
    assert (reply.id, reply.duplicate, reply.receivers, reply.at) == ("a1", False, 2, NOW_MS)
    (notification,) = place.notified(GATEWAY)
    assert (notification.alert.id, notification.number, notification.at) == ("a1", 1, None)
    assert place.notified(OTHER) == []
    assert place.count(metric_names.ALERTS) == 1


def test_an_alert_that_nobody_watches_is_kept_and_offered_to_the_webhook(place: Place) -> None:
    assert place.accept().receivers == 0
    assert len(place.recent) == 1
    assert [event.alert_id for event in place.webhook.offered] == ["a1"]


def test_a_second_alert_of_this_stream_and_id_takes_effect_nowhere(place: Place) -> None:
    place.interest(GATEWAY, 1)
    place.accept()
    place.notified(GATEWAY)
    again = place.accept()
    assert (again.duplicate, again.receivers) == (True, 0)
    assert place.notified(GATEWAY) == []
    assert (len(place.recent), len(place.webhook.offered)) == (1, 1)
    assert (place.count(metric_names.ALERTS), place.count(metric_names.ALERTS_DUPLICATE)) == (1, 1)
    assert not place.accept(stream="door").duplicate


def test_one_whose_id_was_forgotten_is_a_duplicate_while_the_alert_itself_is_kept(place: Place) -> None:
    place.accept()
    place.delivery.ids.prune(1e9)
    assert place.accept().duplicate
    assert len(place.webhook.offered) == 1


def test_one_that_a_former_router_accepted_carries_that_time_and_none_of_the_future(place: Place) -> None:
    place.interest(GATEWAY, 1)
    assert place.accept("old", accepted_at=NOW_MS - 5000).at == NOW_MS - 5000
    assert place.accept("late", accepted_at=NOW_MS + 5000).at == NOW_MS
    told = place.notified(GATEWAY)
    assert [(notification.at, notification.age) for notification in told] == [(NOW_MS - 5000, 5000), (NOW_MS, 0)]


async def test_a_gateway_that_joined_again_gets_what_it_missed_before_what_is_new(place: Place) -> None:
    place.interest(GATEWAY, 1)
    count = 2 * BATCH + 3
    for number in range(count):
        place.accept(f"a{number}")
    place.notified(GATEWAY)
    place.replay.begin(GATEWAY)
    place.accept("new")
    assert place.notified(GATEWAY) == [], "live alerts wait until the gateway said what it has"
    place.delivery.resume(GATEWAY, EPOCH, 2)
    place.accept("newer")
    while place.replay.is_behind(GATEWAY):
        await asyncio.sleep(0)
    place.accept("live")
    numbers = [notification.number for notification in place.notified(GATEWAY)]
    assert numbers == list(range(3, count + 4))
    assert place.count(metric_names.ALERTS_REDELIVERED) == count


async def test_what_is_sent_again_says_how_long_ago_it_was_accepted_by_no_clock_that_is_set(place: Place) -> None:
    place.interest(GATEWAY, 1)
    place.accept("a1")
    place.accept("a2", accepted_at=NOW_MS - 5000)
    given = AcknowledgeRequest(request=1, alert=alert_of("a1"), user="ann")
    place.delivery.acknowledge(OPERATOR, given, NOW, NOW_MS - 600_000)
    live = [each.age for each in place.notified(GATEWAY)]
    assert live == [None, 5000, None]
    place.replay.begin(GATEWAY)
    place.now = NOW + 3
    place.delivery.resume(GATEWAY, EPOCH, 0)
    assert [(each.alert.id, each.age, each.repeated) for each in place.notified(GATEWAY)] == [
        ("a1", 3000, False), ("a2", 8000, False), ("a1", 3000, True)
    ]  # fmt: skip
    await asyncio.sleep(0)  # the end of the batch
    again = AcknowledgeRequest(request=2, alert=alert_of("a2"), user="ann", accepted_at=NOW_MS - 5000, at=NOW_MS - 2000)
    place.delivery.acknowledge(OPERATOR, again, NOW, NOW_MS)
    assert [(each.age, each.repeated) for each in place.notified(GATEWAY)] == [(2000, True)]
    place.delivery.send_missed(GATEWAY, wants(EPOCH - 1, 7))
    ages = [(each.alert.id, each.age, each.repeated) for each in place.notified(GATEWAY)]
    assert ages[-4:] == [("a1", 3000, False), ("a2", 8000, False), ("a1", 3000, True), ("a2", 5000, True)]


async def test_one_batch_goes_out_in_one_turn_of_the_event_loop(place: Place) -> None:
    place.interest(GATEWAY, 1)
    for number in range(BATCH + 1):
        place.accept(f"a{number}")
    place.notified(GATEWAY)
    place.replay.begin(GATEWAY)
    place.delivery.resume(GATEWAY, EPOCH, 0)
    assert len(place.notified(GATEWAY)) == BATCH
    await asyncio.sleep(0)
    assert len(place.notified(GATEWAY)) == 1


@pytest.mark.parametrize(("epoch", "expected"), [(EPOCH, [3]), (EPOCH - 1, [1, 2, 3])])
async def test_the_number_of_another_routers_alert_counts_for_nothing(
    place: Place, epoch: int, expected: list[int]
) -> None:
    place.interest(GATEWAY, 1)
    for name in ("a1", "a2", "a3"):
        place.accept(name)
    place.notified(GATEWAY)
    place.replay.begin(GATEWAY)
    place.delivery.resume(GATEWAY, epoch, 2)
    assert [notification.number for notification in place.notified(GATEWAY)] == expected


async def test_the_number_of_an_alert_that_was_never_sent_counts_for_nothing_and_is_logged(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    place.interest(GATEWAY, 1)
    place.accept("a1")
    place.notified(GATEWAY)
    place.replay.begin(GATEWAY)
    place.delivery.resume(GATEWAY, EPOCH, 2)
    assert [notification.number for notification in place.notified(GATEWAY)] == [1]
    assert "number=2" in capfd.readouterr().out
    place.delivery.send_missed(GATEWAY, wants(EPOCH, 2))
    assert [(each.alert.id, each.at) for each in place.notified(GATEWAY)] == [("a1", NOW_MS)]


async def test_of_what_was_missed_only_streams_with_interest_are_sent(place: Place) -> None:
    place.interest(GATEWAY, 1, stream="door")
    place.accept("a1")
    place.accept("a2", stream="door")
    place.notified(GATEWAY)
    place.replay.begin(GATEWAY)
    place.delivery.resume(GATEWAY, EPOCH, 0)
    assert [notification.alert.id for notification in place.notified(GATEWAY)] == ["a2"]


def alert_of(id: str) -> Alert:
    return Alert(id=id, stream_id="cam", severity="low", message=id, timestamp=NOW_MS)


def wants(epoch: int, last: int, alert_viewers: int = 1) -> Interest:
    """The interest of a gateway that was told of an alert before."""
    return Interest(stream="cam", viewers=1, alert_viewers=alert_viewers, alerts_epoch=epoch, last_alert=last)


def test_a_gateway_gets_what_was_accepted_between_its_look_up_and_its_interest(place: Place) -> None:
    for name, stream in (("a1", "cam"), ("a2", "cam"), ("a3", "door"), ("a4", "cam")):
        place.accept(name, stream=stream)
    place.delivery.send_missed(GATEWAY, wants(EPOCH, 1))
    told = [(each.number, each.alert.id, each.at) for each in place.notified(GATEWAY)]
    assert told == [(0, "a2", None), (0, "a4", None)], "as they were new: its viewers were there before them"
    assert place.count(metric_names.ALERTS_REDELIVERED) == 2


def test_of_a_former_routers_number_all_is_later_and_carries_the_time_of_its_acceptance(place: Place) -> None:
    place.accept("old", accepted_at=NOW_MS - 5000)
    place.accept("new")
    place.delivery.send_missed(GATEWAY, wants(EPOCH - 1, 7))
    told = [(each.alert.id, each.at) for each in place.notified(GATEWAY)]
    assert told == [("old", NOW_MS - 5000), ("new", NOW_MS)]


@pytest.mark.parametrize("interest", [wants(EPOCH, 2), wants(0, 0), wants(EPOCH, 0, alert_viewers=0)])
def test_an_interest_that_missed_nothing_or_wants_no_alerts_gets_none(place: Place, interest: Interest) -> None:
    place.accept("a1")
    place.accept("a2")
    place.delivery.send_missed(GATEWAY, interest)
    assert place.notified(GATEWAY) == []


def test_of_very_many_missed_ones_the_newest_are_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchout.router.alerts.delivery.MAX_MISSED", 2)
    for name in ("a1", "a2", "a3"):
        place.accept(name)
    place.delivery.send_missed(GATEWAY, wants(EPOCH, 0))
    assert [each.alert.id for each in place.notified(GATEWAY)] == ["a2", "a3"]


async def test_a_member_that_did_not_join_anew_gets_nothing_a_second_time(place: Place) -> None:
    place.interest(GATEWAY, 1)
    place.accept()
    place.notified(GATEWAY)
    place.delivery.resume(GATEWAY, EPOCH, 0)
    assert place.notified(GATEWAY) == []
