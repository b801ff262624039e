"""Replies to queries have the bytes and the JSON that were recorded before they were typed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tests.unit.router import reply_facts as facts
from watchout.common.bus.messages import AlertScope, Query, QueryReply, decode_from_router, encode
from watchout.common.bus.reply_records import (
    AlertFrameRow,
    DeadAlertRow,
    MetricValues,
    ProcessReport,
    RecentAlertRow,
    ReplyRow,
    ReservationRow,
    StatsReply,
    StreamRow,
    WebhookStats,
    read_reply,
)
from watchout.common.bus.stream_walk import page_of
from watchout.common.errors import BusError
from watchout.common.metrics import Metrics
from watchout.common.process import about
from watchout.common.settings import Settings
from watchout.gateway.http.prometheus import render_metrics
from watchout.gateway.http.public_stats import PublicStreams, stats_page
from watchout.router.queries import QueryHandler

RECORDED = json.loads(Path(__file__).with_name("recorded_replies.json").read_text())
QUERIES = {
    "stats": Query(request=1, what="stats"),
    "stats with a webhook": Query(request=1, what="stats"),
    "streams": Query(request=1, what="streams"),
    "processes": Query(request=1, what="processes"),
    "alerts": Query(request=1, what="alerts"),
    "alerts_reach": Query(request=1, what="alerts", scope=AlertScope(user="ann", own=True)),
    "alert": Query(request=1, what="alert", id="a1"),
    "reservations": Query(request=1, what="reservations"),
}
WEBHOOK = WebhookStats(
    service="https://example.com", waiting=1, sent=2, retries=3, dead=1,
    last_dead=[DeadAlertRow(alert_id="a1", stream_id="cam-1", attempts=4, reason="HTTP status 500", at=facts.NOW_MS)],
)  # fmt: skip
KINDS: list[tuple[str, Any]] = [
    ("stats", StatsReply),
    ("stats with a webhook", StatsReply),
    ("streams", list[StreamRow]),
    ("processes", list[ProcessReport]),
    ("alerts", list[RecentAlertRow]),
    ("alerts_reach", list[RecentAlertRow]),
    ("alert", list[AlertFrameRow]),
    ("reservations", list[ReservationRow]),
    ("unreserve", str),
    ("unreserve nobody", type(None)),
]


class FixedMetrics(Metrics):
    __slots__ = ()

    def read(self) -> dict[str, float]:
        return dict(facts.ROUTER_METRICS)


def bytes_of(body: Any) -> bytes:
    return encode(facts.EPOCH, 7, QueryReply(request=1, body=body))


def recorded(name: str, kind: Any) -> Any:
    envelope = decode_from_router(bytes.fromhex(RECORDED[name]))
    assert isinstance(envelope.body, QueryReply)
    return read_reply(envelope.body.body, kind)


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> QueryHandler:
    monkeypatch.setattr(os, "getpid", lambda: 4001)
    monkeypatch.setattr(about, "VERSION", "1.2.3")
    monkeypatch.setattr(about, "reported_settings", lambda _: {"LOG_LEVEL": "debug"})
    parts: dict[str, Any] = {
        "reservations": SimpleNamespace(failing=False),
        "shares": None,
        "bus": SimpleNamespace(
            frames_sent=5, frames_dropped=6, malformed=0, refused=None, frames_at=None, is_remote=lambda _: False
        ),
        "webhook": SimpleNamespace(report=lambda: WEBHOOK),
    }
    return QueryHandler(
        settings=Settings(),
        metrics=FixedMetrics(),
        epoch=facts.EPOCH,
        started_at=facts.NOW - 12.5,
        members=facts.members(),
        streams=facts.streams(),
        alerts=facts.book(),
        pictures=facts.pictures(),
        **parts,
    )


@pytest.mark.parametrize("name", QUERIES)
def test_a_reply_has_the_recorded_bytes(handler: QueryHandler, name: str) -> None:
    reply = handler.reply(QUERIES[name], facts.NOW, facts.NOW_MS, syncing=False)
    if name == "stats":
        assert isinstance(reply, StatsReply)
        reply = msgspec.structs.replace(reply, webhook=None)
    assert bytes_of(reply).hex() == RECORDED[name]


@pytest.mark.parametrize(("name", "kind"), KINDS, ids=[name for name, _ in KINDS])
def test_what_is_read_from_the_bus_is_written_as_it_was(name: str, kind: Any) -> None:
    assert bytes_of(recorded(name, kind)).hex() == RECORDED[name]


def test_the_json_of_stats_is_the_recorded_one() -> None:
    assert msgspec.json.encode(recorded("stats", StatsReply)).decode() == RECORDED["stats --json"]


def test_the_json_of_the_stats_page_is_the_recorded_one() -> None:
    reply, public = recorded("stats", StatsReply), PublicStreams()
    public.add(reply.streams)
    ids, streams = public.lists()
    assert stats_page(reply, ids, streams).decode() == RECORDED["GET /stats"]
    assert streams.decode() == RECORDED["GET /stats streams"]


def test_stats_without_streams_have_their_number_and_all_else(handler: QueryHandler) -> None:
    whole = handler.reply(QUERIES["stats"], facts.NOW, facts.NOW_MS, syncing=False)
    short = handler.reply(Query(request=1, what="stats", rows=0), facts.NOW, facts.NOW_MS, syncing=False)
    assert isinstance(whole, StatsReply)
    assert isinstance(short, StatsReply)
    assert (short.streams, short.stream_count, whole.stream_count) == ([], len(whole.streams), len(whole.streams))
    assert msgspec.structs.replace(short, streams=whole.streams, totals=whole.totals) == whole


@pytest.mark.parametrize("coverage", [True, False])
def test_pages_have_the_rows_of_the_whole_list(handler: QueryHandler, coverage: bool) -> None:
    stats = handler.reply(QUERIES["stats"], facts.NOW, facts.NOW_MS, syncing=False)
    whole = handler.reply(QUERIES["streams"], facts.NOW, facts.NOW_MS, syncing=False)
    assert isinstance(stats, StatsReply)
    assert isinstance(whole, list)
    rows: list[Any] = []
    more = True
    while more:
        query = Query(request=1, what="streams", rows=1, after=rows[-1].stream_id if rows else "", coverage=coverage)
        sent = decode_from_router(bytes_of(handler.reply(query, facts.NOW, facts.NOW_MS, syncing=False))).body
        assert isinstance(sent, QueryReply)
        page = page_of(sent.body)
        assert len(page.rows) == 1
        rows, more = rows + page.rows, page.more
    assert rows == (stats.streams if coverage else whole)


def test_a_router_that_knows_no_pages_replies_with_one_of_all_rows() -> None:
    envelope = decode_from_router(bytes.fromhex(RECORDED["streams"]))
    assert isinstance(envelope.body, QueryReply)
    page = page_of(envelope.body.body)
    assert (page.rows, page.more) == (recorded("streams", list[StreamRow]), False)
    with pytest.raises(BusError):
        page_of(7)


def test_the_metrics_page_has_the_recorded_values() -> None:
    page = render_metrics(recorded("stats", StatsReply), ("gateway", {})).decode()
    recorded_lines = [line for line in RECORDED["GET /metrics"].splitlines() if not line.startswith("# HELP")]
    added = [line for line in page.splitlines() if not line.startswith("# HELP") and line not in recorded_lines]
    assert [line for line in page.splitlines() if line in recorded_lines] == recorded_lines
    assert [line for line in added if not line.endswith((" counter", "} 0.0"))] == [], "but counters that are at 0"


def test_a_reply_of_another_version_is_read_as_far_as_it_goes() -> None:
    assert read_reply({"router": {"uptimeS": 3, "new": [1]}, "more": 1}, StatsReply).router.uptime_s == 3.0
    assert read_reply([{"name": "old", "kind": "gateway", "pid": 1}], list[ProcessReport])[0].version == ""


def test_alerts_of_a_router_of_the_former_release_have_no_acknowledgement() -> None:
    rows = recorded("alerts of the former release", list[RecentAlertRow])
    assert [(row.id, row.acknowledgement) for row in rows] == [("a1", None), ("a1", None)]
    frames = recorded("alert of the former release", list[AlertFrameRow])
    assert [(row.stream, row.json) for row in frames] == [("cam-1", b""), ("cam-9", b"")]


class FormerAlertRow(ReplyRow, frozen=True):
    """`RecentAlertRow` of the release before acknowledgements."""

    id: str
    owner: str | None
    json: bytes
    at: int = 0
    organizations: tuple[str, ...] = ()


def test_a_gateway_of_the_former_release_reads_rows_without_what_it_does_not_know() -> None:
    rows = recorded("alerts", list[FormerAlertRow])
    assert [row.id for row in rows] == ["a1", "a1"]


def test_a_metric_keeps_its_type_so_that_the_json_stays() -> None:
    metrics = {"a": True, "b": 1, "c": 1.0}
    assert msgspec.json.encode(read_reply(metrics, MetricValues)) == b'{"a":true,"b":1,"c":1.0}'


@pytest.mark.parametrize("body", [None, "x", 1, [1], {"members": {}}, {"router": []}, {"streams": [{"fps": "fast"}]}])
def test_a_reply_of_another_form_is_a_bus_error(body: object) -> None:
    with pytest.raises(BusError, match="unexpected reply"):
        read_reply(body, StatsReply)
