"""The picture of a site: hosts, slots, spares, links and NATS servers, put together from what was found. Pure.

Its records are what ``watchout-ctl cluster --json`` prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from watchout.common.bus.reply_records import ClusterMember
from watchout.ctl.cluster.facts import Facts
from watchout.ctl.terminal import printable

#: A copy of a bucket that lags for so long, in seconds, does not catch up by itself: its server has to be restarted.
STUCK_S = 60.0
#: What stands for the machine of a bridge that is joined over TCP, which does not say its name.
ELSEWHERE = "another machine"


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of the records of the picture: objects of JSON with keys in camel case."""


class SiteProcess(Part, frozen=True):
    """A process of the site. `slots` are those that a router has. Of a gateway or bridge, `not_joined` are the slots
    whose routers reply and do not know it, `silent_s` is the time since its last message, and `lost_s` the time since
    it was lost, None while it is there.
    """

    kind: str
    name: str
    pid: int = 0
    version: str = ""
    up_s: float | None = None
    slots: list[int] = []
    sockets: int | None = None
    url: str = ""
    silent_s: float | None = None
    not_joined: list[int] = []
    lost_s: float | None = None
    #: Of a router: the NATS server of its host leads the bucket of leases.
    leader_here: bool = False
    #: Where it accepts frames of others.
    frames_at: str | None = None


class SiteHost(Part, frozen=True):
    """A machine. `clock_ms` is its clock minus that of this machine, None: not known."""

    host: str
    clock_ms: int | None = None
    processes: list[SiteProcess] = []


class SlotView(Part, frozen=True):
    """A slot. `state`: ``served``, ``silent`` (a router process says that it has it, or its lease is fresh, and it does
    not reply) or ``missing``. `router`, `host` and `epoch` are those of the router that replied, else those of its
    lease. `lease_age_s` is the time since the lease was written.
    """

    slot: int
    state: str
    router: str = ""
    host: str = ""
    epoch: int = 0
    lease_age_s: float | None = None
    streams: int | None = None
    cameras: int | None = None
    viewers: int | None = None
    why: str = ""
    #: The lease in the key-value store names another router, or another epoch, than the one that replied.
    lease_differs: str = ""


class LinkView(Part, frozen=True, kw_only=True):
    """A link of the frame mesh from a process to another one; `to` is the address where nobody is known there."""

    sender: str = msgspec.field(name="from")
    sender_host: str = msgspec.field(name="fromHost")
    to: str
    to_host: str = ""
    at: str
    connected: bool
    frames_per_s: float
    bytes_per_s: float
    replaced: int
    evicted: int
    queued_bytes: int
    fault: str = ""


class ServerView(Part, frozen=True):
    """A server of `WATCHOUT_BUS`; `fault` says why it cannot be used."""

    server: str
    name: str = ""
    version: str = ""
    round_trip_ms: float | None = None
    others: int = 0
    fault: str = ""


class BucketView(Part, frozen=True):
    """A bucket of the site in JetStream, as `common.bus.nats.probe.BucketFacts` has it. `stuck` are those of `lagging`
    that have been so for more than `STUCK_S`.
    """

    bucket: str
    replicas: int = 0
    leader: str = ""
    lagging: list[str] = []
    stuck: list[str] = []
    offline: list[str] = []
    fault: str = ""


class NatsView(Part, frozen=True):
    """The NATS servers and the buckets. `fault` says why the site could not be looked at over NATS."""

    servers: list[ServerView]
    buckets: list[BucketView] = []
    fault: str = ""


class Picture(Part, frozen=True):
    """The whole site. `cluster` is its name, empty on one machine. `links_total` counts also the links that a process
    with very many of them did not report. `missing` and `notes` are sentences (`ctl.cluster.missing`).
    """

    cluster: str
    hosts: list[SiteHost]
    slots: list[SlotView]
    spares: list[str]
    links: list[LinkView]
    links_total: int
    nats: NatsView | None
    missing: list[str] = []
    notes: list[str] = []


class _Row:
    """A process under construction: the rows of all slots that know it."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.of_slots: dict[int, ClusterMember] = {}

    @property
    def newest(self) -> ClusterMember:
        """The row of the slot that heard it last."""
        return min(self.of_slots.values(), key=lambda row: row.silent_s)

    @property
    def told(self) -> ClusterMember:
        """The row of the slot that was told its metrics last, by the age of the process in them."""
        return max(self.of_slots.values(), key=lambda row: row.up_s)


def draw(facts: Facts) -> Picture:
    """Return the picture, without its sentences.

    Args:
        facts: what was found.
    """
    members = _members(facts)
    routers = _routers(facts)
    hosts = _hosts(facts, members, routers)
    links, total = _links(members)
    return Picture(
        cluster=facts.cluster,
        hosts=hosts,
        slots=[_slot(facts, slot) for slot in range(_slots_of(facts))],
        spares=sorted(_spare(host, process) for host, process in routers if not process.slots),
        links=links,
        links_total=total,
        nats=_nats(facts),
    )


def _spare(host: str, process: SiteProcess) -> str:
    """Return the name of a router without slots, with the reason where it has none on purpose."""
    return f"{process.name} of {host}{', where the leases are led' if process.leader_here else ''}"


def _slots_of(facts: Facts) -> int:
    """Return the number of slots that the routers agreed on, or else the one that this command is set to."""
    agreed = None if facts.site is None else facts.site.slots
    return max(agreed or facts.slots, 1)


def _members(facts: Facts) -> list[_Row]:
    found: dict[object, _Row] = {}
    for slot, answer in sorted(facts.answers.items()):
        for row in [] if answer.reply is None else answer.reply.members:
            host = printable(row.host) or (ELSEWHERE if row.remote else facts.host)
            key: object = (row.kind, row.name, host, row.pid) if row.process is msgspec.UNSET else row.process
            found.setdefault(key, _Row(host)).of_slots[slot] = row
    return list(found.values())


def _routers(facts: Facts) -> list[tuple[str, SiteProcess]]:
    """Return (host, process) of each router process, of those that reply and of those that beat."""
    beats = {} if facts.site is None else facts.site.beats
    slots: dict[str, set[int]] = {name: {row.slot for row in beat.held} for name, beat in beats.items()}
    found: dict[str, tuple[str, SiteProcess]] = {
        name: (
            printable(beat.host) or facts.host,
            SiteProcess(
                kind="router", name=printable(beat.name) or name, pid=beat.pid, version=printable(beat.version),
                up_s=beat.up_s if beat.pid else None, leader_here=beat.leader_here,
            ),
        )
        for name, beat in beats.items()
    }  # fmt: skip
    for slot, answer in facts.answers.items():
        if (reply := answer.reply) is None:
            continue
        router = reply.router
        slots.setdefault(reply.process, set()).add(slot)
        host = facts.host if router.host is msgspec.UNSET else printable(router.host)
        name = "router" if router.name is msgspec.UNSET else printable(router.name)
        made = SiteProcess(
            kind="router", name=name, pid=router.pid, version=printable(reply.version), up_s=router.uptime_s
        )
        found.setdefault(reply.process, (host, made))
    return [(host, msgspec.structs.replace(made, slots=sorted(slots[key]))) for key, (host, made) in found.items()]


def _hosts(facts: Facts, members: Sequence[_Row], routers: Sequence[tuple[str, SiteProcess]]) -> list[SiteHost]:
    processes: dict[str, list[SiteProcess]] = {}
    for host, router in routers:
        processes.setdefault(host, []).append(router)
    replied = [slot for slot, answer in sorted(facts.answers.items()) if answer.reply is not None]
    for row in members:
        one = row.newest
        processes.setdefault(row.host, []).append(
            SiteProcess(
                kind=one.kind, name=printable(one.name), pid=one.pid, version=printable(one.version),
                up_s=row.told.up_s, sockets=row.told.sockets if one.kind == "gateway" else None,
                url=printable(one.url), silent_s=one.silent_s,
                not_joined=[slot for slot in replied if slot not in row.of_slots],
                frames_at=None if one.at is msgspec.UNSET else printable(one.at),
            )
        )  # fmt: skip
    for host, lost in _lost(facts, processes):
        processes.setdefault(host, []).append(lost)
    clocks = _clocks(facts, members)
    order = ("router", "gateway", "mlbridge")
    return [
        SiteHost(
            host=host,
            clock_ms=clocks.get(host),
            processes=sorted(
                found, key=lambda one: (order.index(one.kind) if one.kind in order else 9, one.name, one.pid)
            ),
        )
        for host, found in sorted(processes.items())
    ]


def _lost(facts: Facts, there: dict[str, list[SiteProcess]]) -> Iterable[tuple[str, SiteProcess]]:
    """Return (host, process) of what fell silent and is joined with no router now."""
    known = {(host, one.kind, one.name) for host, found in there.items() for one in found}
    lost: dict[tuple[str, str, str], SiteProcess] = {}
    for answer in facts.answers.values():
        for one in [] if answer.reply is None else answer.reply.lost:
            key = printable(one.host) or facts.host, one.kind, printable(one.name)
            if key not in known and (key not in lost or (lost[key].lost_s or 0.0) > one.ago_s):
                lost[key] = SiteProcess(kind=one.kind, name=key[2], pid=one.pid, lost_s=one.ago_s)
    return [(key[0], one) for key, one in lost.items()]


def _clocks(facts: Facts, members: Sequence[_Row]) -> dict[str, int]:
    """Return by how many ms the clock of each host is ahead of the one here, as far as it is known."""
    clocks: dict[str, int] = {}
    for answer in facts.answers.values():
        if answer.reply is not None and answer.apart_ms is not None:
            host = facts.host if answer.reply.router.host is msgspec.UNSET else printable(answer.reply.router.host)
            clocks.setdefault(host, answer.apart_ms)
    for row in members:
        for slot, of_slot in sorted(row.of_slots.items()):
            apart_ms = facts.answers[slot].apart_ms
            if of_slot.apart_ms is not msgspec.UNSET and apart_ms is not None:
                clocks.setdefault(row.host, apart_ms + of_slot.apart_ms)
    return clocks


def _slot(facts: Facts, slot: int) -> SlotView:
    answer = facts.answers.get(slot)
    lease = None if facts.site is None else facts.site.leases.get(slot)
    entry = None if lease is None else lease.entry
    holder = None if entry is None or not entry.router else entry
    if answer is None or answer.reply is None:
        beats = {} if facts.site is None else facts.site.beats
        beating = next((beat for beat in beats.values() if any(row.slot == slot for row in beat.held)), None)
        return SlotView(
            slot=slot,
            state="missing" if beating is None and not (answer and answer.joined) else "silent",
            router=printable(beating.name if beating else holder.name if holder else ""),
            host=printable(beating.host if beating else holder.host if holder else ""),
            epoch=0 if entry is None else entry.epoch,
            lease_age_s=None if lease is None or holder is None else lease.age_s,
            why="this command is set to fewer slots" if answer is None else answer.why,
        )
    reply, differs = answer.reply, ""
    router = reply.router
    if holder is not None and router.name is not msgspec.UNSET and holder.epoch > router.epoch:
        differs = f"the lease names {printable(holder.name)} of {printable(holder.host)}, epoch {holder.epoch}"
    elif lease is not None and holder is None and reply.process:
        differs = "the lease names nobody"
    return SlotView(
        slot=slot,
        state="served",
        router="router" if router.name is msgspec.UNSET else printable(router.name),
        host=facts.host if router.host is msgspec.UNSET else printable(router.host),
        epoch=router.epoch,
        lease_age_s=None if router.lease_age_s is msgspec.UNSET else router.lease_age_s,
        streams=reply.streams,
        cameras=reply.cameras,
        viewers=reply.viewers,
        lease_differs=differs,
    )


def _links(members: Sequence[_Row]) -> tuple[list[LinkView], int]:
    """Return the links, those without a connection first, then those with the most bytes; and how many there are."""
    at = {row.newest.at: (printable(row.newest.name), row.host) for row in members}
    found: list[LinkView] = []
    total = 0
    for row in members:
        reports = [one for one in row.of_slots.values() if isinstance(one.links_age_s, float)]
        if not reports:
            continue
        report = min(reports, key=lambda one: one.links_age_s or 0.0)
        total += max(report.links_total, len(report.links))
        for link in report.links:
            to, to_host = at.get(link.at, ("", ""))
            found.append(
                LinkView(
                    sender=printable(report.name), sender_host=row.host, to=to or printable(link.at), to_host=to_host,
                    at=printable(link.at), connected=link.connected, frames_per_s=link.frames_per_s,
                    bytes_per_s=link.bytes_per_s, replaced=link.replaced, evicted=link.evicted,
                    queued_bytes=link.queued, fault=printable(link.fault),
                )
            )  # fmt: skip
    found.sort(key=lambda one: (one.connected, -one.bytes_per_s, one.sender_host, one.sender, one.to))
    return found, total


def _nats(facts: Facts) -> NatsView | None:
    if not facts.cluster:
        return None
    site = facts.site
    stuck = _stuck(facts)
    return NatsView(
        servers=[
            ServerView(
                server=printable(one.name), name=printable(one.server_name), version=printable(one.version),
                round_trip_ms=None if one.fault else round(one.round_trip_ms, 1), others=one.others,
                fault=printable(one.fault or ""),
            )
            for one in facts.servers
        ],
        buckets=[
            BucketView(
                bucket=one.name, replicas=one.replicas, leader=printable(one.leader),
                lagging=[printable(copy.server) for copy in one.lagging],
                stuck=[printable(copy.server) for copy in one.lagging if copy.server in stuck],
                offline=[printable(name) for name in one.offline],
                fault=printable(one.fault or ""),
            )
            for one in ([] if site is None else site.buckets)
        ],
        fault=printable(facts.site_fault or (site.fault if site is not None else None) or ""),
    )  # fmt: skip


def _stuck(facts: Facts) -> set[str]:
    """Return the servers of which a copy has lagged for more than `STUCK_S`.

    The leader does not say since when. But it says when it heard the server last, and how many writes that lacks: of
    leases there is no more than one a second for each slot.
    """
    if facts.site is None:
        return set()
    most = STUCK_S * _slots_of(facts)
    return {
        copy.server
        for bucket in facts.site.buckets
        for copy in bucket.lagging
        if copy.silent_s > STUCK_S or (bucket.name == f"{facts.cluster}-slots" and copy.writes > most)
    }
