"""Sends alerts and acknowledgements of this gateway's clients to the routers, again to a router that is new."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import msgspec

from watchout.common import log
from watchout.common.alerts.model import Alert
from watchout.common.alerts.unconfirmed import FENCED_KEEP_S, KEEP_S, Raised, UnconfirmedAlerts
from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import (
    AcceptedReply,
    AcknowledgedReply,
    AcknowledgeRequest,
    AlertStamps,
    Message,
    RaiseAlert,
    RefusedReply,
    Reply,
)
from watchout.common.bus.reply_records import AlertFrameRow
from watchout.common.bus.router_links import RouterLinks
from watchout.common.errors import ErrorCode, RouterUnavailable
from watchout.common.latency.alert_stamps import stamps_at_router
from watchout.common.metrics import Metrics
from watchout.gateway.alerts_again import AlertsAgain
from watchout.gateway.latency.recorder import LatencyRecorder
from watchout.gateway.router_times import acknowledgement_here

_log: Final = log.get("gateway.alert_requests")


class AlertRequests:
    """The alerts that clients of one gateway raise and acknowledge; made by `RouterClient`.

    An alert is kept for a while after its router has accepted it: that router may end before it has delivered it, and
    its successor gets the alert again.

    Args:
        links: The connections to the routers.
        metrics: Where alerts that are raised again are counted.
        latency: Learns when alerts with stamps were accepted.
    """

    def __init__(self, links: RouterLinks, metrics: Metrics, latency: LatencyRecorder) -> None:
        self._links = links
        self._metrics = metrics
        self._latency = latency
        #: Alerts that a router accepted and may not have delivered yet.
        self._accepted = UnconfirmedAlerts(keep_s=FENCED_KEEP_S if links.fenced else KEEP_S)
        #: By slot, what is raised again to its new router.
        self._again: dict[int, AlertsAgain] = {}

    async def raise_alert(self, alert: Alert, stamps: AlertStamps | None = None) -> AcceptedReply:
        """Send an alert to the router of its stream; it has been accepted when this returns.

        Args:
            alert: The alert.
            stamps: When it and its frame passed the points of their way, by the clock here; None: not measured.

        Returns:
            The router's reply.

        Raises:
            RouterUnavailable: No reply in time.
        """
        link = self._links.of(alert.stream_id)
        epoch = 0

        def make(number: int) -> Message:
            nonlocal epoch
            epoch = link.epoch
            return RaiseAlert(request=number, alert=alert, stamps=stamps_at_router(stamps, link.clock))

        reply = await link.request(make)
        if not isinstance(reply, AcceptedReply):
            raise unexpected(reply)
        at = link.clock.to_local(reply.at) if reply.at else None
        if stamps is not None and not reply.duplicate:
            self._latency.on_alert_accepted(alert, stamps, at)
        self._keep(link, epoch, Raised(alert, len(alert.to_json()), accepted_at=at, stamps=stamps))
        return reply

    async def acknowledge(self, of: AlertFrameRow, user: str, note: str | None) -> AcknowledgedReply | RefusedReply:
        """Record that a user acknowledges an alert, a row of `RouterQueries.alert_frames`; everybody who has it is
        told.

        Returns:
            Who acknowledged it, which may be somebody before; or that it is not kept any more.

        Raises:
            RouterUnavailable: No reply in time, or the router is of a release without acknowledgements.
        """
        if not of.json:
            raise RouterUnavailable("the router is of a release without acknowledgements")
        link = self._links.of(of.stream)
        alert, epoch = Alert.from_json(of.json), 0

        def make(number: int) -> Message:
            nonlocal epoch
            epoch = link.epoch
            return AcknowledgeRequest(
                request=number,
                alert=alert,
                user=user,
                note=note,
                term=of.term,
                owner=of.owner,
                accepted_at=link.clock.to_router(of.at),
            )

        reply = await link.request(make)
        if isinstance(reply, RefusedReply) and reply.code == ErrorCode.INVALID_MESSAGE:
            return reply
        if not isinstance(reply, AcknowledgedReply):
            raise unexpected(reply)
        given = acknowledgement_here(reply.acknowledgement, link.clock)
        if not reply.duplicate:
            self._keep(link, epoch, Raised(alert, len(of.json) + given.size_bytes, of.term, of.at, given, of.owner))
        return msgspec.structs.replace(reply, acknowledgement=given)

    def _keep(self, link: BusClient, epoch: int, raised: Raised) -> None:
        """Keep what the router of this epoch accepted, for its successor; send it, if that is there already."""
        if link.epoch != epoch:
            self._raise_again(link, [raised])
        else:
            self._accepted.add(raised, epoch, asyncio.get_running_loop().time(), slot=link.slot)

    def _raise_again(self, link: BusClient, raised: list[Raised]) -> None:
        again = self._again.get(link.slot)
        if again is None:
            again = self._again[link.slot] = AlertsAgain(link, self._metrics, partial(self._keep, link))
        again.add(raised)

    def on_joined(self, slot: int) -> None:
        """Send the router of a slot what another one accepted, which may have ended before it delivered it."""
        link = self._links.at(slot)
        again = self._accepted.joined(slot, link.epoch, asyncio.get_running_loop().time())
        if (lost := self._accepted.take_given_up(slot)) > 0:
            _log.warning("alerts that a router had accepted may be lost: it was away for too long", alerts=lost)
        self._raise_again(link, again)

    def on_lost(self, slot: int) -> None:
        """Handle that the router of a slot is away: what it accepted long before has been delivered."""
        self._accepted.missing(slot, asyncio.get_running_loop().time())


def unexpected(reply: Reply) -> RouterUnavailable:
    """Return the error for a reply that the router must not give.

    Args:
        reply: What came.
    """
    text = reply.message if isinstance(reply, RefusedReply) else f"answered with {type(reply).__name__}"
    return RouterUnavailable(f"the router {text}")
