"""The replies to ``stats``, ``streams`` and ``processes``, built from members and streams. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from watchout.common import metric_names
from watchout.common.bus.mesh_address import TLS
from watchout.common.bus.reply_records import (
    ClusterMember,
    LostProcess,
    MemberRow,
    ProcessReport,
    RouterStats,
    StatsReply,
    StreamPage,
    StreamRow,
    WebhookStats,
)
from watchout.router.members import Members
from watchout.router.slots.report import LeaseReport
from watchout.router.streams.registry import Streams


def stats_reply(
    *,
    router: RouterStats,
    members: Members,
    streams: Streams,
    webhook: WebhookStats | None,
    now: float,
    now_ms: int,
    with_streams: bool = True,
) -> StatsReply:
    """Build the reply to ``stats``.

    Args:
        router: What the router reports of itself.
        members: All members; `StatsReply.totals` sums the sockets of the gateways among them.
        streams: All streams; those with a publisher get a row.
        webhook: What the webhook sender reports; None where no webhook is set.
        now: The router's monotonic clock, in seconds.
        now_ms: The same moment in ms since the epoch.
        with_streams: Whether the reply has the streams; else their number is in the totals.

    """
    everybody = members.all()
    connections = sum(int(m.metrics.get(metric_names.SOCKETS, 0)) for m in everybody if m.hello.kind == "gateway")
    totals = streams.totals(connections=connections)
    return StatsReply(
        router=router,
        members=[
            MemberRow(
                id=m.id.hex(),
                name=m.hello.name,
                kind=m.hello.kind,
                pid=m.hello.pid,
                group=m.hello.group,
                alive_s=round(now - m.joined_at, 3),
                metrics=dict(m.metrics),
                process=m.hello.process or msgspec.UNSET,
                latencies=m.latencies.since_start or msgspec.UNSET,
            )
            for m in everybody
        ],
        streams=streams.rows(_names(members), now_ms, members.coverage()) if with_streams else [],
        webhook=webhook,
        totals=totals if with_streams else msgspec.structs.replace(totals, streams=streams.published_count),
    )


def with_lease(router: RouterStats, lease: LeaseReport) -> RouterStats:
    """Add to a router's report which slot it has, in which process, and how old its lease is."""
    return msgspec.structs.replace(
        router, slot=lease.slot, name=lease.name, host=lease.host, lease_age_s=round(lease.age_s, 3)
    )


def stream_rows(members: Members, streams: Streams, now_ms: int) -> list[StreamRow]:
    """Build the reply to ``streams``: a row for each stream with a publisher, by stream id.

    `now_ms` is in ms since the epoch.
    """
    return streams.rows(_names(members), now_ms)


def stream_page(
    members: Members, streams: Streams, now_ms: int, *, after: str, limit: int, coverage: bool
) -> StreamPage:
    """Build the reply to ``streams`` for a part of them.

    Args:
        members: All members.
        streams: All streams.
        now_ms: The present time in ms since the epoch.
        after: The page begins with the first stream above this id.
        limit: Most rows, at least 1.
        coverage: Whether the rows have the coverage, in the place of what cameras say of themselves.

    """
    shares = members.coverage() if coverage else None
    rows, more = streams.page(after, limit, _names(members), now_ms, shares)
    return StreamPage(rows=rows, more=more)


def _names(members: Members) -> dict[bytes, str]:
    return {m.id: m.hello.name for m in members.all()}


def process_reports(
    own: ProcessReport, members: Members, now: float, *, is_remote: Callable[[bytes], bool]
) -> list[ProcessReport]:
    """Build the reply to ``processes``: `own` first, then each member that is not an operator's command, and those that
    may not join because they have another number of slots.

    `now` is the router's monotonic clock in seconds. `is_remote` says of a member id whether it is joined over TCP.
    """
    return [
        own,
        *(
            with_limits(
                ProcessReport(
                    name=m.hello.name,
                    kind=m.hello.kind,
                    pid=m.hello.pid,
                    up_s=round(now - m.joined_at, 3),
                    version=m.hello.release,
                    settings=m.hello.settings,
                    remote=is_remote(m.id),
                    host=m.hello.host or msgspec.UNSET,
                    process=m.hello.process or msgspec.UNSET,
                    frames_at=frames_of_hosts_at(m.hello.frames_at),
                ),
                m.metrics,
            )
            for m in members.all()
            if m.hello.kind != "ctl"
        ),
        *(
            ProcessReport(
                name=each.hello.name,
                kind=each.hello.kind,
                pid=each.hello.pid,
                version=each.hello.release,
                settings=each.hello.settings,
                host=each.hello.host or msgspec.UNSET,
                process=each.hello.process or msgspec.UNSET,
                other_slots=each.hello.slots,
            )
            for each in members.turned_away_lately(now)
        ),
    ]


def cluster_members(members: Members, now: float, *, is_remote: Callable[[bytes], bool]) -> list[ClusterMember]:
    """Return the processes of the reply to ``cluster``; the arguments of `process_reports`."""
    return [
        ClusterMember(
            kind=m.hello.kind,
            name=m.hello.name,
            pid=m.hello.pid,
            host=m.hello.host,
            url=m.hello.url,
            version=m.hello.release,
            up_s=round(m.metrics.get(metric_names.UPTIME_SECONDS, now - m.joined_at), 1),
            silent_s=round(max(0.0, now - m.last_message_at), 1),
            remote=is_remote(m.id),
            sockets=int(m.metrics.get(metric_names.SOCKETS, 0)),
            at=m.hello.frames_at or msgspec.UNSET,
            apart_ms=msgspec.UNSET if m.clock.apart_ms is None else m.clock.apart_ms,
            links=[] if m.links is None else list(m.links.rows),
            links_total=0 if m.links is None else m.links.total,
            links_age_s=msgspec.UNSET if m.links is None else round(now - m.links_at, 1),
            process=m.hello.process or msgspec.UNSET,
        )
        for m in members.all()
        if m.hello.kind != "ctl"
    ]


def lost_processes(members: Members, now: float) -> list[LostProcess]:
    """Return the gateways and bridges that fell silent and did not come back, for the reply to ``cluster``."""
    return [
        LostProcess(
            kind=each.hello.kind,
            name=each.hello.name,
            pid=each.hello.pid,
            host=each.hello.host,
            ago_s=round(now - each.at, 1),
        )
        for each in members.lost_lately(now)
    ]


def frames_of_hosts_at(address: str | None) -> str | msgspec.UnsetType:
    """Return an address of the frame mesh if other hosts reach it; absent for one that only its own home reaches."""
    return address if address is not None and address.startswith(TLS) else msgspec.UNSET


def with_limits(report: ProcessReport, metrics: Mapping[str, float]) -> ProcessReport:
    """Add to a report the process's descriptors and the connections that it takes, as far as its metrics have them."""
    fields = {
        "open_files": metric_names.DESCRIPTORS_OPEN,
        "open_files_limit": metric_names.DESCRIPTORS_LIMIT,
        "connections_limit": metric_names.CONNECTIONS_LIMIT,
    }
    found = {field: int(metrics[name]) for field, name in fields.items() if name in metrics}
    return msgspec.structs.replace(report, **found)
