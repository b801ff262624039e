"""Asks the router for shares of streams: makes them, ends them, lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import CreateShare, EndShare, Query, QueryReply, RefusedReply, Reply
from watchout.common.bus.reply_records import R, ShareRow, read_reply
from watchout.common.errors import BusError, RouterRefused, RouterUnavailable
from watchout.gateway.alert_requests import unexpected
from watchout.gateway.router_client import RouterClient
from watchout.gateway.router_times import shares_here

#: Code by which the router refuses a share over a bound.
TOO_MANY_SHARES: Final = "TOO_MANY_SHARES"
#: Form of a share's id, as `ShareId` of the bus has it.
SHARE_ID: Final = re.compile(r"[A-Za-z0-9_-]{22}\Z")


class ShareRequests:
    """The requests of one gateway about shares; without a state of its own.

    All methods raise `RouterUnavailable` when the router does not answer, cannot store the share, or is of a release
    without shares; the caller asks its client to try again.

    Args:
        router: The gateway's connection to the router.
    """

    def __init__(self, router: RouterClient) -> None:
        self._router = router

    async def create_share(
        self, share_id: str, stream: str, owner: str, *, seconds: int, alerts: bool
    ) -> ShareRow | RefusedReply:
        """Share a stream.

        Args:
            share_id: The id for the share.
            stream: Id of the stream.
            owner: Id of its owner.
            seconds: For how long.
            alerts: Whether the alerts are shared as well.

        Returns:
            The share, which survives restarts from now on; or the bound that is reached.

        Raises:
            RouterRefused: The router cannot store it.
            RouterUnavailable: The router does not answer, or is of a release without shares.
        """
        link = self._link(stream)
        reply = await link.request(
            lambda n: CreateShare(request=n, id=share_id, stream=stream, user=owner, seconds=seconds, alerts=alerts)
        )
        if isinstance(reply, RefusedReply) and reply.code == TOO_MANY_SHARES:
            return reply
        rows = shares_here(_read(reply, list[ShareRow]), link.clock)
        return rows[0]

    async def end_share(self, share_id: str, stream: str, owner: str) -> bool:
        """End a share of a user's stream.

        Args:
            share_id: Id of the share.
            stream: Id of the stream.
            owner: Id of its owner.

        Returns:
            Whether there was one; it is over, also after restarts.

        Raises:
            RouterUnavailable: As `create_share`.
        """
        link = self._link(stream)
        if not SHARE_ID.match(share_id):
            return False
        reply = await link.request(lambda n: EndShare(request=n, id=share_id, stream=stream, user=owner))
        return _read(reply, str | None) is not None  # type: ignore[arg-type]

    async def shares_of(self, stream: str, owner: str) -> list[ShareRow]:
        """Return what a user shares of a stream.

        Args:
            stream: Id of the stream.
            owner: Id of its owner.

        Raises:
            RouterUnavailable: As `create_share`.
        """
        link = self._link(stream)
        reply = await link.request(lambda n: Query(request=n, what="shares", stream=stream, user=owner))
        return shares_here(_read(reply, list[ShareRow]), link.clock)

    async def shares(self, share_ids: Sequence[str]) -> list[ShareRow]:
        """Return those of some shares that have not ended.

        Args:
            share_ids: At most 1000 ids.

        Raises:
            RouterUnavailable: As `create_share`; also when some were not found, and a slot is missing that may have
                them: they must not count as ended.
        """
        links = self._router.links
        for link in links.all():
            _require_shares(link)
        ids = tuple(share_ids)
        try:
            asked = await links.ask_all(lambda _, n: Query(request=n, what="shares", ids=ids), list[ShareRow])
        except BusError as exc:
            raise RouterUnavailable(str(exc)) from None
        found = [row for slot, rows in asked.by_slot.items() for row in shares_here(rows, links.at(slot).clock)]
        if asked.missing and len({row.id for row in found}) < len(set(ids)):
            raise RouterUnavailable(f"slots without a router: {', '.join(map(str, asked.missing))}")
        return found

    def _link(self, stream: str) -> BusClient:
        """Return the connection to the router of a stream. Raises `RouterUnavailable` for one without shares."""
        link = self._router.links.of(stream)
        _require_shares(link)
        return link


def _require_shares(link: BusClient) -> None:
    if link.live and not link.level:
        raise RouterUnavailable("the router is of a release without shares")


def _read(reply: Reply, kind: type[R]) -> R:
    if isinstance(reply, RefusedReply):
        raise RouterRefused(reply.message)
    if not isinstance(reply, QueryReply):
        raise unexpected(reply)
    try:
        return read_reply(reply.body, kind)
    except BusError as exc:
        raise RouterUnavailable(str(exc)) from None
