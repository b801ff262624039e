"""The replies of the routers of several slots to one query, merged into one. Pure.

Each stream belongs to one slot, and each process is a member at all of them: rows of streams are put together, rows of
processes are told apart by their `process`. What a slot that did not answer would add is missing; the caller names the
slot. The reply of one slot alone is returned as it is.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from watchout.common import metric_names
from watchout.common.bus.reply_records import (
    MemberRow,
    ProcessReport,
    R,
    RecentAlertRow,
    ReservationRow,
    RouterStats,
    SlotStats,
    StatsReply,
    StreamRow,
    Totals,
    WebhookStats,
)

#: Most bytes of alerts in a merged reply, as in that of one router.
MAX_ALERT_BYTES: Final = 8 << 20
#: Most dead alerts of the webhook in a merged reply.
MAX_DEAD: Final = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Merged(Generic[R]):
    """A reply that was merged from those of all slots.

    Attributes:
        reply: What the slots that answered know.
        missing: The slots that did not answer, none on one machine.

    """

    reply: R
    missing: tuple[int, ...] = ()


def merge_stats(replies: Mapping[int, StatsReply], missing: Sequence[int] = (), *, slots: int = 1) -> StatsReply:
    """Merge the replies to ``stats``.

    Args:
        replies: By slot.
        missing: The slots that did not answer.
        slots: How many slots there are.

    Returns:
        The merged reply. Where there are several slots, `StatsReply.routers` has the router of each, and
        `StatsReply.missing_slots` the slots without one, unless all answered.

    """
    if slots == 1:
        return next(iter(replies.values()))
    each = list(replies.values())
    members = _merge_members(reply.members for reply in each)
    sockets = sum(int(m.metrics.get(metric_names.SOCKETS, 0)) for m in members if m.kind == "gateway")
    return StatsReply(
        router=_merge_routers([reply.router for reply in each]),
        members=members,
        streams=merge_streams([reply.streams for reply in each]),
        webhook=_merge_webhooks([reply.webhook for reply in each if reply.webhook is not None]),
        totals=Totals(
            producers=sum(reply.totals.producers for reply in each),
            video_consumers=sum(reply.totals.video_consumers for reply in each),
            alert_consumers=sum(reply.totals.alert_consumers for reply in each),
            connections=sockets,
            streams=sum(reply.stream_count for reply in each),
        ),
        routers=[SlotStats(slot=slot, router=reply.router) for slot, reply in sorted(replies.items())],
        missing_slots=list(missing) or msgspec.UNSET,
    )


def merge_streams(replies: Iterable[Iterable[StreamRow]]) -> list[StreamRow]:
    """Merge the replies to ``streams``.

    Args:
        replies: Rows of each slot.

    Returns:
        All rows, by stream id. Of two of one stream, as while a slot changes its router, the one that started later.

    """
    rows: dict[str, StreamRow] = {}
    for row in (row for reply in replies for row in reply):
        known = rows.get(row.stream_id)
        if known is None or row.started_at > known.started_at:
            rows[row.stream_id] = row
    return [rows[stream] for stream in sorted(rows)]


def merge_alerts(
    replies: Iterable[Sequence[RecentAlertRow]], limit: int, *, max_bytes: int = MAX_ALERT_BYTES
) -> list[RecentAlertRow]:
    """Merge the replies to ``alerts``: the newest rows by the time of their acceptance.

    Args:
        replies: Rows of each slot, oldest first, with times of one clock.
        limit: Most rows.
        max_bytes: Most bytes of their JSON; the row that goes past it is the last one.

    Returns:
        The rows, oldest first.

    """
    newest_first = heapq.merge(*(list(reversed(rows)) for rows in replies), key=operator.attrgetter("at"), reverse=True)
    found: list[RecentAlertRow] = []
    size = 0
    for row in newest_first:
        if len(found) >= limit or size > max_bytes:
            break
        found.append(row)
        size += len(row.json)
    found.reverse()
    return found


def merge_reservations(replies: Sequence[Sequence[ReservationRow]], limit: int) -> list[ReservationRow]:
    """Merge the replies to ``reservations``.

    Args:
        replies: Rows of each slot.
        limit: Most rows.

    Returns:
        The rows that end first.

    """
    if len(replies) == 1:
        return list(replies[0])
    return sorted((row for reply in replies for row in reply), key=lambda row: (row.left_s, row.stream))[:limit]


def merge_processes(replies: Iterable[Iterable[ProcessReport]]) -> list[ProcessReport]:
    """Merge the replies to ``processes``.

    Args:
        replies: Rows of each slot.

    Returns:
        A row for each process, the routers first.

    """
    rows = _unique((row for reply in replies for row in reply), _process_of)
    return sorted((_without_process(row) for row in rows), key=lambda row: row.kind != "router")


def _process_of(row: ProcessReport) -> object:
    return (row.kind, row.name, row.pid) if row.process is msgspec.UNSET else row.process


def _without_process(row: ProcessReport) -> ProcessReport:
    return msgspec.structs.replace(row, process=msgspec.UNSET)


def _merge_members(replies: Iterable[Iterable[MemberRow]]) -> list[MemberRow]:
    """Return a row for each process, under its own id, as the slot knows it that it joined first.

    Its latencies are those of the slot that it reports them to, its metrics those of the slot that was told them last.
    """
    rows = sorted((row for reply in replies for row in reply), key=lambda row: -row.alive_s)
    latencies = {row.process: row.latencies for row in reversed(rows) if row.latencies is not msgspec.UNSET}
    metrics = {row.process: row.metrics for row in sorted(rows, key=_told_at)}
    return [
        row
        if row.process is msgspec.UNSET
        else msgspec.structs.replace(
            row,
            id=row.process,
            process=msgspec.UNSET,
            metrics=metrics[row.process],
            latencies=latencies.get(row.process, msgspec.UNSET),
        )
        for row in _unique(rows, lambda row: row.id if row.process is msgspec.UNSET else row.process)
    ]


def _told_at(row: MemberRow) -> float:
    """Return how old the process was when it told these metrics, in seconds."""
    return row.metrics.get(metric_names.UPTIME_SECONDS, 0.0)


def _merge_routers(routers: Sequence[RouterStats]) -> RouterStats:
    """Return what holds of all routers together: the sums of their metrics, and active where one is."""
    metrics: dict[str, int | float | bool] = {}
    for router in routers:
        for name, value in router.metrics.items():
            metrics[name] = value if name not in metrics else metrics[name] + value
    return RouterStats(
        epoch=max(router.epoch for router in routers),
        uptime_s=min(router.uptime_s for router in routers),
        pid=routers[0].pid,
        state=next((router.state for router in routers if router.state == "active"), routers[0].state),
        metrics=metrics,
    )


def _merge_webhooks(webhooks: Sequence[WebhookStats]) -> WebhookStats | None:
    """Return the counts of all routers together; None where no webhook is set."""
    if not webhooks:
        return None
    dead = sorted((row for each in webhooks for row in each.last_dead), key=lambda row: row.at)
    return WebhookStats(
        service=webhooks[0].service,
        disabled=any(each.disabled for each in webhooks),
        waiting=sum(each.waiting for each in webhooks),
        sent=sum(each.sent for each in webhooks),
        retries=sum(each.retries for each in webhooks),
        dead=sum(each.dead for each in webhooks),
        last_dead=dead[-MAX_DEAD:],
    )


def _unique(rows: Iterable[T], key: Callable[[T], object]) -> list[T]:
    """Return the first row of each key."""
    found: dict[object, T] = {}
    for row in rows:
        found.setdefault(key(row), row)
    return list(found.values())
