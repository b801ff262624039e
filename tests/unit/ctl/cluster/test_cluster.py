"""What `watchout-ctl cluster` concludes and shows: every kind of thing that can be missing, by name, and bounded."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

from watchout.common.bus.messages import LinkRow
from watchout.common.bus.nats.probe import BucketFacts, LaggingCopy, NatsServerFacts, bucket_facts
from watchout.common.bus.nats.site import LeaseFacts, SiteFacts
from watchout.common.bus.reply_records import ClusterMember, ClusterReply, LostProcess, RouterStats
from watchout.common.bus.slot_entries import Beat, SlotBeat, SlotEntry
from watchout.ctl.cluster.facts import Facts, SlotAnswer
from watchout.ctl.cluster.missing import judged
from watchout.ctl.cluster.picture import Picture, draw
from watchout.ctl.cluster.view import render

ROUTERS = {"a": "a" * 16, "b": "b" * 16, "c": "c" * 16}
AT = {"a": "tls:10.0.0.1:7400/f-aaaaaaaa", "b": "tls:10.0.0.2:7400/f-bbbbbbbb"}


def gateway(host: str, **more: Any) -> ClusterMember:
    given = {
        "kind": "gateway", "name": "gateway.1", "pid": 7, "host": host, "version": "2.0", "up_s": 60.0, "sockets": 3,
        "at": AT[host], "apart_ms": 0, "process": host * 16, "links_age_s": 1.0, "links_total": 0,
    }  # fmt: skip
    return ClusterMember(**given | more)


def reply(slot: int, host: str = "a", **more: Any) -> ClusterReply:
    router = RouterStats(
        epoch=100 + slot, uptime_s=50, pid=5, state="active", slot=slot, name="router.1", host=host, lease_age_s=1.2
    )
    given = {
        "router": router, "version": "2.0", "process": ROUTERS[host], "streams": 2, "cameras": 1, "viewers": 4,
        "members": [gateway("a"), gateway("b")],
    }  # fmt: skip
    return ClusterReply(**given | more)


def answer(slot: int, host: str = "a", **more: Any) -> SlotAnswer:
    return SlotAnswer(reply=reply(slot, host, **more), joined=True, apart_ms=0)


def site(**more: Any) -> SiteFacts:
    """Two slots: 0 at a, 1 at b; c is a spare."""
    beats = {
        ROUTERS[name]: Beat(ROUTERS[name], held=held, name="router.1", host=name, pid=5, version="2.0", up_s=9.0)
        for name, held in {"a": (SlotBeat(0, 100, 1),), "b": (SlotBeat(1, 101, 2),), "c": ()}.items()
    }
    leases = {
        slot: LeaseFacts(SlotEntry(ROUTERS[host], 100 + slot, "router.1", host), slot + 1, 1.0)
        for slot, host in enumerate("ab")
    }
    buckets = [BucketFacts(name=name, replicas=3, leader="n1") for name in ("w-slots", "w-records")]
    return SiteFacts(**{"beats": beats, "slots": 2, "leases": leases, "buckets": buckets} | more)


def facts(**more: Any) -> Facts:
    servers = [
        NatsServerFacts(name=f"nats://n{n}:4222", server_name=f"n{n}", version="2.10", others=2, round_trip_ms=0.4)
        for n in (1, 2, 3)
    ]
    given = {
        "host": "a", "slots": 2, "cluster": "w", "answers": {0: answer(0), 1: answer(1, "b")}, "site": site(),
        "servers": servers,
    }  # fmt: skip
    return Facts(**given | more)


def seen(found: Facts) -> Picture:
    return judged(draw(found), found)


def text(picture: Picture, width: int = 140, rows: int = 20) -> str:
    out = StringIO()
    Console(file=out, width=width, highlight=False).print(render(picture, width=width, rows=rows))
    return out.getvalue()


def test_a_router_without_slots_on_the_host_of_the_leases_leader_is_called_so() -> None:
    beats = {name: msgspec.structs.replace(beat, leader_here=beat.host == "c") for name, beat in site().beats.items()}
    picture = seen(facts(site=site(beats=beats)))
    assert picture.spares == ["router.1 of c, where the leases are led"]
    assert (picture.missing, picture.notes) == ([], [])
    assert "spare routers: router.1 of c, where the leases are led" in text(picture)


def test_a_whole_site_misses_nothing_and_shows_everything() -> None:
    picture = seen(facts())
    assert (picture.missing, picture.notes) == ([], [])
    assert picture.spares == ["router.1 of c"]
    assert [(slot.state, slot.host, slot.epoch, slot.streams) for slot in picture.slots] == [
        ("served", "a", 100, 2), ("served", "b", 101, 2),
    ]  # fmt: skip
    assert {host.host: [one.kind for one in host.processes] for host in picture.hosts} == {
        "a": ["router", "gateway"], "b": ["router", "gateway"], "c": ["router"],
    }  # fmt: skip
    shown = text(picture)
    for word in (
        "cluster w",
        "2 of 2 slots served",
        "1 spare router",
        "4 streams",
        "8 viewers",
        "nats://n3:4222",
        "2.0",
    ):
        assert word in shown


def test_a_slot_without_a_router_is_named_with_its_lease_and_who_should_take_it() -> None:
    lacking = site(beats={name: beat for name, beat in site().beats.items() if beat.host != "b"})
    found = seen(facts(answers={0: answer(0), 1: SlotAnswer(why="no router")}, site=lacking))
    (sentence,) = found.missing
    assert sentence == (
        "Slot 1 has no router: claims of its streams are refused (its lease names router.1 of b, renewed 1s ago); "
        "1 spare (router.1 of c) should take it within seconds."
    )
    assert [slot.state for slot in found.slots] == ["served", "missing"]
    assert "1 of 2 slots served" in text(found)


def test_without_any_router_process_the_remedy_is_to_start_one() -> None:
    found = seen(facts(answers={0: SlotAnswer(), 1: SlotAnswer()}, site=site(beats={}, leases={})))
    assert sum("start `watchout-router`" in sentence for sentence in found.missing) == 2
    assert any("No gateway" in sentence for sentence in found.missing)


def test_a_router_that_beats_and_does_not_reply_is_named() -> None:
    found = seen(facts(answers={0: answer(0), 1: SlotAnswer(why="it did not answer in time")}))
    (sentence,) = found.missing
    assert sentence.startswith(
        "Slot 1: its router, router.1 of b, beats and does not reply (it did not answer in time)"
    )
    assert found.slots[1].state == "silent"


def test_a_lease_of_another_router_than_the_one_that_replies_is_named() -> None:
    other = LeaseFacts(SlotEntry(ROUTERS["c"], 900, "router.1", "c"), 9, 0.1)
    found = seen(facts(site=site(leases={0: other, 1: site().leases[1]})))
    (sentence,) = found.missing
    assert "replies with epoch 100, and the lease names router.1 of c, epoch 900" in sentence
    lost = seen(facts(site=site(leases={0: LeaseFacts(None), 1: site().leases[1]})))
    assert "the lease names nobody" in lost.missing[0]


def test_a_gateway_that_fell_silent_is_named_and_one_that_came_back_is_not() -> None:
    lost = [LostProcess(kind="gateway", name="gateway.1", pid=9, host="c", ago_s=40.0)]
    found = seen(facts(answers={0: answer(0, lost=lost), 1: answer(1, "b", lost=lost)}))
    (sentence,) = found.missing
    assert "gateway gateway.1 of c (process 9) fell silent 40s ago" in sentence
    assert "lost 40s ago" in text(found)
    back = [LostProcess(kind="gateway", name="gateway.1", pid=9, host="b", ago_s=40.0)]
    assert seen(facts(answers={0: answer(0, lost=back), 1: answer(1, "b")})).missing == []


def test_a_member_that_one_router_does_not_know_or_that_is_silent_is_named() -> None:
    found = seen(facts(answers={0: answer(0), 1: answer(1, "b", members=[gateway("b", silent_s=2.5)])}))
    (sentence,) = found.missing
    assert "gateway.1 of a (process 7) is not joined with slot 1" in sentence
    hanging = [gateway("a"), gateway("b", silent_s=2.5)]
    found = seen(facts(answers={slot: answer(slot, "ab"[slot], members=hanging) for slot in (0, 1)}))
    assert found.missing == [
        "The gateway gateway.1 of b (process 7) has said nothing for 2.5 s: it hangs, or is cut off."
    ]


def test_links_have_names_rates_and_drops_and_one_without_connection_is_missing() -> None:
    rows = [
        LinkRow(AT["b"], True, 10.0, 440_000.0, 3, 2, 0),
        LinkRow("tls:10.0.0.9:7400/f-zzzzzzzz", False, 0.0, 0.0, fault="refused"),
    ]
    links = {"links": rows, "links_total": 7}
    stale = {"links": [LinkRow(AT["b"], False, 0.0, 0.0)], "links_total": 1, "links_age_s": 500.0}
    picture = seen(
        facts(
            answers={
                0: answer(0, members=[gateway("a", **links), gateway("b")]),
                1: answer(1, "b", members=[gateway("a", **stale), gateway("b")]),
            }
        )
    )
    assert picture.missing == [], "where nobody is known there is nobody to reach"
    unknown, link = picture.links
    assert (link.sender, link.sender_host, link.to, link.to_host) == ("gateway.1", "a", "gateway.1", "b")
    assert (link.frames_per_s, link.bytes_per_s, link.replaced, link.evicted) == (10.0, 440_000.0, 3, 2)
    assert (unknown.to, unknown.connected) == ("tls:10.0.0.9:7400/f-zzzzzzzz", False)
    assert "… and 5 more that their processes did not name" in text(picture)
    down = [gateway("a", links=[LinkRow(AT["b"], False, 0.0, 0.0, fault="it refuses")], links_total=1), gateway("b")]
    (sentence,) = seen(facts(answers={slot: answer(slot, "ab"[slot], members=down) for slot in (0, 1)})).missing
    assert sentence == f"Frames of gateway.1 of a do not reach gateway.1 of b at {AT['b']}: it refuses."


def test_nats_servers_buckets_and_rights_are_judged() -> None:
    servers = [
        NatsServerFacts(name="nats://n1:4222", others=2),
        NatsServerFacts(name="nats://n2:4222", fault="refused"),
    ]
    buckets = [
        BucketFacts(name="w-slots", replicas=3, leader="", offline=("n2",), lagging=(LaggingCopy("n3"),)),
        BucketFacts(name="w-records", replicas=1),
    ]
    found = seen(facts(servers=servers, site=site(buckets=buckets, denied=["the server permits nothing"])))
    assert [sentence.split(":")[0] for sentence in found.missing] == [
        "The NATS server nats", "The bucket w-slots lacks the server n2", "The bucket w-slots has no leader",
        "The bucket w-records has 1 of 3 replicas", "The server permits nothing.",
    ]  # fmt: skip
    assert found.notes == ["The bucket w-slots is not up to date at the server n3."]
    away = seen(facts(site=None, site_fault="no NATS server can be used", servers=[]))
    assert any("cannot be looked at over NATS" in sentence for sentence in away.missing)


NOW = "2026-11-30T15:03:05.073720544Z"


def told(name: str, since: str = "", **of_n1: Any) -> BucketFacts:
    """What JetStream says of a bucket of three servers that n2 leads, since a time."""
    return bucket_facts(name, {"config": {"num_replicas": 3}, "ts": NOW, "cluster": {
        "leader": "n2", "leader_since": since,
        "replicas": [{"name": "n1", **of_n1}, {"name": "n3", "current": True, "active": 70_000_000_000}],
    }}, None)  # fmt: skip


@pytest.mark.parametrize(
    ("leases", "records", "stuck"),
    [
        ({"current": True}, {"current": True}, False),
        ({"current": False, "active": 0, "lag": 45}, {"current": True}, False),
        ({"current": False, "active": 0, "lag": 120}, {"current": False, "lag": 3}, False),
        ({"current": False, "active": 0, "lag": 121}, {"current": False, "lag": 3}, True),  # two slots
        ({"current": False, "since": "2026-11-30T15:02:06Z"}, {"current": True}, False),
        ({"current": False, "since": "2026-11-30T15:02:04Z"}, {"current": True}, True),  # never heard by the leader
        ({"current": False, "since": "2026-11-30T14:02:04Z", "active": 1_000}, {"current": True}, False),
        ({"current": False, "since": "2026-11-30T15:02:04"}, {"current": True}, False),  # no time of a server
        ({"current": False, "active": 61_000_000_000, "lag": 1}, {"current": False, "lag": 3}, True),
        ({"current": True}, {"current": False, "active": 0, "lag": 400}, False),  # as after a burst of records
        ({"current": True}, {"current": False, "active": 61_000_000_000}, True),
    ],
)
def test_a_copy_that_lags_for_over_a_minute_is_missing_with_what_to_do(
    leases: dict[str, Any], records: dict[str, Any], stuck: bool
) -> None:
    buckets = [told("w-slots", **leases), told("w-records", **records)]
    found = seen(facts(site=site(buckets=buckets)))
    names = [name for name, one in (("w-slots", leases), ("w-records", records)) if not one["current"]]
    kept = [each for each in found.missing if "for over a minute" in each]
    assert [each.split(" has ")[0] for each in kept] == ([f"The bucket {name}" for name in names] if stuck else [])
    assert all("the server n1 " in each and "make room, and restart it" in each for each in kept)
    assert sum("is not up to date" in note for note in found.notes) == (0 if stuck else len(names))


def test_what_cannot_be_seen_without_nats_is_not_said_to_be_missing() -> None:
    servers = [NatsServerFacts(name="nats://n1:4222", fault="refused")]
    silent = {slot: SlotAnswer() for slot in (0, 1)}
    away = seen(facts(answers=silent, site=None, site_fault="no NATS server can be used", servers=servers))
    assert [sentence.split(":")[0] for sentence in away.missing] == [
        "The NATS server nats", "The site cannot be looked at over NATS",
    ]  # fmt: skip
    there = seen(facts(answers=silent, site=site()))
    assert any("No gateway is joined" in sentence for sentence in there.missing), "with NATS it can be seen"


def test_clocks_are_those_of_hosts_and_other_slots_here_are_named() -> None:
    late = [gateway("a"), gateway("b", apart_ms=4000)]
    answers = {0: SlotAnswer(reply=reply(0, members=late), joined=True, apart_ms=1000)}
    found = seen(facts(answers=answers, slots=1))
    assert {host.host: host.clock_ms for host in found.hosts} == {"a": 1000, "b": 5000, "c": None}
    (note,) = found.notes
    assert "The clock of b is 5.0 s ahead of that of this machine" in note
    assert any("CLUSTER_SLOTS is 1 here, and the routers have 2" in sentence for sentence in found.missing)
    assert len(found.slots) == 2


def test_one_machine_is_shown_without_words_of_nats() -> None:
    router = RouterStats(epoch=7, uptime_s=5, pid=3, state="active")
    member = ClusterMember(kind="gateway", name="gateway.1", pid=4, version="2.0", at="unix:f-aaaaaaaa")
    alone = ClusterReply(router=router, version="2.0", streams=1, cameras=1, members=[member])
    found = seen(Facts(host="here", answers={0: SlotAnswer(reply=alone, joined=True, apart_ms=-3)}))
    assert (found.missing, found.notes, found.nats, found.spares) == ([], [], None, [])
    shown = text(found)
    assert "one machine, without NATS" in shown
    assert "gateway.1" in shown
    assert "+0.0s" in shown
    assert "NATS server" not in shown
    assert [host.host for host in found.hosts] == ["here"]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_large_site_is_bounded_and_every_line_fits(width: int) -> None:
    members = [gateway("a", name=f"gateway.{n}", process=f"{n:016x}", silent_s=9.0) for n in range(500)]
    answers = {slot: answer(slot, "ab"[slot], members=members) for slot in (0, 1)}
    found = seen(facts(answers=answers))
    assert len(found.missing) == 11
    assert found.missing[-1] == "… and 490 more of this kind."
    shown = text(msgspec.structs.replace(found, missing=[], notes=[]), width, rows=5)
    assert "… and 498 more" in shown
    assert max(cell_len(line) for line in shown.splitlines()) <= width
    assert len(shown.splitlines()) < 45


def test_what_others_name_is_shown_escaped() -> None:
    evil = [gateway("a", name="\x1b[31mred"), msgspec.structs.replace(gateway("b"), host="h\x1bx")]
    found = seen(facts(answers={0: answer(0, members=evil), 1: answer(1, "b", members=evil)}))
    assert "\x1b[31mred" not in text(found)
    assert "\x1b" not in msgspec.json.encode(found).decode()


def test_the_json_has_keys_that_say_what_they_are() -> None:
    found = json.loads(msgspec.json.encode(seen(facts())))
    assert set(found) == {"cluster", "hosts", "slots", "spares", "links", "linksTotal", "nats", "missing", "notes"}
    assert {"slot", "state", "router", "host", "epoch", "leaseAgeS", "streams"} <= set(found["slots"][0])


def test_sockets_and_age_of_a_process_are_those_that_it_told_last_whichever_slot_heard_it_last() -> None:
    early = gateway("a", up_s=58.0, sockets=1, silent_s=0.0)
    late = gateway("a", up_s=60.0, sockets=9, silent_s=0.4)
    for members in ([early], [late]), ([late], [early]):
        drawn = draw(facts(answers={0: answer(0, members=members[0]), 1: answer(1, "b", members=members[1])}))
        (row,) = [one for host in drawn.hosts for one in host.processes if one.kind == "gateway"]
        assert (row.up_s, row.sockets, row.silent_s) == (60.0, 9, 0.0)
