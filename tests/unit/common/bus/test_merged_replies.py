"""Replies of several slots as one: no stream lost or twice, each process once, the newest alerts, bounded."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.merged_replies import (
    MAX_DEAD,
    merge_alerts,
    merge_processes,
    merge_reservations,
    merge_stats,
    merge_streams,
)
from watchout.common.bus.reply_records import (
    DeadAlertRow,
    MemberRow,
    ProcessReport,
    RecentAlertRow,
    ReservationRow,
    RouterStats,
    StatsReply,
    StreamRow,
    Totals,
    WebhookStats,
)


def gateway(slot: int, process: str, alive_s: float = 1.0, sockets: int = 3) -> MemberRow:
    return MemberRow(
        id=f"{slot}-{process}", name="gateway", kind="gateway", pid=1, alive_s=alive_s, metrics={"sockets": sockets},
        process=process,
    )  # fmt: skip


def of_slot(slot: int, *streams: str, state: str = "active", webhook: WebhookStats | None = None) -> StatsReply:
    return StatsReply(
        router=RouterStats(epoch=100 + slot, uptime_s=10.0 * (slot + 1), pid=slot, state=state, metrics={"streams": 1}),
        members=[gateway(slot, "a"), gateway(slot, "b", alive_s=5.0 + slot, sockets=4)],
        streams=[StreamRow(stream_id=stream) for stream in streams],
        webhook=webhook,
        totals=Totals(producers=len(streams), video_consumers=2, alert_consumers=1, connections=7),
    )


def test_the_stats_of_one_slot_are_left_as_they_are() -> None:
    reply = of_slot(0, "b", "a")
    assert merge_stats({0: reply}) is reply
    assert b"routers" not in msgspec.json.encode(reply)
    assert b"missingSlots" not in msgspec.json.encode(reply)


def test_the_stats_of_several_slots_have_each_stream_and_each_process_once() -> None:
    merged = merge_stats({0: of_slot(0, "c", "a"), 1: of_slot(1, "b")}, slots=2)
    assert [row.stream_id for row in merged.streams] == ["a", "b", "c"]
    assert sorted((row.id, row.alive_s) for row in merged.members) == [("a", 1.0), ("b", 6.0)]
    assert all(row.process is msgspec.UNSET for row in merged.members)
    assert merged.totals == Totals(producers=3, video_consumers=4, alert_consumers=2, connections=7, streams=3)
    assert merged.router.metrics == {"streams": 2}
    assert merged.routers is not msgspec.UNSET
    assert [(each.slot, each.router.epoch) for each in merged.routers] == [(0, 100), (1, 101)]
    assert merged.missing_slots is msgspec.UNSET


def test_the_metrics_of_a_process_are_those_that_it_told_last_whichever_slot_it_joined_first() -> None:
    def told(slot: int, up_s: float) -> StatsReply:
        reply = of_slot(slot)
        rows = [
            msgspec.structs.replace(row, alive_s=100.0 - slot, metrics={"uptime_seconds": up_s, "sockets": up_s})
            for row in reply.members
        ]
        return msgspec.structs.replace(reply, members=rows)

    merged = merge_stats({0: told(0, 95.0), 1: told(1, 99.0), 2: told(2, 94.0)}, slots=3)
    assert [(row.id, row.alive_s, row.metrics["sockets"]) for row in merged.members] == [
        ("a", 100.0, 99.0), ("b", 100.0, 99.0),
    ]  # fmt: skip
    assert merged.totals is not None
    assert merged.totals.connections == 198


def test_replies_without_streams_have_the_number_of_all() -> None:
    short, former = of_slot(0), of_slot(1, "b")
    short = msgspec.structs.replace(short, totals=msgspec.structs.replace(short.totals, streams=5))
    assert merge_stats({0: short, 1: former}, slots=2).stream_count == 6


def test_a_missing_slot_is_named() -> None:
    merged = merge_stats({1: of_slot(1, "b")}, (0, 2), slots=3)
    assert merged.missing_slots == [0, 2]
    assert msgspec.json.decode(msgspec.json.encode(merged))["missingSlots"] == [0, 2]


def test_one_router_that_has_just_begun_does_not_make_all_of_them_so() -> None:
    assert merge_stats({0: of_slot(0, state="syncing"), 1: of_slot(1)}, slots=2).router.state == "active"
    both = {slot: of_slot(slot, state="syncing") for slot in range(2)}
    assert merge_stats(both, slots=2).router.state == "syncing"


def test_the_webhook_is_summed_and_its_dead_alerts_stay_bounded() -> None:
    def hook(slot: int) -> WebhookStats:
        dead = [DeadAlertRow(alert_id=str(n), stream_id="s", attempts=1, reason="", at=n * 2 + slot) for n in range(15)]
        return WebhookStats(service="x", sent=slot + 1, dead=15, last_dead=dead, disabled=slot == 1)

    merged = merge_stats({slot: of_slot(slot, webhook=hook(slot)) for slot in range(2)}, slots=2).webhook
    assert merged is not None
    assert (merged.sent, merged.dead, merged.disabled) == (3, 30, True)
    assert [row.at for row in merged.last_dead] == list(range(30 - MAX_DEAD, 30))
    assert merge_stats({0: of_slot(0), 1: of_slot(1)}, slots=2).webhook is None


def test_of_two_rows_of_a_stream_the_later_publication_holds() -> None:
    old, new = StreamRow(stream_id="s", started_at=1), StreamRow(stream_id="s", started_at=2)
    assert merge_streams([[old], [new]]) == merge_streams([[new], [old]]) == [new]


ROWS = st.lists(st.integers(0, 50), max_size=12).map(sorted)


@given(st.lists(ROWS, min_size=1, max_size=5), st.integers(1, 30))
def test_alerts_are_the_newest_of_all_oldest_first(times: list[list[int]], limit: int) -> None:
    replies = [
        [RecentAlertRow(f"{slot}-{n}", None, b"{}", at) for n, at in enumerate(each)] for slot, each in enumerate(times)
    ]
    merged = merge_alerts(replies, limit)
    everything = sorted(at for each in times for at in each)
    assert [row.at for row in merged] == everything[-limit:]
    for slot, rows in enumerate(replies):  # those of one slot keep their order, and the later ones are there
        of_slot = [row for row in merged if row.id.startswith(f"{slot}-")]
        assert of_slot == rows[len(rows) - len(of_slot) :]


def test_alerts_are_bounded_in_bytes_as_those_of_one_router_are() -> None:
    replies = [[RecentAlertRow(f"{slot}", None, b"x" * 600, slot)] for slot in range(10)]
    assert [row.id for row in merge_alerts(replies, 100, max_bytes=1500)] == ["7", "8", "9"]


def test_reservations_are_those_that_end_first_and_those_of_one_slot_stay_as_they_are() -> None:
    rows = [ReservationRow("b", "u", 9.0), ReservationRow("a", "u", 3.0)]
    assert merge_reservations([rows], 1000) == rows
    more = [ReservationRow("c", "u", 5.0)]
    assert [row.stream for row in merge_reservations([rows, more], 2)] == ["a", "c"]


def test_processes_come_once_with_the_routers_first_whatever_their_names_and_pids() -> None:
    def reports(slot: int) -> list[ProcessReport]:
        return [
            ProcessReport(name="router", kind="router", pid=slot),
            ProcessReport(name="gateway", kind="gateway", pid=1, process="aa"),
            ProcessReport(name="gateway", kind="gateway", pid=1, process="bb"),
        ]

    merged = merge_processes([reports(0), reports(1)])
    assert [(row.kind, row.pid) for row in merged] == [("router", 0), ("router", 1), ("gateway", 1), ("gateway", 1)]
    assert merge_processes([reports(3)]) == [msgspec.structs.replace(row, process=msgspec.UNSET) for row in reports(3)]
