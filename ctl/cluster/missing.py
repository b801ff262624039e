"""What a site lacks, in sentences: what is missing now, and what else an operator wants to know. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from watchout.ctl.cluster.facts import Facts
from watchout.ctl.cluster.picture import BucketView, LinkView, NatsView, Picture, SiteHost, SlotView
from watchout.ctl.stats_view import duration
from watchout.ctl.terminal import counted

#: A member that was silent for longer than this does not answer, in seconds: two of its heartbeats are missing.
SILENT_S: Final = 1.5
#: Clocks that are further apart than this are worth a note, in ms: nothing of a cluster depends on it, tokens do.
CLOCK_MS: Final = 2_000
#: NATS servers of which one may be lost.
ENOUGH_SERVERS: Final = 3
#: Sentences of one kind at most; of the others there is a number.
MAX_OF_KIND: Final = 10


def judged(picture: Picture, facts: Facts) -> Picture:
    """Return the picture with its sentences.

    Args:
        picture: the picture.
        facts: what it was drawn from.
    """
    missing: list[str] = []
    nats = _nats(picture.nats, len(picture.slots))
    if not picture.hosts and picture.nats is not None and picture.nats.fault:  # nobody can be seen: who is there?
        found = [nats, _settings(facts)]
    else:
        found = [_slots(picture), _nobody(picture.hosts), _silent(picture.hosts), _links(picture.links), nats,
                 _settings(facts)]  # fmt: skip
    for sentences in found:
        missing += _bounded(list(sentences))
    notes: list[str] = []
    for sentences in (_clocks(picture.hosts), _versions(picture.hosts), _spares(picture), _small_nats(picture.nats)):
        notes += _bounded(list(sentences))
    return msgspec.structs.replace(picture, missing=missing, notes=notes)


def _bounded(sentences: Sequence[str]) -> list[str]:
    more = len(sentences) - MAX_OF_KIND
    return [*sentences[:MAX_OF_KIND], *([f"… and {more} more of this kind."] if more > 0 else [])]


def _who(name: str, host: str) -> str:
    return f"{name} of {host}" if host else name


def _slots(picture: Picture) -> Iterator[str]:
    """Slots without a router that replies, and leases that name another one."""
    spare = (
        f"{counted(len(picture.spares), 'spare')} ({', '.join(picture.spares[:3])}) should take it within seconds"
        if picture.spares
        else "another router process should take it within seconds"
        if any(one.kind == "router" for host in picture.hosts for one in host.processes)
        else "no router process is there: start `watchout-router`"
    )
    for slot in picture.slots:
        what = f"Slot {slot.slot}"
        if slot.state == "missing":
            yield f"{what} has no router: claims of its streams are refused{_lease_of(slot)}; {spare}."
        elif slot.state == "silent":
            why = f" ({slot.why})" if slot.why else ""
            yield (
                f"{what}: its router, {_who(slot.router, slot.host)}, beats and does not reply{why}: claims of its "
                "streams are refused; look at its log."
            )
        elif slot.lease_differs:
            yield (
                f"{what}: {_who(slot.router, slot.host)} replies with epoch {slot.epoch}, and {slot.lease_differs}: "
                "it gives the slot up, or takes it anew, within seconds."
            )


def _lease_of(slot: SlotView) -> str:
    if not slot.router:
        return ""
    age = "" if slot.lease_age_s is None else f", renewed {duration(slot.lease_age_s)} ago"
    return f" (its lease names {_who(slot.router, slot.host)}{age})"


def _nobody(hosts: Sequence[SiteHost]) -> Iterator[str]:
    if not any(one.kind == "gateway" and one.lost_s is None for host in hosts for one in host.processes):
        yield "No gateway is joined: clients cannot connect. Start `watchout-gateway`."


def _silent(hosts: Sequence[SiteHost]) -> Iterator[str]:
    """Processes that do not answer, or answer to some routers alone."""
    for host in hosts:
        for one in host.processes:
            who = f"{one.kind} {_who(one.name, host.host)} (process {one.pid})"
            if one.lost_s is not None:
                yield (
                    f"The {who} fell silent {duration(one.lost_s)} ago and did not come back: it was killed, hangs, or "
                    "is cut off."
                )
            elif one.silent_s is not None and one.silent_s > SILENT_S:
                yield f"The {who} has said nothing for {one.silent_s:.1f} s: it hangs, or is cut off."
            if one.not_joined:
                yield (
                    f"The {who} is not joined with {_numbers('slot', one.not_joined)}, of which the router replies: it "
                    "has just started, or does not reach it."
                )


def _numbers(noun: str, numbers: Sequence[int]) -> str:
    return f"{noun}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _links(links: Sequence[LinkView]) -> Iterator[str]:
    for link in links:
        if not link.connected and link.to_host:
            why = f": {link.fault}" if link.fault else ""
            yield (
                f"Frames of {_who(link.sender, link.sender_host)} do not reach {_who(link.to, link.to_host)} at "
                f"{link.at}{why}."
            )


def _nats(nats: NatsView | None, slots: int) -> Iterator[str]:
    if nats is None:
        return
    for server in nats.servers:
        if server.fault:
            yield f"The NATS server {server.server} cannot be used: {server.fault}."
    if nats.fault:
        yield f"The site cannot be looked at over NATS: {nats.fault}. Leases and spare routers are not known."
    for bucket in nats.buckets:
        yield from _bucket(bucket, nats, slots)


def _bucket(bucket: BucketView, nats: NatsView, slots: int) -> Iterator[str]:
    name = f"The bucket {bucket.bucket}"
    if bucket.fault:
        yield f"{name} cannot be read: {bucket.fault}."
        return
    if bucket.offline:
        yield f"{name} lacks {_those(bucket.offline)}: {counted(bucket.replicas, 'replica')} in all."
    if bucket.stuck:
        yield (
            f"{name} has not been up to date at {_those(bucket.stuck)} for over a minute, so that one more lost server "
            "stops it. nats-server does not go on by itself after its disk was full: make room, and restart it."
        )
    if bucket.replicas > 1 and not bucket.leader:
        yield f"{name} has no leader: no router can take or renew one of the {counted(slots, 'slot')}."
    wanted = min(ENOUGH_SERVERS, _servers(nats))
    if bucket.replicas < wanted:
        yield (
            f"{name} has {bucket.replicas} of {wanted} replicas: it is lost with their servers "
            f"(nats stream update KV_{bucket.bucket} --replicas {wanted})."
        )


def _those(names: Sequence[str]) -> str:
    return f"the server{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _servers(nats: NatsView) -> int:
    return max((1 + server.others for server in nats.servers if not server.fault), default=0)


def _settings(facts: Facts) -> Iterator[str]:
    agreed = None if facts.site is None else facts.site.slots
    if agreed is not None and agreed != facts.slots:
        yield (
            f"CLUSTER_SLOTS is {facts.slots} here, and the routers have {agreed}: a process with this setting does not "
            "find its streams."
        )
    for sentence in [] if facts.site is None else facts.site.denied:
        yield f"{sentence[:1].upper()}{sentence[1:]}."


def _clocks(hosts: Sequence[SiteHost]) -> Iterator[str]:
    for host in hosts:
        if host.clock_ms is not None and abs(host.clock_ms) > CLOCK_MS:
            way = "ahead of" if host.clock_ms > 0 else "behind"
            yield (
                f"The clock of {host.host} is {abs(host.clock_ms) / 1000:.1f} s {way} that of this machine: nothing is "
                "lost by that, but tokens end that much early or late there. Synchronize both by NTP."
            )


def _versions(hosts: Sequence[SiteHost]) -> Iterator[str]:
    versions = sorted({one.version for host in hosts for one in host.processes if one.version})
    if len(versions) > 1:
        yield f"Processes of different versions: {', '.join(versions)}."


def _spares(picture: Picture) -> Iterator[str]:
    routers = sum(one.kind == "router" for host in picture.hosts for one in host.processes)
    if picture.cluster and routers == 1:
        yield "There is one router process: when it ends, no other one takes its slots."


def _small_nats(nats: NatsView | None) -> Iterator[str]:
    if nats is not None and 0 < _servers(nats) < ENOUGH_SERVERS:
        yield f"NATS has {_servers(nats)} of {ENOUGH_SERVERS} servers: one that ends may stop claims and alerts."
    for bucket in [] if nats is None else nats.buckets:
        lagging = [name for name in bucket.lagging if name not in bucket.stuck]
        if lagging:
            yield f"The bucket {bucket.bucket} is not up to date at {_those(lagging)}."
