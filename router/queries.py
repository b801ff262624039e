"""Replies to the queries of operators and HTTP clients, from what the router keeps in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import msgspec

from watchout.common import metric_names
from watchout.common.bus.messages import Query
from watchout.common.bus.reply_records import (
    AlertFrameRow,
    ClusterReply,
    LatencyReply,
    MetricValues,
    ProcessReport,
    RecentAlertRow,
    RecentAlertsReply,
    ReplyBody,
    ReservationRow,
    RouterStats,
    StatsReply,
)
from watchout.common.bus.transport import RouterTransport
from watchout.common.media.held_frames import HeldFrames
from watchout.common.metrics import Metrics
from watchout.common.process import about
from watchout.common.process.process_name import wanted_name
from watchout.common.settings import Settings
from watchout.router import stats
from watchout.router.alerts.recent import RecentAlerts
from watchout.router.latencies import latency_reply
from watchout.router.members import Members
from watchout.router.record_store import ReservationStore
from watchout.router.shares.handler import ShareHandler
from watchout.router.slots.report import LeaseSource
from watchout.router.streams.registry import Streams

if TYPE_CHECKING:  # loaded where a webhook is set
    from watchout.router.webhook.sender import WebhookSender


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryHandler:
    """Builds the reply to each kind of `Query`. Created by `SlotRouter`, called by `MessageHandler`.

    `started_at` is when the router started, in seconds of its monotonic clock. `webhook` is None where no webhook is
    set, `lease` where there is one slot.
    """

    settings: Settings
    metrics: Metrics
    epoch: int
    started_at: float
    members: Members
    streams: Streams
    alerts: RecentAlerts
    shares: ShareHandler
    pictures: HeldFrames[bytes]
    reservations: ReservationStore
    bus: RouterTransport
    webhook: WebhookSender | None
    lease: LeaseSource | None = None

    def reply(self, query: Query, now: float, now_ms: int, *, syncing: bool) -> ReplyBody:
        """Return the body of the reply to `query`.

        Args:
            query: What is asked for, by whom.
            now: The router's monotonic clock, in seconds.
            now_ms: The same moment in ms since the epoch.
            syncing: Whether the router still waits for the gateways of its predecessor.

        """
        match query.what:
            case "stats":
                return self._stats(now, now_ms, syncing=syncing, with_streams=query.rows is None)
            case "streams":
                if query.rows is None:
                    return stats.stream_rows(self.members, self.streams, now_ms)
                return stats.stream_page(
                    self.members, self.streams, now_ms,
                    after=query.after, limit=max(1, query.rows), coverage=query.coverage,
                )  # fmt: skip
            case "processes":
                return stats.process_reports(self._own_report(now), self.members, now, is_remote=self.bus.is_remote)
            case "cluster":
                return self._cluster(now, now_ms, syncing=syncing)
            case "latency":
                return self._latency(query, now)
            case "alerts":
                return self._recent_alerts(query, now_ms)
            case "alert":
                return self._alert_frames(query.id or "")
            case "reservations":
                rows = self.streams.reservations(query.user, query.limit, now)
                return [ReservationRow(stream, user, left_s) for stream, user, left_s in rows]
            case "shares":
                return self.shares.rows(stream=query.stream, user=query.user, ids=query.ids, now_ms=now_ms)
            case "why":
                raise AssertionError("`MessageHandler` asks the members too")
        assert_never(query.what)

    def _stats(self, now: float, now_ms: int, *, syncing: bool, with_streams: bool) -> StatsReply:
        self._update_metrics()
        metrics = self.metrics.read()
        metrics[metric_names.BUS_BAD_MESSAGES] = metrics.get(metric_names.BUS_BAD_MESSAGES, 0) + self.bus.malformed
        return stats.stats_reply(
            router=self._router(dict(metrics), now, syncing=syncing),
            members=self.members,
            streams=self.streams,
            webhook=None if self.webhook is None else self.webhook.report(),
            now=now,
            now_ms=now_ms,
            with_streams=with_streams,
        )

    def _router(self, metrics: MetricValues, now: float, *, syncing: bool) -> RouterStats:
        router = RouterStats(
            epoch=self.epoch,
            uptime_s=round(now - self.started_at, 3),
            pid=os.getpid(),
            state="syncing" if syncing else "active",
            metrics=metrics,
        )
        return router if self.lease is None else stats.with_lease(router, self.lease())

    def _cluster(self, now: float, now_ms: int, *, syncing: bool) -> ClusterReply:
        totals = self.streams.totals(connections=0)
        return ClusterReply(
            router=self._router({}, now, syncing=syncing),
            version=about.VERSION,
            process="" if self.lease is None else self.lease().process,
            now=now_ms,
            streams=self.streams.published_count,
            cameras=totals.producers,
            viewers=totals.video_consumers,
            members=stats.cluster_members(self.members, now, is_remote=self.bus.is_remote),
            lost=stats.lost_processes(self.members, now),
        )

    def _update_metrics(self) -> None:
        """Copy counts that other parts keep into the router's metrics."""
        metrics, members = self.metrics, self.members.all()
        metrics.set(metric_names.MEMBERS, len(members))
        metrics.set(metric_names.STREAMS, len(self.streams))
        metrics.set(metric_names.STREAM_RESERVATIONS, self.streams.reserved_count)
        metrics.values[metric_names.STREAM_RESERVATIONS_EVICTED] = self.streams.reserved_evicted
        metrics.set(metric_names.STREAM_RESERVATIONS_UNSAVED, self.reservations.failing)
        metrics.set(metric_names.ALERT_PICTURE_BYTES, self.pictures.bytes)
        metrics.set(metric_names.RECENT_ALERT_BYTES, self.alerts.size_bytes)
        metrics.values[metric_names.RECENT_ALERTS_EVICTED] = self.alerts.evicted
        metrics.values[metric_names.FRAMES_OLD_TERM] = self.streams.old_term_frames
        metrics.values[metric_names.FRAMES_ROUTED] = self.bus.frames_sent
        metrics.values[metric_names.FRAMES_DROPPED_BUS] = self.bus.frames_dropped
        if self.lease is not None:
            lease = self.lease()
            metrics.set(metric_names.SLOTS_HELD, lease.held)
            metrics.values[metric_names.SLOTS_TAKEN] = lease.taken
            metrics.values[metric_names.SLOT_LEASES_LOST] = lease.lost
            metrics.values[metric_names.SLOT_CONFLICTS] = lease.conflicts
            metrics.set(metric_names.SLOT_RENEWED_SECONDS, round(lease.oldest_s, 3))
        if self.bus.refused is not None:
            metrics.set(metric_names.REMOTE_MEMBERS, sum(self.bus.is_remote(m.id) for m in members))
            metrics.values[metric_names.REMOTE_REFUSED] = self.bus.refused

    def _own_report(self, now: float) -> ProcessReport:
        report = ProcessReport(
            name=wanted_name(self.settings, "router"),
            kind="router",
            pid=os.getpid(),
            up_s=round(now - self.started_at, 3),
            version=about.VERSION,
            settings=about.reported_settings(self.settings),
            frames_at=stats.frames_of_hosts_at(self.bus.frames_at),
        )
        if self.lease is not None:
            lease = self.lease()
            report = msgspec.structs.replace(report, host=lease.host, process=lease.process)
        return stats.with_limits(report, self.metrics.read())

    def _latency(self, query: Query, now: float) -> LatencyReply:
        members = self.members.all()
        apart = [abs(each.clock.apart_ms) for each in members if each.clock.apart_ms is not None]
        latencies = [each.latencies for each in members]
        return latency_reply(latencies, query.stream, query.limit, now, clocks_ms=max(apart, default=0))

    def _recent_alerts(self, query: Query, now_ms: int) -> list[RecentAlertRow] | RecentAlertsReply:
        """Return the recent alerts that `query` selects, oldest first."""
        scope, streams = query.scope, self.streams

        def wanted(stream: str, owner: str | None) -> bool:
            return scope is None or scope.includes(stream, owner, streams.organizations_of(stream, owner))

        rows = self.alerts.recent(
            query.stream, since=query.since, limit=query.limit, severity=query.severity, wanted=wanted,
            users=None if scope is None else scope.owners(), or_acknowledged=query.or_acknowledged,
        )  # fmt: skip
        alerts = [
            RecentAlertRow(alert_id, owner, json, at, streams.organizations_of(stream, owner), acknowledgement)
            for alert_id, owner, json, at, stream, acknowledgement in rows
        ]
        if not query.tell_missing or query.stream is None:
            return alerts
        missing = self.alerts.missing(query.stream, query.since, len(alerts), now_ms)
        return RecentAlertsReply(alerts=alerts, missing_before=missing)

    def _alert_frames(self, alert_id: str) -> list[AlertFrameRow]:
        """Return the frames of the alerts of this id, and whether their pictures are kept."""
        return [
            AlertFrameRow(
                stream, owner, term, frame_id, self.pictures.find(stream, (term, frame_id)) is not None, json, at
            )
            for stream, owner, term, frame_id, json, at in self.alerts.of_id(alert_id)
        ]
