"""Bridges of one group share the streams: each on exactly one that matches it, and few move."""

from __future__ import annotations

from collections import defaultdict
from typing import get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import Alert
from watchout.common.bus.membership import BRIDGE_LOST_AFTER_S, HEARTBEAT_EVERY_S
from watchout.common.bus.messages import (
    VERSION,
    AcknowledgeRequest,
    BadFrame,
    Bye,
    Claim,
    CoverageReport,
    CreateShare,
    EndShare,
    Envelope,
    FetchNewest,
    FetchPicture,
    FromMember,
    Hello,
    Interest,
    LatencyReport,
    LinkReport,
    MemberHeartbeat,
    OwnerLookup,
    PublicationState,
    Query,
    RaiseAlert,
    Release,
    ReservationReport,
    SnapshotEnd,
    StreamReport,
    Unreserve,
    WhyAnswered,
    decode_from_member,
    encode,
)
from watchout.common.errors import BusError
from watchout.common.toolbox.globs import Globs
from watchout.router.members import Members, MessageVerdict, may_be_remote
from watchout.router.streams.routing import assign
from watchout.router.streams.stream import BridgeRecord

STREAMS = [f"{kind}-{number}" for kind in ("cam", "door") for number in range(40)]
ALERT = Alert(id="a", stream_id="cam", severity="low", message="m", timestamp=0)
PATTERNS = [(), ("cam-*",), ("door-*",), ("cam-?", "door-1*"), ("nothing-*",)]

BRIDGES = st.lists(
    st.builds(
        lambda member, group, patterns: BridgeRecord(member, group, 2.0, Globs(patterns)),
        st.binary(min_size=8, max_size=8),
        st.sampled_from(["people", "fire"]),
        st.sampled_from(PATTERNS),
    ),
    max_size=8,
    unique_by=lambda bridge: bridge.member,
)


def shared(bridges: list[BridgeRecord]) -> dict[tuple[str, str], bytes]:
    """By group and stream: which bridge has it."""
    found: dict[tuple[str, str], bytes] = {}
    for stream in STREAMS:
        for bridge in assign(stream, bridges):
            assert (bridge.group, stream) not in found, "no stream is on two bridges of a group"
            assert bridge.globs.match(stream)
            found[bridge.group, stream] = bridge.member
    return found


@given(BRIDGES)
def test_each_stream_is_on_exactly_one_bridge_of_each_group_that_has_one_for_it(bridges: list[BridgeRecord]) -> None:
    wanted = {(b.group, stream) for b in bridges for stream in STREAMS if b.globs.match(stream)}
    assert set(shared(bridges)) == wanted


@given(BRIDGES, st.integers(0, 7))
def test_when_a_bridge_goes_only_its_own_streams_move(bridges: list[BridgeRecord], which: int) -> None:
    if not bridges:
        return
    gone = bridges[which % len(bridges)]
    before, after = shared(bridges), shared([b for b in bridges if b is not gone])
    for place, member in before.items():
        if member != gone.member:
            assert after[place] == member


@given(BRIDGES, st.integers(0, 7))
def test_when_a_bridge_comes_streams_move_only_to_it(bridges: list[BridgeRecord], which: int) -> None:
    if not bridges:
        return
    new = bridges[which % len(bridges)]
    before, after = shared([b for b in bridges if b is not new]), shared(bridges)
    for place, member in after.items():
        assert member in (before.get(place), new.member)


@given(BRIDGES)
def test_the_order_of_bridges_does_not_matter(bridges: list[BridgeRecord]) -> None:
    assert shared(bridges) == shared(bridges[::-1])


def test_four_bridges_have_about_a_quarter_each() -> None:
    bridges = [BridgeRecord(bytes([number]) * 8, "g", 2.0) for number in range(1, 5)]
    counts: dict[bytes, int] = defaultdict(int)
    for number in range(4000):
        (bridge,) = assign(f"cam-{number}", bridges)
        counts[bridge.member] += 1
    assert all(800 < count < 1200 for count in counts.values())


def test_a_bridge_that_is_silent_is_missed_soon_enough_for_its_streams_to_be_elsewhere_within_2_s() -> None:
    members = Members(1)
    bridge, gateway = b"b" * 8, b"g" * 8
    for member, kind in ((bridge, "mlbridge"), (gateway, "gateway")):
        hello = Hello(kind=kind, name=kind, pid=1)
        assert members.receive(member, Envelope(0, 0, hello), 10.0) is MessageVerdict.GREETED
    assert members.silent(9.95 + BRIDGE_LOST_AFTER_S) == []
    assert [m.id for m in members.silent(10.05 + BRIDGE_LOST_AFTER_S)] == [bridge]
    assert BRIDGE_LOST_AFTER_S + HEARTBEAT_EVERY_S < 2.0


def test_a_remote_member_may_say_what_a_bridge_needs_and_nothing_of_streams_and_others() -> None:
    said = (
        SnapshotEnd(publications=0, interests=0), MemberHeartbeat(metrics={}), CoverageReport(rows=[]), Bye(),
        LatencyReport(), BadFrame(stream="cam", frame_id=1, reason="no picture"), RaiseAlert(request=1, alert=ALERT),
        WhyAnswered(request=1, body=b""),
    )  # fmt: skip
    assert all(map(may_be_remote, said))
    kinds = {type(body) for body in said} | {Hello}
    refused = (
        Claim(request=1, stream="cam", user="ann"), Release(stream="cam", term=1), OwnerLookup(request=1, stream="cam"),
        FetchNewest(stream="cam"), Query(request=1, what="stats"), StreamReport(rows=[]), ReservationReport(rows=[]),
        CreateShare(request=1, id="s" * 16, stream="cam", user="ann", seconds=60),
        EndShare(request=1, id="s" * 16, stream="cam", user="ann"),
        LinkReport(rows=[]), Unreserve(request=1, stream="cam"), AcknowledgeRequest(request=1, alert=ALERT, user="ann"),
        CreateShare(request=1, stream="cam", user="ann", id="s" * 16, seconds=1),
        EndShare(request=1, stream="cam", user="ann", id="s" * 16),
        Interest(stream="cam", viewers=1, alert_viewers=1), FetchPicture(stream="cam", term=1, frame_id=1),
        PublicationState(
            stream="cam", user="ann", term=1, status="online", producing=False, wants_alerts=False, frame_id=0,
            total_frames=0, fps=0.0, started_at=0,
        ),
    )  # fmt: skip
    assert not any(map(may_be_remote, refused))
    assert kinds | {type(body) for body in refused} == set(get_args(FromMember))


@pytest.mark.parametrize("streams", [["cam/1"], [""], ["x" * 129], ["x"] * 65])
def test_a_greeting_with_patterns_that_are_none_is_refused(streams: list[str]) -> None:
    hello = {"t": "hello", "kind": "mlbridge", "name": "", "pid": 1, "streams": streams}
    with pytest.raises(BusError):
        decode_from_member(msgpack.packb([VERSION, 0, 0, hello]))


def test_patterns_cross_the_bus_as_they_are() -> None:
    hello = Hello(kind="mlbridge", name="", pid=1, streams=("cam-*", "[ab]?"))
    assert decode_from_member(encode(0, 0, hello)).body == hello


def test_of_another_machine_only_a_bridge_may_greet() -> None:
    assert may_be_remote(Hello(kind="mlbridge", name="", pid=1))
    assert not may_be_remote(Hello(kind="gateway", name="", pid=1))
    assert not may_be_remote(Hello(kind="ctl", name="", pid=1))
