"""The tables of ``watchout-ctl cluster``. Each has a bound, and what it leaves out is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from watchout.ctl.cluster.picture import BucketView, LinkView, Picture, ServerView, SiteHost, SiteProcess, SlotView
from watchout.ctl.stats_view import compact, duration
from watchout.ctl.tables import TableColumn, table
from watchout.ctl.terminal import counted, size

_STATES: Final = {"served": "green", "silent": "red", "missing": "bold red"}

_ProcessOfHost = tuple[SiteHost, SiteProcess]


def render(picture: Picture, *, width: int, rows: int) -> RenderableType:
    """Draw the picture.

    Args:
        picture: The picture, with its sentences.
        width: Width of the terminal, in characters.
        rows: Rows of each table that are shown at most; the others are counted.
    """
    processes = [(host, one) for host in picture.hosts for one in host.processes]
    parts: list[RenderableType] = [_header(picture)]
    parts += [Text(f"missing: {sentence}", "red") for sentence in picture.missing]
    parts += [Text(f"note: {sentence}", "yellow") for sentence in picture.notes]
    parts += [Text(), *table("processes", processes, _PROCESSES, width, rows)]
    parts += [Text(), *table("slots", _worst_first(picture.slots), _SLOTS, width, rows)]
    if picture.cluster:
        spares = ", ".join(picture.spares[:rows]) or "none"
        more = len(picture.spares) - rows
        parts += [Text(), Text(f"spare routers: {spares}{f' and {more} more' if more > 0 else ''}")]
    parts += [Text(), *table("links between processes", picture.links, _LINKS, width, rows)]
    if (unseen := picture.links_total - len(picture.links)) > 0:
        parts.append(Text(f"… and {unseen} more that their processes did not name", "bright_black"))
    if picture.nats is not None:
        parts += [Text(), *table("NATS servers", picture.nats.servers, _SERVERS, width, rows)]
        parts += [Text(), *table("buckets", picture.nats.buckets, _BUCKETS, width, rows)]
    return Group(*parts)


def _header(picture: Picture) -> Text:
    served = sum(slot.state == "served" for slot in picture.slots)
    slots = picture.slots
    line = Text()
    if picture.cluster:
        line.append(f"cluster {picture.cluster}", "bold")
        line.append(f" · {counted(len(picture.hosts), 'host')} · ")
        line.append(
            f"{served} of {counted(len(slots), 'slot')} served", "green" if served == len(slots) else "bold red"
        )
        line.append(f" · {counted(len(picture.spares), 'spare router')}\n")
    else:
        line.append("one machine", "bold")
        line.append(", without NATS: WATCHOUT_BUS is not set; one router serves all streams\n")
    for number, (name, values) in enumerate(
        (
            ("stream", [slot.streams for slot in slots]),
            ("camera", [slot.cameras for slot in slots]),
            ("viewer", [slot.viewers for slot in slots]),
        )
    ):
        line.append(f"{' · ' if number else ''}{counted(sum(value or 0 for value in values), name)}")
    if served < len(slots):
        line.append(" (those of other slots are not known)", "yellow")
    return line


def _worst_first(slots: Sequence[SlotView]) -> list[SlotView]:
    return sorted(slots, key=lambda slot: (slot.state == "served", slot.slot))


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}s" if value < 10 else duration(value)


def _number(value: int | None) -> str:
    return "–" if value is None else compact(value)


def _clock(row: _ProcessOfHost) -> str:
    apart_ms = row[0].clock_ms
    return "–" if apart_ms is None else f"{apart_ms / 1000:+z.1f}s"


def _state(row: _ProcessOfHost) -> Text:
    one = row[1]
    if one.lost_s is not None:
        return Text(f"lost {duration(one.lost_s)} ago", "bold red")
    if one.not_joined:
        return Text(f"not at slot {','.join(map(str, one.not_joined[:4]))}", "red")
    if one.silent_s is not None and one.silent_s > 1.5:
        return Text(f"silent {one.silent_s:.1f}s", "red")
    if one.kind == "router":
        return Text("spare" if not one.slots else f"slot {','.join(map(str, one.slots[:8]))}")
    return Text("joined", "green")


_PROCESSES: Final[Sequence[TableColumn[_ProcessOfHost]]] = (
    TableColumn("process", lambda row: row[1].name, right=False, max_width=24),
    TableColumn("kind", lambda row: row[1].kind, 2, right=False),
    TableColumn("host", lambda row: row[0].host, right=False, max_width=24),
    TableColumn("pid", lambda row: str(row[1].pid or "–"), 1),
    TableColumn("version", lambda row: row[1].version or "–", 3, right=False, max_width=16),
    TableColumn("up", lambda row: "–" if row[1].up_s is None else duration(row[1].up_s)),
    TableColumn("clock", _clock, 1),
    TableColumn("sockets", lambda row: _number(row[1].sockets), 4),
    TableColumn("state", _state, right=False),
)
_SLOTS: Final[Sequence[TableColumn[SlotView]]] = (
    TableColumn("slot", lambda slot: str(slot.slot), right=False),
    TableColumn("state", lambda slot: Text(slot.state, _STATES.get(slot.state, "")), right=False),
    TableColumn("router", lambda slot: slot.router or "–", right=False, max_width=24),
    TableColumn("host", lambda slot: slot.host or "–", right=False, max_width=24),
    TableColumn("epoch", lambda slot: str(slot.epoch or "–"), 3),
    TableColumn("lease", lambda slot: _seconds(slot.lease_age_s), 1),
    TableColumn("streams", lambda slot: _number(slot.streams)),
    TableColumn("cameras", lambda slot: _number(slot.cameras), 2),
    TableColumn("viewers", lambda slot: _number(slot.viewers), 2),
)
_LINKS: Final[Sequence[TableColumn[LinkView]]] = (
    TableColumn("from", lambda link: f"{link.sender} {link.sender_host}", right=False, max_width=32),
    TableColumn("to", lambda link: f"{link.to} {link.to_host}".rstrip(), right=False, max_width=32),
    TableColumn(
        "state", lambda link: Text("up", "green") if link.connected else Text("no connection", "red"), right=False
    ),
    TableColumn("frames/s", lambda link: compact(link.frames_per_s, 1)),
    TableColumn("bytes/s", lambda link: size(link.bytes_per_s)),
    TableColumn("replaced", lambda link: compact(link.replaced), 1),
    TableColumn("evicted", lambda link: compact(link.evicted), 1),
    TableColumn("queued", lambda link: size(link.queued_bytes), 2),
)
_SERVERS: Final[Sequence[TableColumn[ServerView]]] = (
    TableColumn("NATS server", lambda one: one.server, right=False, max_width=40),
    TableColumn("name", lambda one: one.name or "–", 1, right=False, max_width=24),
    TableColumn("version", lambda one: one.version or "–", 2, right=False),
    TableColumn(
        "round trip",
        lambda one: Text("cannot be used", "red") if one.fault else Text(f"{one.round_trip_ms or 0:.1f}ms"),
    ),
    TableColumn("tells of others", lambda one: str(one.others), 3),
)
_BUCKETS: Final[Sequence[TableColumn[BucketView]]] = (
    TableColumn("bucket", lambda one: one.bucket, right=False, max_width=40),
    TableColumn("replicas", lambda one: str(one.replicas or "–")),
    TableColumn("leader", lambda one: one.leader or "–", right=False, max_width=24),
    TableColumn(
        "away or behind",
        lambda one: Text(", ".join([*one.offline, *one.lagging]) or "–", "red" if one.offline or one.stuck else ""),
        1, right=False, max_width=40,
    ),
)  # fmt: skip
