"""Stats of the registry, and that nothing grows with streams that ended."""

from __future__ import annotations

import sys

from tests.unit.router.streams.room import NOW_MS, A, B, C, M, N, Room
from watchout.common.bus.reply_records import StreamRow, Totals
from watchout.common.toolbox.largest import OUTDATED_SPARE
from watchout.router.streams.ownership import RESERVED_S

# ── stats ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_totals_count_over_all_members(room: Room) -> None:
    room.publish(A, stream="x", wants_alerts=True)
    room.publish(B, stream="y", producing=False)
    room.interest(A, viewers=2, alerts=1, stream="x")
    room.interest(B, viewers=3, alerts=0, stream="x")
    room.interest(B, viewers=0, alerts=4, stream="z")
    assert room.streams.totals(connections=7) == Totals(
        producers=1, video_consumers=5, alert_consumers=6, connections=7
    )


def test_a_row_of_a_stream_has_what_stats_shows(room: Room) -> None:
    room.publish(A, frame_id=9, total_frames=9, fps=29.9999, last_frame_at=NOW_MS + 5)
    room.publish(B, stream="another")
    room.bridge(M)
    room.interest(B, viewers=2, alerts=1)
    another, row = room.streams.rows({A: "gateway.1", M: "mlbridge.1"}, NOW_MS + 2500)
    assert row == StreamRow(
        stream_id="cam", user_id="ann", status="streaming", fps=30.0, total_frames=9, uptime=2,
        viewers=2, alert_viewers=1, gateway="gateway.1", mlbridge="mlbridge.1", started_at=NOW_MS,
        last_frame_at=NOW_MS + 5, frame_id=9, organizations=(), dropped={},
    )  # fmt: skip
    assert (another.stream_id, another.gateway) == ("another", None)


def test_a_stream_whose_start_lies_ahead_has_no_negative_uptime(room: Room) -> None:
    room.publish(A)
    assert room.streams.rows({}, NOW_MS - 5000)[0].uptime == 0


# ── nothing grows ─────────────────────────────────────────────────────────────────────────────────────────────────────


def entries(value: object, seen: set[int] | None = None) -> int:
    """Entries of all maps, sets and lists that an object of ours holds."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, str | bytes | int | float | None):
        return 0
    seen.add(id(value))
    if isinstance(value, dict):
        return len(value) + sum(entries(each, seen) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return len(value) + sum(entries(each, seen) for each in value)
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    names = [*slots, *getattr(value, "__dict__", {})]
    return sum(entries(getattr(value, name, None), seen) for name in names)


def test_after_very_many_streams_nothing_is_left_but_what_is_bounded() -> None:
    room = Room(reserved_per_user=50, reserved_max=100)
    room.publish(M, stream="live")
    room.interest(N, stream="live")
    before = entries(room.streams)
    for number in range(15_000):
        name, user, member = f"s{number}", f"u{number % 1700}", (A, B)[number % 2]
        if number % 3 == 0:
            room.interest(C, stream=name)
        term = room.granted(member, user, name).term
        room.hold(member, term, name, user=user)
        if number % 5 == 0:
            room.claim(member, user, name)  # a take-over, and its grant is lost
            room.gone(member)
        else:
            room.release(member, term, stream=name)
        if number % 3 == 0:
            room.interest(C, stream=name, viewers=0)
        room.claim(B, user="mallory", stream="live")
        if number % 1000 == 0:
            list(room.streams.take_changes())
    list(room.streams.take_changes())
    room.now += RESERVED_S + 1
    room.streams.prune(room.now)
    list(room.streams.take_changes())
    assert entries(room.streams) <= before + OUTDATED_SPARE * 5  # an entry of a heap is a tuple of three
    assert len(room.streams) == 1


def test_a_registration_touches_the_same_number_of_entries_however_many_streams_ended() -> None:
    """Counted in calls of Python, which do not depend on the machine."""

    def calls(ended: int) -> int:
        room = Room(reserved_per_user=10_000)
        for number in range(ended):
            name = f"s{number}"
            room.release(A, room.publish(A, stream=name, user=f"u{number % 100}"), stream=name)
        count = 0

        def seen(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(seen)
        try:
            term = room.publish(A, stream="new")
            room.release(A, term, stream="new")
            room.streams.look_up_owner(1, "other")
            room.streams.prune(room.now)
        finally:
            sys.setprofile(None)
        return count

    assert calls(10) == calls(3000)
