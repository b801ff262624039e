"""What the router does with each message of a member, one at a time, on a bus that records and a clock that stands."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final, get_args

import msgspec
import pytest
from msgspec.structs import replace

from tests.kit.clients import JPEG
from tests.unit.router.recorded_bus import (
    BRIDGE,
    EPOCH,
    GATEWAY,
    NOW_MS,
    OPERATOR,
    OTHER,
    STRANGER,
    Clock,
    RecordedBus,
)  # fmt: skip
from watchout.common import clock as wall_clock
from watchout.common import metric_names
from watchout.common.alerts.model import Alert
from watchout.common.bus.frames import EVERYBODY, FOR_ALERT
from watchout.common.bus.membership import BRIDGE_LOST_AFTER_S, HEARTBEAT_EVERY_S, MEMBER_LOST_AFTER_S
from watchout.common.bus.messages import (
    LEVEL,
    AcceptedReply,
    AcknowledgeRequest,
    AlertNotification,
    BadFrame,
    Bye,
    Claim,
    CoverageReport,
    CreateShare,
    EndShare,
    ErrorForPublisher,
    FetchNewest,
    FetchPicture,
    Forward,
    FromMember,
    GrantedReply,
    Hello,
    Interest,
    LatencyReport,
    LinkReport,
    LinkRow,
    MemberHeartbeat,
    OwnerLookup,
    OwnerReply,
    PublicationState,
    Query,
    QueryReply,
    RaiseAlert,
    RefusedReply,
    Rejoin,
    Release,
    ReservationEnded,
    ReservationReport,
    Revoke,
    RouterHeartbeat,
    SendNewest,
    SlotsDiffer,
    SnapshotEnd,
    StatusUpdate,
    StreamReport,
    Unreserve,
    Welcome,
    encode,
)
from watchout.common.bus.messages.fields import EXCEEDABLE_EPOCH
from watchout.common.bus.reply_records import ProcessReport
from watchout.common.media.codecs import Codec
from watchout.common.media.frame_ids import FRAME_ID_JUMP
from watchout.common.media.frames import Frame
from watchout.common.media.held_frames import HeldFrames
from watchout.common.metrics import Metrics
from watchout.common.reservations import Reservation
from watchout.common.why.memory import IncidentMemory
from watchout.router import handler as handler_module
from watchout.router import startup_hold, stats
from watchout.router.alerts.delivery import AlertDelivery
from watchout.router.alerts.ids import AlertIds
from watchout.router.alerts.log import AlertLog
from watchout.router.alerts.recent import RecentAlerts
from watchout.router.alerts.replay import AlertReplay
from watchout.router.handler import SLOTS_EVERY_S, STREAMS_AT_ONCE, WARN_EVERY_S, MessageHandler
from watchout.router.incidents import RouterIncidents
from watchout.router.members import Members
from watchout.router.outbox import Outbox
from watchout.router.startup_hold import REPORTED_S, SYNC_GRACE_S, StartupHold
from watchout.router.streams.registry import Streams

STATE: Final = PublicationState(
    stream="cam", term=1, user="ann", status="streaming", producing=True, wants_alerts=False, frame_id=0,
    total_frames=0, fps=0.0, started_at=NOW_MS,
)  # fmt: skip
GREETINGS: dict[bytes, Hello] = {
    GATEWAY: Hello(kind="gateway", name="gateway", pid=1),
    OTHER: Hello(kind="gateway", name="gateway-2", pid=2),
    BRIDGE: Hello(kind="mlbridge", name="mlbridge", pid=3, max_fps=2.0, streams=("cam*",)),
    OPERATOR: Hello(kind="ctl", name="ctl", pid=4),
}


class Place:
    """A handler with its parts. `syncing`: the router replaces another one; `expected`: who will report to it."""

    def __init__(self, *, syncing: bool = False, expected: tuple[str, ...] = (), loaded: bool = True) -> None:
        self.bus, self.clock, self.metrics = RecordedBus(), Clock(), Metrics()
        self.members = Members(EPOCH)
        self.streams = Streams(EPOCH, max_streams=100, syncing=syncing)
        self.asked: list[tuple[Query, bool]] = []
        #: Which requests about shares were decided.
        self.decided: list[str] = []
        #: Whether what a message leaves for later turns of the event loop is done before the next message.
        self.runs_turns = True
        outbox = Outbox(EPOCH, self.members)
        recent, self.memory = RecentAlerts(limit=100, minutes=10), IncidentMemory()
        alerts = AlertDelivery(
            epoch=EPOCH, metrics=self.metrics, streams=self.streams, ids=AlertIds(),
            recent=recent, log=(log := AlertLog()), replay=AlertReplay(log),
            outbox=outbox, webhook=None, memory=self.memory,
        )  # fmt: skip
        self.handler = MessageHandler(
            metrics=self.metrics, members=self.members, streams=self.streams, alerts=alerts,
            shares=SimpleNamespace(  # type: ignore[arg-type]
                create=lambda *_: self.decided.append("create"), end=lambda *_: self.decided.append("end")
            ),
            incidents=RouterIncidents(
                memory=self.memory, members=self.members, streams=self.streams, alerts=recent, name="router",
                process="", started_ms=0,
            ),
            pictures=HeldFrames(1 << 20), hold=StartupHold(syncing=syncing, expected=expected),
            outbox=outbox,
            loop=self.clock, checked_at=self.clock.now,  # type: ignore[arg-type]
        )  # fmt: skip
        self.handler.attach(self.bus, SimpleNamespace(reply=self._reply))  # type: ignore[arg-type]
        if loaded and not syncing:
            self.handler.records_loaded()
        self._sent: dict[bytes, int] = {}

    def _reply(self, query: Query, _now: float, _now_ms: int, *, syncing: bool) -> Any:
        self.asked.append((query, syncing))
        if query.what == "shares":
            self.decided.append("query")
        return []

    def send(self, member: bytes, body: FromMember, *, epoch: int = EPOCH, skipped: int = 0) -> None:
        """Send a message with the member's next number; `skipped` messages before it are lost."""
        greets = isinstance(body, Hello)
        seq = 0 if greets else self._sent.get(member, 0) + 1 + skipped
        self._sent[member] = seq
        self.handler.on_control(member, encode(0 if greets else epoch, seq, body))
        if self.runs_turns:
            self.clock.run_turns()

    def join(self, *members: bytes) -> None:
        """Let these join, with nothing to report."""
        for member in members:
            self.send(member, GREETINGS[member])
            self.send(member, SnapshotEnd(publications=0, interests=0))
        self.bus.sent.clear()

    def take(self, member: bytes, kind: type[Any] | None = None) -> list[Any]:
        """The messages for a member since the last call, of one class or all."""
        return [body for body in self.bus.take(member) if kind is None or isinstance(body, kind)]

    def publish(self, member: bytes = GATEWAY, stream: str = "cam") -> int:
        """Claim a stream and report its publication; the term."""
        self.send(member, Claim(request=1, stream=stream, user="ann"))
        (granted,) = self.take(member, GrantedReply)
        self.send(member, replace(STATE, stream=stream, term=granted.term))
        return int(granted.term)

    def watch(self, member: bytes = OTHER, stream: str = "cam") -> None:
        self.send(member, Interest(stream=stream, viewers=1, alert_viewers=1))

    def count(self, name: str) -> float:
        return self.metrics.read().get(name, 0)


@pytest.fixture(autouse=True)
def wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall_clock, "now_ms", lambda: NOW_MS)


@pytest.fixture
def place() -> Place:
    made = Place()
    made.join(GATEWAY, OTHER)
    return made


def alert(id: str = "a1") -> Alert:
    return Alert(id=id, stream_id="cam", severity="low", message=id, timestamp=NOW_MS)


def frame(term: int, frame_id: int = 1, to: bytes = EVERYBODY) -> bytes:
    return Frame("cam", frame_id, NOW_MS, term=term, picture=JPEG, codec=Codec.JPEG).to_bus(to)


# ── who may say what ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_greeting_is_answered_with_a_welcome_of_its_attempt() -> None:
    place = Place()
    place.send(GATEWAY, Hello(kind="gateway", name="gateway", pid=1, attempt=3))
    assert place.take(GATEWAY) == [Welcome(attempt=3, level=LEVEL)]


def test_where_a_stream_is_published_is_told_of_the_gateway_that_has_it_and_to_whoever_asks() -> None:
    place = Place()
    place.send(GATEWAY, Hello(kind="gateway", name="gateway", pid=1, host="a", url="http://a"))
    place.send(OTHER, Hello(kind="gateway", name="gateway-2", pid=2, host="b", url="http://b"))
    place.publish(OTHER)
    for asking in (GATEWAY, OTHER):
        place.send(asking, OwnerLookup(request=7, stream="cam", place=True))
        (reply,) = place.take(asking, OwnerReply)
        assert (reply.host, reply.url) == ("b", "http://b")
    place.send(OTHER, OwnerLookup(request=8, stream="cam"))
    (reply,) = place.take(OTHER, OwnerReply)
    assert not reply.host, "nobody asked for it"
    assert not reply.url


def test_a_message_of_a_stranger_and_one_of_a_former_epoch_are_answered_with_rejoin(place: Place) -> None:
    place.send(STRANGER, OwnerLookup(request=1, stream="cam"))
    assert place.take(STRANGER) == [Rejoin()]
    place.send(GATEWAY, OwnerLookup(request=1, stream="cam"), epoch=EPOCH - 1)
    assert place.take(GATEWAY) == [Rejoin()]


def test_after_a_lost_message_nothing_is_handled_until_the_member_greets_again(place: Place) -> None:
    place.send(GATEWAY, OwnerLookup(request=1, stream="cam"), skipped=1)
    place.send(GATEWAY, OwnerLookup(request=2, stream="cam"))
    assert place.take(GATEWAY) == [Rejoin(), Rejoin()]
    place.join(GATEWAY)
    place.send(GATEWAY, OwnerLookup(request=3, stream="cam"))
    assert [type(body) for body in place.take(GATEWAY)] == [OwnerReply]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"no message", bytes(40)])
def test_bytes_that_are_no_message_are_counted_and_the_sender_has_to_join_again(place: Place, data: bytes) -> None:
    place.handler.on_control(GATEWAY, data)
    assert place.take(GATEWAY) == [Rejoin()]
    assert place.count(metric_names.BUS_BAD_MESSAGES) == 1


def test_a_remote_member_says_what_a_bridge_says_and_nothing_else(place: Place) -> None:
    place.bus.remote = {STRANGER, BRIDGE}
    place.send(STRANGER, GREETINGS[GATEWAY])
    assert place.members.get(STRANGER) is None
    assert place.take(STRANGER) == []
    assert place.bus.forgotten == [STRANGER]
    place.join(BRIDGE)
    place.send(BRIDGE, Claim(request=1, stream="cam", user="ann"))
    assert place.take(BRIDGE) == []
    assert place.streams.get("cam") is None
    assert place.count(metric_names.BUS_BAD_MESSAGES) == 2
    assert place.bus.forgotten == [STRANGER], "a member keeps its connection"


def test_a_remote_stranger_costs_nothing_after_its_message(place: Place) -> None:
    place.bus.remote = {STRANGER}
    place.handler.on_control(STRANGER, b"no message")
    place.send(STRANGER, MemberHeartbeat(metrics={}))
    assert place.bus.forgotten == [STRANGER, STRANGER]


def test_bad_messages_are_logged_once_in_a_while_and_counted_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr("watchout.router.handler._log", SimpleNamespace(warning=lambda what, **_: logged.append(what)))
    for _ in range(5):
        place.handler.on_frame(b"no frame")
    place.clock.now += WARN_EVERY_S + 0.1
    place.handler.on_control(STRANGER, b"no message")
    assert logged == ["bad frame from a member", "bad message from a member"]
    assert place.count(metric_names.BUS_BAD_MESSAGES) == 6


@pytest.mark.parametrize(("epoch", "is_followed"), [(EXCEEDABLE_EPOCH - 1, True), (EXCEEDABLE_EPOCH, False)])
def test_a_member_that_knows_an_epoch_that_no_router_can_exceed_is_named_in_the_log(
    place: Place, capfd: pytest.CaptureFixture[str], epoch: int, is_followed: bool
) -> None:
    seen: list[int] = []
    place.handler.on_later_epoch = seen.append
    for _ in range(3):
        place.handler.on_control(GATEWAY, encode(epoch, 0, GREETINGS[GATEWAY]))
    assert seen == [epoch] * 3 * is_followed
    assert place.take(GATEWAY) == []
    said = capfd.readouterr().out
    assert said.count(f"epoch {epoch}, expected below {EXCEEDABLE_EPOCH}") == (not is_followed)


def test_a_term_that_no_router_can_have_granted_is_not_taken_over(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    highest = place.streams.highest_term
    place.send(GATEWAY, replace(STATE, term=highest + 1))
    assert [type(each) for each in place.take(GATEWAY)] == [Rejoin]
    assert f"term {highest + 1} of cam, expected at most {highest}" in capfd.readouterr().out
    place.send(GATEWAY, GREETINGS[GATEWAY])
    place.take(GATEWAY)
    place.send(GATEWAY, replace(STATE, term=highest + 1))  # it was no fault on the way
    (revoke,) = place.take(GATEWAY)
    assert (revoke.stream, revoke.term) == ("cam", highest + 1)
    place.send(GATEWAY, SnapshotEnd(publications=1, interests=0))
    place.send(GATEWAY, replace(STATE, term=highest))
    assert place.take(GATEWAY, Revoke) == []
    term = place.publish(OTHER, "another")
    assert term == highest + 1, "it was granted here, so it counts"
    place.send(OTHER, replace(STATE, stream="another", term=term, frame_id=5))
    assert place.take(OTHER, Rejoin) == []


def test_a_record_that_is_read_late_raises_the_frame_ids_of_a_camera_that_came_before_it() -> None:
    place = Place(loaded=False)
    place.join(GATEWAY)
    term = place.publish()
    place.take(GATEWAY)
    place.streams.restore("cam", Reservation("ann", (), term - 1, 5000, 0.0))
    place.handler.records_loaded()
    place.clock.run_turns()
    assert place.take(GATEWAY) == [Forward(stream="cam", term=term, wanted=False, floor=5000 + FRAME_ID_JUMP)]


def test_a_reservation_with_a_term_that_no_router_can_have_granted_is_passed_over(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    highest = place.streams.highest_term
    rows = [("a", "ann", (), highest + 1, 1, 0.0), ("b", "ann", (), highest, 1, 0.0)]
    place.send(GATEWAY, ReservationReport(rows=rows))
    assert [place.streams.owner(name) for name in "ab"] == [None, "ann"]
    assert f"term {highest + 1} of a, expected at most {highest}" in capfd.readouterr().out
    assert place.take(GATEWAY, Rejoin) == []


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_claim_an_interest_and_a_publication_bring_frames_on_their_way(place: Place) -> None:
    place.watch()
    place.take(OTHER)
    term = place.publish()
    (forward,) = place.take(GATEWAY, Forward)
    assert (forward.stream, forward.term, forward.wanted) == ("cam", term, True)
    assert [status.status for status in place.take(OTHER, StatusUpdate)][-1] == "streaming"


def test_a_claim_of_another_users_stream_is_refused(place: Place) -> None:
    place.publish()
    place.send(OTHER, Claim(request=7, stream="cam", user="bob"))
    (refused,) = place.take(OTHER, RefusedReply)
    assert refused.request == 7


def test_a_released_stream_goes_offline_and_its_owner_is_still_known(place: Place) -> None:
    term = place.publish()
    place.watch()
    place.take(OTHER)
    place.send(GATEWAY, Release(stream="cam", term=term, frame_id=4))
    assert [status.status for status in place.take(OTHER, StatusUpdate)] == ["offline"]
    place.send(OTHER, OwnerLookup(request=2, stream="cam"))
    (owner,) = place.take(OTHER, OwnerReply)
    assert (owner.request, owner.status, owner.user) == (2, "offline", "ann")


@pytest.mark.parametrize("asked", [True, False])
def test_where_a_stream_is_published_is_what_its_gateway_said_of_itself_when_it_joined(asked: bool) -> None:
    place = Place()
    place.send(GATEWAY, Hello(kind="gateway", name="gateway", pid=1, host="a", url="https://a.example"))
    place.send(OTHER, Hello(kind="gateway", name="gateway", pid=1, host="b", url="https://b.example"))
    term = place.publish()
    place.take(OTHER)
    place.send(OTHER, OwnerLookup(request=2, stream="cam", place=asked))
    (found,) = place.take(OTHER, OwnerReply)
    assert (found.host, found.url) == (("a", "https://a.example") if asked else ("", ""))
    place.send(GATEWAY, Release(stream="cam", term=term, frame_id=4))
    place.send(OTHER, OwnerLookup(request=3, stream="cam", place=asked))
    (found,) = place.take(OTHER, OwnerReply)
    assert (found.status, found.host, found.url) == ("offline", "", ""), "nobody publishes it now"


def test_the_newest_frame_is_asked_for_at_the_gateway_that_has_it(place: Place) -> None:
    place.publish()
    place.take(GATEWAY)
    place.send(OTHER, FetchNewest(stream="cam"))
    assert place.take(GATEWAY) == [SendNewest(stream="cam", to=OTHER.hex())]


def test_a_bad_frame_is_told_to_its_publisher(place: Place) -> None:
    place.publish()
    place.take(GATEWAY)
    place.send(OTHER, BadFrame(stream="cam", frame_id=1, reason="no picture"))
    (error,) = place.take(GATEWAY, ErrorForPublisher)
    assert (error.stream, error.message) == ("cam", "no picture")


def test_metrics_coverage_and_reports_are_kept(place: Place) -> None:
    place.join(BRIDGE)
    place.publish()
    place.send(GATEWAY, MemberHeartbeat(metrics={"frames_in_total": 3.0}, now=1))
    links = LinkReport(rows=[LinkRow("unix:f-abcdefgh", True, 10.0, 440_000.0)], total=1)
    place.send(GATEWAY, links)
    place.send(BRIDGE, CoverageReport(rows=[("cam", 0.5)]))
    place.send(GATEWAY, StreamReport(rows=[("cam", 9, 9, 30.0, NOW_MS)]))
    known = place.members.get(GATEWAY)
    assert known is not None
    assert known.metrics == {"frames_in_total": 3.0}
    place.send(GATEWAY, MemberHeartbeat(now=NOW_MS))
    assert known.metrics == {"frames_in_total": 3.0}, "one without metrics changes none"
    place.send(GATEWAY, MemberHeartbeat(metrics={}))
    assert known.metrics == {}
    assert known.links == links
    assert known.clock.apart_ms is not None
    assert place.members.coverage() == {"cam": 0.5}
    stream = place.streams.get("cam")
    assert stream is not None
    assert stream.frame_id == 9


def test_a_query_is_answered_by_its_number_and_says_whether_the_router_is_starting(place: Place) -> None:
    place.send(GATEWAY, Query(request=8, what="streams"))
    assert place.take(GATEWAY) == [QueryReply(request=8, body=[])]
    assert [(query.what, syncing) for query, syncing in place.asked] == [("streams", False)]


def test_an_alert_is_accepted_and_its_sender_told(place: Place) -> None:
    place.watch()
    place.take(OTHER)
    place.send(GATEWAY, RaiseAlert(request=5, alert=alert()))
    (accepted,) = place.take(GATEWAY)
    assert isinstance(accepted, AcceptedReply)
    assert (accepted.request, accepted.duplicate, accepted.receivers) == (5, False, 1)
    assert [notified.alert.id for notified in place.take(OTHER)] == ["a1"]


def test_whoever_looked_a_stream_up_gets_each_alert_after_the_reply_however_late_its_interest_comes(
    place: Place,
) -> None:
    place.send(GATEWAY, RaiseAlert(request=1, alert=alert("a1")))
    place.send(OTHER, OwnerLookup(request=2, stream="cam"))
    (found,) = place.take(OTHER, OwnerReply)
    assert (found.alerts_epoch, found.last_alert) == (EPOCH, 1)
    place.send(GATEWAY, RaiseAlert(request=3, alert=alert("a2")))
    late = Interest(
        stream="cam", viewers=1, alert_viewers=1, alerts_epoch=found.alerts_epoch, last_alert=found.last_alert
    )
    place.send(OTHER, late)
    place.send(GATEWAY, RaiseAlert(request=4, alert=alert("a3")))
    assert [told.alert.id for told in place.take(OTHER, AlertNotification)] == ["a2", "a3"]


def test_a_gateway_that_loses_a_stream_is_told_of_the_last_alert_that_it_got(place: Place) -> None:
    place.publish(GATEWAY)
    place.send(OTHER, RaiseAlert(request=1, alert=alert("a1")))
    place.take(GATEWAY)
    place.send(OTHER, Claim(request=2, stream="cam", user="ann"))
    place.send(OTHER, RaiseAlert(request=3, alert=alert("a2")))
    (revoked,) = place.take(GATEWAY)
    assert isinstance(revoked, Revoke)
    assert (revoked.alerts_epoch, revoked.last_alert) == (EPOCH, 1)


async def test_a_gateway_that_greets_again_gets_what_it_missed_once_it_has_said_what_it_has(place: Place) -> None:
    place.watch()
    place.send(GATEWAY, RaiseAlert(request=1, alert=alert("a1")))
    place.send(OTHER, GREETINGS[OTHER])
    place.watch()
    place.take(OTHER)
    place.send(GATEWAY, RaiseAlert(request=2, alert=alert("a2")))
    assert place.take(OTHER) == []
    place.send(OTHER, SnapshotEnd(publications=0, interests=1, alerts_epoch=EPOCH, last_alert=1))
    assert [body.alert.id for body in place.take(OTHER, AlertNotification)] == ["a2"]


def test_an_operator_ends_a_reservation_and_every_gateway_is_told(place: Place) -> None:
    place.join(OPERATOR, BRIDGE)
    term = place.publish()
    place.send(GATEWAY, Release(stream="cam", term=term))
    place.bus.sent.clear()
    place.send(OPERATOR, Unreserve(request=1, stream="cam"))
    assert place.take(OPERATOR) == [QueryReply(request=1, body="ann")]
    for gateway in (GATEWAY, OTHER):
        (ended,) = place.take(gateway)
        assert isinstance(ended, ReservationEnded)
        assert (ended.stream, ended.term) == ("cam", term)
    assert place.take(BRIDGE) == []
    place.send(OPERATOR, Unreserve(request=2, stream="cam"))
    assert place.take(OPERATOR) == [QueryReply(request=2, body=None)]
    assert place.take(GATEWAY) == []


def test_a_bridge_that_joins_gets_its_share_of_the_streams(place: Place) -> None:
    place.publish()
    place.take(GATEWAY)
    place.join(BRIDGE)
    term = place.streams.get("cam").term  # type: ignore[union-attr]
    place.handler.on_frame(frame(term))
    assert [member for member, _ in place.bus.frames] == [BRIDGE]


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_frame_goes_to_the_members_that_want_it_and_one_of_an_older_term_to_none(place: Place) -> None:
    place.watch()
    term = place.publish()
    place.handler.on_frame(frame(term))
    place.handler.on_frame(frame(term - 1, 2))
    assert place.bus.frames == [(OTHER, frame(term))]


def test_a_frame_for_one_member_that_is_gone_goes_to_none(place: Place) -> None:
    term = place.publish()
    place.handler.on_frame(frame(term, to=STRANGER))
    assert place.bus.frames == []
    place.handler.on_frame(frame(term, to=OTHER))
    assert [member for member, _ in place.bus.frames] == [OTHER]


def test_the_picture_of_an_alert_is_kept_once_and_sent_to_who_asks_for_that_frame(place: Place) -> None:
    place.watch()
    term = place.publish()
    for _ in range(2):
        place.handler.on_frame(frame(term, 3, FOR_ALERT))
    assert place.bus.frames == [], "it goes to no viewer"
    assert place.count(metric_names.ALERT_PICTURES) == 1
    place.send(OTHER, FetchPicture(stream="cam", term=term, frame_id=4))
    place.send(OTHER, FetchPicture(stream="cam", term=term + 1, frame_id=3))
    assert place.bus.frames == []
    place.send(OTHER, FetchPicture(stream="cam", term=term, frame_id=3))
    assert place.bus.frames == [(OTHER, frame(term, 3, FOR_ALERT))]


# ── the end of a member ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_streams_of_a_member_that_says_bye_go_offline_and_nothing_of_it_is_left(place: Place) -> None:
    place.publish()
    place.watch()
    place.take(OTHER)
    place.send(GATEWAY, Bye())
    assert [status.status for status in place.take(OTHER, StatusUpdate)] == ["offline"]
    assert place.members.get(GATEWAY) is None
    assert place.bus.forgotten == [GATEWAY]
    place.send(GATEWAY, MemberHeartbeat(metrics={}))
    assert place.take(GATEWAY)[-1] == Rejoin()


def test_each_message_and_each_stream_that_changes_counts_as_work_for_the_collector(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what takes the place of other objects would wait for one long collection by the ten thousand."""
    pieces: list[int] = []
    monkeypatch.setattr(handler_module.garbage, "worked", lambda count=1: pieces.append(count))
    streams = 3 * STREAMS_AT_ONCE
    for number in range(streams):
        place.publish(stream=f"cam{number}")
    assert pieces == [1] * 2 * streams, "a claim, and what it published"
    pieces.clear()
    place.send(GATEWAY, Bye())
    assert sum(pieces) >= streams


def test_a_gateway_that_falls_silent_is_told_to_operators(place: Place) -> None:
    place.join(GATEWAY, BRIDGE)
    place.send(BRIDGE, Bye())
    place.send(OTHER, Bye())
    place.clock.now += MEMBER_LOST_AFTER_S / 2
    place.handler.drop_silent_members()
    place.clock.now += MEMBER_LOST_AFTER_S
    place.handler.checked_at = place.clock.now
    place.handler.drop_silent_members()
    (lost,) = place.members.lost_lately(place.clock.now)
    assert (lost.hello, lost.at) == (GREETINGS[GATEWAY], place.clock.now)
    place.join(GATEWAY)
    assert place.members.lost_lately(place.clock.now) == []


def greeting(kind: Any, name: str, slots: int) -> Hello:
    return Hello(kind=kind, name=name, pid=7, attempt=3, slots=slots)


def test_who_has_another_number_of_slots_may_not_join_and_is_told_both_ways(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[str, Any]] = []
    monkeypatch.setattr(
        handler_module, "_log", SimpleNamespace(warning=lambda what, **more: logged.append((what, more["processes"])))
    )
    place.handler.slots = 4
    strangers = {bytes([65 + number]) * 8: (kind, slots) for number, (kind, slots) in enumerate(
        (("gateway", 2), ("mlbridge", 8), ("ctl", 1))
    )}  # fmt: skip
    for member, (kind, slots) in strangers.items():
        place.send(member, greeting(kind, f"{kind}.9", slots))
        assert place.take(member) == [SlotsDiffer(attempt=3, slots=4)]
        assert place.members.get(member) is None
        place.send(member, Claim(request=1, stream="cam", user="ann"))
        assert place.take(member) == [Rejoin()], "it gets no stream"
    assert place.streams.get("cam") is None
    assert logged == [("processes with another CLUSTER_SLOTS than 4 may not join", "gateway.9 (2 slots)")]
    place.clock.now += SLOTS_EVERY_S + 1
    for member, (kind, slots) in list(strangers.items())[:2] * 2:
        place.send(member, greeting(kind, f"{kind}.9", slots))
    assert [names for _, names in logged[1:]] == ["gateway.9 (2 slots)"], "once a minute"
    told = stats.process_reports(
        ProcessReport(name="router"), place.members, place.clock.now, is_remote=lambda _: False
    )
    assert {(each.name, each.other_slots) for each in told if each.other_slots} == {("gateway.9", 2), ("mlbridge.9", 8)}


def test_who_has_the_same_number_of_slots_or_says_none_joins(place: Place) -> None:
    place.handler.slots = 4
    place.send(STRANGER, greeting("gateway", "gateway.9", 2))
    assert [each.hello.name for each in place.members.turned_away_lately(place.clock.now)] == ["gateway.9"]
    place.bus.sent.clear()
    place.send(STRANGER, greeting("gateway", "gateway.9", 4))
    assert place.take(STRANGER) == [Welcome(attempt=3, level=LEVEL)]
    assert place.members.turned_away_lately(place.clock.now) == [], "it is here"
    place.send(BRIDGE, greeting("mlbridge", "of the former release", 0))
    assert place.take(BRIDGE) == [Welcome(attempt=3, level=LEVEL)]
    alone = Place()
    alone.send(STRANGER, greeting("gateway", "gateway.9", 2))
    assert alone.take(STRANGER) == [Welcome(attempt=3, level=LEVEL)], "without a cluster there is nothing to compare"


def test_silent_members_are_removed_bridges_sooner(place: Place) -> None:
    place.join(BRIDGE)
    for step in (BRIDGE_LOST_AFTER_S, MEMBER_LOST_AFTER_S):
        place.handler.checked_at = place.clock.now = 1000.0 + step - 0.01
        place.handler.drop_silent_members()
        place.handler.checked_at = place.clock.now = 1000.0 + step + 0.01
        place.handler.drop_silent_members()
        if step == BRIDGE_LOST_AFTER_S:
            assert [member.id for member in place.members.all()] == [GATEWAY, OTHER]
    assert place.members.all() == []


def test_time_in_which_the_router_did_not_run_is_no_silence_of_its_members(place: Place) -> None:
    place.clock.now += 60.0
    place.handler.drop_silent_members()
    assert len(place.members.all()) == 2
    place.clock.now += HEARTBEAT_EVERY_S
    place.handler.drop_silent_members()
    assert len(place.members.all()) == 2


def test_a_remote_member_whose_key_was_removed_is_removed(place: Place) -> None:
    place.join(BRIDGE)
    place.bus.without_permission = [BRIDGE]
    place.handler.drop_silent_members()
    assert [member.id for member in place.members.all()] == [GATEWAY, OTHER]
    assert place.bus.forgotten == [BRIDGE]


def test_every_member_gets_heartbeats(place: Place) -> None:
    place.join(BRIDGE)
    place.handler.send_heartbeats()
    for member in (GATEWAY, OTHER, BRIDGE):
        assert place.take(member) == [RouterHeartbeat()]


# ── after a restart ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_depends_on_publishers_waits_until_the_gateways_have_reported() -> None:
    place = Place(syncing=True)
    place.join(GATEWAY, OTHER)
    place.send(OTHER, Claim(request=1, stream="cam", user="bob"))
    place.send(OTHER, OwnerLookup(request=2, stream="cam"))
    place.send(OTHER, RaiseAlert(request=3, alert=alert()))
    assert place.take(OTHER) == []
    place.send(GATEWAY, Query(request=4, what="stats"))
    assert len(place.take(GATEWAY)) == 1, "a query waits for nothing"
    assert place.asked[0][1] is True
    place.handler.end_startup()
    place.clock.run_turns()
    replies = [body for body in place.take(OTHER) if not isinstance(body, StatusUpdate | AlertNotification)]
    assert [(type(body), body.request) for body in replies] == [
        (GrantedReply, 1), (OwnerReply, 2), (AcceptedReply, 3),
    ]  # fmt: skip
    place.send(OTHER, OwnerLookup(request=5, stream="cam"))
    assert [type(body) for body in place.take(OTHER)] == [OwnerReply]


#: Requests that are held, and what decides them.
ABOUT_SHARES = (
    (CreateShare(request=1, id="a" * 22, stream="cam", user="ann", seconds=60, alerts=True), "create"),
    (EndShare(request=2, id="a" * 22, stream="cam", user="ann"), "end"),
    (Query(request=3, what="shares", stream="cam", user="ann"), "query"),
)


@pytest.mark.parametrize(("request_", "decided"), ABOUT_SHARES)
async def test_what_depends_on_shares_waits_until_they_are_loaded(request_: FromMember, decided: str) -> None:
    place = Place(syncing=True)
    place.join(GATEWAY)
    place.send(GATEWAY, OwnerLookup(request=9, stream="cam"))
    place.send(GATEWAY, request_)
    assert place.decided == []
    place.handler.records_loaded()
    assert place.decided == [decided], "it waits for no gateway"
    place.send(GATEWAY, request_)
    assert place.decided == [decided, decided]
    assert place.take(GATEWAY, OwnerReply) == []
    place.handler.end_startup()
    place.clock.run_turns()
    assert place.decided == [decided, decided]
    assert len(place.take(GATEWAY, OwnerReply)) == 1


@pytest.mark.parametrize("request_", [
    *(request_ for request_, _ in ABOUT_SHARES), Unreserve(request=4, stream="cam"),
    Query(request=5, what="reservations"),
])  # fmt: skip
@pytest.mark.parametrize("syncing", [True, False])
async def test_what_is_not_loaded_is_not_said_to_be_missing(request_: Any, syncing: bool) -> None:
    """A viewer's share that is not known yet has not ended."""
    place = Place(syncing=syncing, loaded=False)
    place.join(GATEWAY)
    place.send(GATEWAY, request_)
    if syncing:
        place.handler.end_startup()
        place.clock.run_turns()
    (refused,) = place.take(GATEWAY, RefusedReply)
    assert (refused.request, refused.code) == (request_.request, "ROUTING_ERROR")
    assert "not loaded yet" in refused.message
    place.handler.records_loaded()
    place.send(GATEWAY, request_)
    assert place.take(GATEWAY, RefusedReply) == []


@pytest.mark.parametrize("last", ["the records", "the gateway", "the bridge"])
async def test_the_hold_ends_soon_after_all_that_is_expected_came(last: str) -> None:
    place = Place(syncing=True, expected=("a" * 16, "b" * 16))
    place.handler.begin_startup()

    def joins(member: bytes, process: str) -> None:
        place.send(member, msgspec.structs.replace(GREETINGS[member], process=process))
        place.send(member, SnapshotEnd(publications=0, interests=0))

    comes = {
        "the records": place.handler.records_loaded,
        "the gateway": lambda: joins(GATEWAY, "a" * 16),
        "the bridge": lambda: joins(BRIDGE, "b" * 16),
    }
    joins(OTHER, "c" * 16)
    for what in sorted(comes, key=lambda what: what == last):
        place.clock.advance(2 * REPORTED_S)
        assert place.handler.hold.syncing
        if what == last:
            place.send(OTHER, OwnerLookup(request=1, stream="cam"))
        comes[what]()
    place.clock.advance(REPORTED_S / 2)
    assert place.take(OTHER, OwnerReply) == [], "a bridge may send what was accepted before"
    place.clock.advance(REPORTED_S)
    assert len(place.take(OTHER, OwnerReply)) == 1
    assert place.clock.later == []
    joins(GATEWAY, "a" * 16)
    place.handler.records_loaded()
    assert place.clock.later == [], "it does not begin again"


async def test_the_hold_ends_when_its_time_is_over_whoever_is_missing() -> None:
    place = Place(syncing=True, expected=("a" * 16,))
    place.handler.begin_startup()
    place.handler.records_loaded()
    place.join(GATEWAY)
    place.send(GATEWAY, OwnerLookup(request=1, stream="cam"))
    place.clock.advance(SYNC_GRACE_S - 0.01)
    assert place.take(GATEWAY, OwnerReply) == []
    place.clock.advance(0.01)
    assert len(place.take(GATEWAY, OwnerReply)) == 1


async def test_who_reports_at_the_end_of_the_hold_does_not_make_it_longer() -> None:
    place = Place(syncing=True, expected=("a" * 16,))
    place.handler.begin_startup()
    place.clock.advance(SYNC_GRACE_S - REPORTED_S / 2)
    place.handler.records_loaded()
    place.send(GATEWAY, msgspec.structs.replace(GREETINGS[GATEWAY], process="a" * 16))
    place.send(GATEWAY, SnapshotEnd(publications=0, interests=0))
    place.clock.advance(REPORTED_S / 2)
    assert not place.handler.hold.syncing


async def test_a_router_that_ends_decides_nothing_more() -> None:
    place = Place(syncing=True, expected=("a" * 16,))
    place.handler.begin_startup()
    place.handler.close()
    place.handler.records_loaded()
    place.send(GATEWAY, msgspec.structs.replace(GREETINGS[GATEWAY], process="a" * 16))
    place.send(GATEWAY, SnapshotEnd(publications=0, interests=0))
    assert place.clock.later == []


async def test_a_request_of_a_member_that_is_gone_by_then_is_decided_for_nobody() -> None:
    place = Place(syncing=True)
    place.join(GATEWAY, OTHER)
    place.send(OTHER, Claim(request=1, stream="cam", user="bob"))
    place.send(OTHER, Bye())
    place.bus.sent.clear()
    place.handler.end_startup()
    place.clock.run_turns()
    assert place.take(OTHER) == []
    assert place.streams.get("cam") is None


async def test_an_alert_of_a_member_that_is_gone_by_then_is_delivered() -> None:
    """A former router may have accepted it, and who raised it again is gone: nobody else has it."""
    place = Place(syncing=True)
    place.join(GATEWAY, OTHER)
    place.watch(GATEWAY)
    place.send(OTHER, RaiseAlert(request=1, alert=alert("new")))
    place.send(OTHER, RaiseAlert(request=2, alert=alert("old"), accepted_at=NOW_MS - 5000))
    place.send(OTHER, Bye())
    place.handler.end_startup()
    place.clock.run_turns()
    assert [told.alert.id for told in place.take(GATEWAY, AlertNotification)] == ["old", "new"]


def test_past_the_bound_of_held_requests_a_further_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_hold, "MAX_HELD", 2)
    place = Place(syncing=True)
    place.join(GATEWAY)
    for request in (1, 2, 3):
        place.send(GATEWAY, OwnerLookup(request=request, stream="cam"))
    (refused,) = place.take(GATEWAY)
    assert isinstance(refused, RefusedReply)
    assert (refused.request, refused.code) == (3, "ROUTING_ERROR")


async def test_held_requests_are_decided_in_parts_and_further_ones_wait_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handler_module, "TURN_S", -1.0)
    monkeypatch.setattr(handler_module, "STREAMS_AT_ONCE", 1)
    place = Place(syncing=True)
    place.join(GATEWAY, OTHER)
    place.runs_turns = False
    for request in range(1, 7):
        place.send(OTHER, Claim(request=request, stream="cam" if request == 1 else f"cam{request}", user="bob"))
    place.handler.end_startup()
    assert place.take(OTHER) == []
    place.clock.run_turn()
    assert [body.request for body in place.take(OTHER)] == [1]
    place.send(GATEWAY, Claim(request=7, stream="cam", user="ann"))
    assert [body.request for body in place.take(OTHER)] == [2, 3], "with each one that comes, so many are decided"
    assert place.handler.hold.syncing
    place.clock.run_turns()
    assert [body.request for body in place.take(OTHER)] == [4, 5, 6]
    assert [(type(body), body.request) for body in place.take(GATEWAY)] == [(RefusedReply, 7)]
    assert not place.handler.hold.syncing


# ── work in parts ────────────────────────────────────────────────────────────────────────────────────────────────


def many_streams(monkeypatch: pytest.MonkeyPatch) -> Place:
    """A gateway with five streams, each with a viewer elsewhere, and turns that do the least."""
    monkeypatch.setattr(handler_module, "TURN_S", -1.0)
    monkeypatch.setattr(handler_module, "STREAMS_AT_ONCE", 1)
    place = Place()
    place.join(GATEWAY, OTHER)
    for stream in ("cam", "cam1", "cam2", "cam3", "cam4"):
        place.publish(stream=stream)
        place.send(OTHER, Interest(stream=stream, viewers=1, alert_viewers=1))
    place.bus.sent.clear()
    place.runs_turns = False
    return place


def test_what_a_member_leaves_behind_is_cleared_away_a_part_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    place = many_streams(monkeypatch)
    place.send(GATEWAY, Bye())
    assert place.take(OTHER) == []
    for _ in range(5):
        assert place.clock.run_turn()
        assert [type(body) for body in place.take(OTHER)] == [StatusUpdate]
    assert not place.clock.run_turn()
    assert place.streams.published() == []


async def test_one_stream_that_fails_does_not_keep_the_others_from_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    place = many_streams(monkeypatch)
    place.send(GATEWAY, Bye())
    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "send_all", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            place.clock.run_turn()
    place.clock.run_turns()
    assert place.streams.published() == []


def test_a_router_that_ends_does_nothing_more_of_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    place = many_streams(monkeypatch)
    place.send(GATEWAY, Bye())
    place.handler.close()
    assert not place.clock.run_turn()


@pytest.mark.parametrize(
    "body",
    [
        Claim(request=1, stream="cam", user="bob"),
        OwnerLookup(request=1, stream="cam"),
        Interest(stream="cam", viewers=2, alert_viewers=1),
        FetchNewest(stream="cam"),
        Unreserve(request=1, stream="cam"),
        BadFrame(stream="cam", frame_id=1, reason="why"),
        Query(request=1, what="why", about="cam"),
        ReservationReport(rows=[("cam", "bob", (), 1, 1, 0.0)]),
        RaiseAlert(request=1, alert=alert()),
        AcknowledgeRequest(request=1, alert=alert(), user="bob"),
    ],
    ids=lambda body: type(body).__name__,
)  # fmt: skip
async def test_what_is_due_for_a_stream_is_done_before_anything_else_happens_to_it(
    body: FromMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = many_streams(monkeypatch)
    place.send(GATEWAY, Bye())
    place.send(OTHER, body)
    first, *_ = place.take(OTHER)
    assert isinstance(first, StatusUpdate)
    assert (first.stream, first.status) == ("cam", "offline")
    assert place.streams.is_unfinished, "the others wait"


def test_a_message_that_names_streams_otherwise_than_as_its_stream_is_known_by_its_kind() -> None:
    kinds = get_args(FromMember)
    assert {kind for kind in kinds if "alert" in kind.__struct_fields__} == {RaiseAlert, AcknowledgeRequest}
    assert {kind for kind in kinds if "rows" in kind.__struct_fields__} == {
        ReservationReport, Query, CoverageReport, LatencyReport, LinkReport, StreamReport,
    }, "a new kind with rows: does `streams_of` yield its streams?"  # fmt: skip
