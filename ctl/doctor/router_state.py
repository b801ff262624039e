"""The router: whether it replies, and how many gateways, bridges and streams it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from watchout.common.bus.merged_replies import merge_stats
from watchout.common.bus.reply_records import StatsReply
from watchout.common.errors import BusError
from watchout.common.home_files import CONTROL_SOCKET
from watchout.common.settings import Settings
from watchout.ctl.bus_client import OtherSlots
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.doctor.router_query import has_router_socket, query_router
from watchout.ctl.stats_view import duration
from watchout.ctl.terminal import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterFacts:
    """What `probe_router` found out about the router of a home.

    Attributes:
        has_socket: whether the file of its control socket exists; with NATS there is none.
        site: with NATS the name of the site of which no router replies.
        other_slots: a sentence when the routers do not let this command join, as they have another `CLUSTER_SLOTS`.
        replies: whether a router replies on it.
        up_s: seconds since it started.
        gateways: process ids of its gateways.
        bridges: number of its bridges.
        streams: number of streams.
        missing_slots: slots of the cluster for which no router replies.
    """

    has_socket: bool = False
    site: str = ""
    other_slots: str = ""
    replies: bool = False
    up_s: float = 0.0
    gateways: Sequence[int] = field(default=())
    bridges: int = 0
    streams: int = 0
    missing_slots: Sequence[int] = field(default=())


async def probe_router(settings: Settings) -> RouterFacts:
    """Return the facts about the router of this home."""
    if not settings.bus and not await has_router_socket(settings):
        return RouterFacts()
    try:
        stats = await query_router(
            settings, "stats", StatsReply, lambda asked, slots: merge_stats(asked.by_slot, asked.missing, slots=slots)
        )
    except BusError:
        return RouterFacts(has_socket=True, replies=True)
    except OtherSlots as error:
        return RouterFacts(has_socket=True, other_slots=error.message)
    if stats is None:
        return RouterFacts(has_socket=True, site=settings.cluster_name if settings.bus else "")
    return RouterFacts(
        has_socket=True,
        replies=True,
        up_s=stats.router.uptime_s,
        gateways=[member.pid for member in stats.members if member.kind == "gateway"],
        bridges=sum(member.kind == "mlbridge" for member in stats.members),
        streams=stats.stream_count,
        missing_slots=() if stats.missing_slots is msgspec.UNSET else stats.missing_slots,
    )


def judge_router(router: RouterFacts, home: Path, *, has_gateway: bool, has_ml_service: bool) -> Iterator[Finding]:
    """Yield whether the router runs, and whether a bridge is missing. Pure.

    Args:
        router: the facts.
        home: ``WATCHOUT_HOME``.
        has_gateway: whether a gateway of this home runs.
        has_ml_service: whether ``ML_SERVICE_URL`` is set.
    """
    start = "Start `watchout-router`, or look at its log."
    if router.replies:
        facts = {"gateways": len(router.gateways), "bridges": router.bridges, "streams": router.streams}
        yield ok(
            "ports",
            f"The router replies, up {duration(router.up_s)}: {counted(len(router.gateways), 'gateway')}, "
            f"{counted(router.bridges, 'mlbridge')}, {counted(router.streams, 'stream')}.",
            **facts,
        )
        if router.missing_slots:
            slots = ", ".join(map(str, router.missing_slots))
            yield warning(
                "ports",
                f"No router replies for slots {slots}: their streams cannot be started, and are not counted.",
                "A spare router takes them within seconds; if none does, start one (`watchout-router`).",
                missing_slots=list(router.missing_slots),
            )
        if has_ml_service and not router.bridges:
            text = "ML_SERVICE_URL is set, but no mlbridge runs: no frames are analysed."
            yield warning("ports", text, "Start `watchout-mlbridge`.")
    elif router.other_slots:
        yield wrong("ports", router.other_slots, "Correct it; a process with this setting cannot join.")
    elif router.site:
        text = f"No router of the site {router.site} replies over NATS: no stream can be started or viewed elsewhere."
        yield wrong("ports", text, f"{start} `watchout-ctl cluster` shows who is there.")
    elif has_gateway:
        yield wrong("ports", f"No router replies on {home}: no stream can be started or viewed.", start)
    elif router.has_socket:
        text = f"{home / CONTROL_SOCKET} exists, but no router replies: it was killed, or hangs."
        yield warning("ports", text, start)
    else:
        yield ok("ports", f"No router runs on {home}.")
