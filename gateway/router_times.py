"""Times between a gateway and a router whose clocks may be apart: converted where messages leave and arrive. Pure.

On one machine there is one clock, and everything is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import AlertNotification, Message, PublicationState, StreamReport
from watchout.common.bus.reply_records import AlertFrameRow, RecentAlertRow, RecentAlertsReply, ShareRow, StreamRow
from watchout.common.bus.router_clock import RouterClock

M = TypeVar("M", bound=Message)


def by_routers_clock(body: M, clock: RouterClock) -> M:
    """Return a report with its times by the router's clock.

    Args:
        body: What is sent to the router.
        clock: The router's clock.
    """
    if not clock.offset_ms:
        return body
    match body:
        case PublicationState(started_at=started_at, last_frame_at=last_frame_at):
            return msgspec.structs.replace(
                body,
                started_at=clock.to_router(started_at),
                last_frame_at=None if last_frame_at is None else clock.to_router(last_frame_at),
            )
        case StreamReport(rows=rows) if rows:
            return msgspec.structs.replace(
                body, rows=[(*row[:4], None if row[4] is None else clock.to_router(row[4])) for row in rows]
            )
    return body


def accepted_here(told: AlertNotification, clock: RouterClock, now: float, now_ms: int) -> float | None:
    """Return when a router accepted what it repeats after a loss, by the loop's clock here; None: it is new.

    What a clock of the day says may have been changed since by whoever set it. A router of the former release says
    nothing else.

    Args:
        told: What the router says.
        clock: The router's clock.
        now: Seconds of the loop's clock.
        now_ms: The same moment in ms since the epoch.
    """
    given = told.acknowledgement
    at = told.at if given is None else given.at if told.repeated else None
    if at is None:
        return None
    return now - (now_ms - clock.to_local(at) if told.age is None else told.age) / 1000


def acknowledgement_here(given: Acknowledgement, clock: RouterClock) -> Acknowledgement:
    """Return an acknowledgement of a router with its time by the clock here."""
    return msgspec.structs.replace(given, at=clock.to_local(given.at)) if clock.offset_ms else given


def alerts_here(
    rows: Sequence[RecentAlertRow], clock: RouterClock, since: int, *, or_acknowledged: bool = False
) -> list[RecentAlertRow]:
    """Return recent alerts of a router with their times by the clock here.

    A router whose clock is behind is asked for an earlier time than is meant, and finds alerts whose own time lies
    between the two: they are left out.

    Args:
        rows: The router's rows.
        clock: The router's clock.
        since: From when on alerts were asked for, in ms of the clock here.
        or_acknowledged: Whether those that were acknowledged since are wanted too.
    """
    if not clock.offset_ms:
        return list(rows)
    found = []
    for row in rows:
        given = None if row.acknowledgement is None else acknowledgement_here(row.acknowledgement, clock)
        here = msgspec.structs.replace(row, at=clock.to_local(row.at), acknowledgement=given)
        if (
            here.at >= since
            or (or_acknowledged and given is not None and given.at >= since)
            or Alert.from_json(row.json).timestamp >= since
        ):
            found.append(here)
    return found


def recent_here(reply: RecentAlertsReply, clock: RouterClock, since: int) -> RecentAlertsReply:
    """Return the reply to `alerts` of one stream with its times by the clock here; the arguments of `alerts_here`."""
    missing = reply.missing_before
    return RecentAlertsReply(
        alerts=alerts_here(reply.alerts, clock, since, or_acknowledged=True),
        missing_before=None if missing is None else clock.to_local(missing),
    )


def frames_here(rows: Sequence[AlertFrameRow], clock: RouterClock) -> list[AlertFrameRow]:
    """Return the frames of alerts with their times by the clock here."""
    return [msgspec.structs.replace(row, at=clock.to_local(row.at)) if clock.offset_ms else row for row in rows]


def streams_here(rows: Sequence[StreamRow], clock: RouterClock) -> list[StreamRow]:
    """Return the rows of streams with their times by the clock here."""
    if not clock.offset_ms:
        return list(rows)
    return [
        msgspec.structs.replace(
            row,
            started_at=clock.to_local(row.started_at),
            last_frame_at=None if row.last_frame_at is None else clock.to_local(row.last_frame_at),
        )
        for row in rows
    ]


def shares_here(rows: Sequence[ShareRow], clock: RouterClock) -> list[ShareRow]:
    """Return shares with their times by the clock here."""
    if not clock.offset_ms:
        return list(rows)
    return [
        msgspec.structs.replace(row, created_at=clock.to_local(row.created_at), ends_at=clock.to_local(row.ends_at))
        for row in rows
    ]
