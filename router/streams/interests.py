"""Viewers' interest in streams: which gateways want status, frames and alerts of a stream. Pure.

`now` is in seconds, `now_ms` in ms since the epoch.
"""

from __future__ import annotations

import msgspec

from watchout.common.bus.messages import Interest, OwnerReply, RefusedReply, SendNewest
from watchout.router.streams.routing import Routing
from watchout.router.streams.snapshots import Snapshots
from watchout.router.streams.stream import RouterStream, Send
from watchout.router.streams.table import RouterStreamTable, discard


class Interests:
    """Keeps which streams each gateway's viewers want, and tells the gateways the status of those streams.

    Part of the registry (`Streams`), which calls it for each `Interest` and sends the messages that it returns.

    Args:
        table: The streams, shared by the parts of the registry.
        routing: Computes anew who gets the frames of a stream when the interest in it changes.
        snapshots: Which gateways have just joined, and are told the status once more.
        syncing: The router has just started, and gateways still report the publishers that they have: until `settle`
            is called, no stream is announced as offline.
    """

    def __init__(self, table: RouterStreamTable, routing: Routing, snapshots: Snapshots, *, syncing: bool) -> None:
        self._table = table
        self._routing = routing
        self._snapshots = snapshots
        self._syncing = syncing

    def set(self, member: bytes, interest: Interest, now: float, now_ms: int) -> list[Send]:
        """Replace a gateway's interest in a stream; without viewers it ends.

        Returns:
            The present status when the interest is new or the gateway has just joined, and a changed `Forward` for the
            publisher's gateway.

        """
        again = self._snapshots.confirm_interest(member, interest.stream)
        if not interest.viewers and not interest.alert_viewers:
            return self.drop(member, interest.stream)
        stream = self._table.get(interest.stream) or self._table.add_viewed(interest)
        if stream is None:
            return []
        new = again or member not in stream.interests
        stream.interests[member] = interest
        self._table.totals.update(stream)
        if not new or stream.gateway in (None, member):
            self._table.raise_frame_id(stream, interest.floor)
        else:  # the gateway is late: the publisher may have got its first id without what this one has seen
            self._table.raise_floor(stream, interest.floor)
        self._table.viewed_at.setdefault(member, set()).add(stream.id)
        if stream.user is None and interest.user is not None:  # the gateway has the owner from a former router
            stream.user, stream.organizations = interest.user, interest.organizations
            self._table.awaited.discard(stream.id)
            self._table.ownership.reserve(stream, now)
        known = stream.gateway is not None or not self._syncing
        sends = [Send(member, stream.status_update(now_ms))] if new and known and stream.gateway != member else []
        return sends + self._routing.reroute(stream)

    def drop(self, member: bytes, name: str) -> list[Send]:
        """End a gateway's interest in a stream."""
        discard(self._table.viewed_at, member, name)
        stream = self._table.get(name)
        if stream is None or stream.interests.pop(member, None) is None:
            return []
        self._table.totals.update(stream)
        self._table.remove_if_unused(stream)
        return self._routing.reroute(stream)

    def settle(self) -> list[str]:
        """End `syncing`. Return the streams of which no gateway reported a publisher: they are to be announced again,
        because gateways that joined while syncing got no status of them.
        """
        self._syncing = False
        return [name for name, stream in self._table.streams.items() if stream.gateway is None]

    def announce_again(self, stream: RouterStream, now_ms: int) -> list[Send]:
        """Return the status for all gateways with interest but the publisher's, whatever they were sent before."""
        stream.announced = None
        return self.announce(stream, now_ms)

    def announce(self, stream: RouterStream, now_ms: int) -> list[Send]:
        """Return the status for all gateways with interest but the publisher's, if it changed since the last one."""
        update = stream.status_update(now_ms)
        last, stream.announced = stream.announced, update
        if last is not None and msgspec.structs.replace(last, timestamp=now_ms) == update:
            return []
        return [Send(member, update) for member in stream.interests if member != stream.gateway]

    def alert_receivers(self, name: str) -> tuple[list[bytes], int]:
        """Return the members that an alert of this stream goes to, and how many viewers and publishers that reaches.

        The publisher's gateway is always among them: it tells its clients that they are registered, or subscribed to a
        stream of its own, before what they want has arrived here.
        """
        stream = self._table.get(name)
        if stream is None:
            return [], 0
        members = {m: i.alert_viewers for m, i in stream.interests.items() if i.alert_viewers}
        if stream.gateway is not None:
            members[stream.gateway] = members.get(stream.gateway, 0) + stream.wants_alerts
        return list(members), sum(members.values())

    def fetch_newest(self, member: bytes, name: str) -> list[Send]:
        """Ask the publisher's gateway to send its newest frame to one member."""
        stream = self._table.get(name)
        if stream is None or stream.gateway is None or stream.gateway == member:
            return []
        at = self._routing.direct_address(stream.gateway, member)
        return [Send(stream.gateway, SendNewest(stream=name, to=member.hex(), at=at))]

    def look_up_owner(self, request: int, name: str) -> OwnerReply | RefusedReply:
        """Return the owner and status of a stream; a stream without a publisher still belongs to its last owner."""
        stream = self._table.get(name)
        if stream is not None:
            return OwnerReply(
                request=request,
                stream=name,
                status=stream.status,
                user=stream.user,
                organizations=stream.organizations,
                term=stream.term,
                info=stream.info,
            )
        reserved = self._table.ownership.get(name)
        if reserved is not None:
            return OwnerReply(
                request=request,
                stream=name,
                status="offline",
                user=reserved.user,
                organizations=reserved.organizations,
                term=reserved.term,
            )
        most = self._table.max_streams
        if len(self._table.awaited) >= most:
            text = f"{most} streams are waited for, which is the most"
            return RefusedReply(request=request, code="ROUTING_ERROR", message=text)
        return OwnerReply(request=request, stream=name, status="offline")
