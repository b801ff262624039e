"""Asks the router for shares of streams: makes them, ends them, lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping
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

    async def share(self, share_id: str) -> ShareRow | None:
        """Return a share that has not ended; None: there is none.

        Args:
            share_id: Its id, which does not tell its stream.

        Raises:
            RouterUnavailable: As `create_share`; also when it was not found, and a slot is missing that may have it.
        """
        rows, missing = await self._ask((share_id,))
        if missing and not rows:
            raise RouterUnavailable(f"slots without an answer: {', '.join(map(str, missing))}")
        return rows[0] if rows else None

    async def ended(self, shares: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Return the ids of shares that have ended, and of those of which it is not known.

        Args:
            shares: At most 1000 ids, each with the stream of the share.

        Raises:
            RouterUnavailable: As `create_share`.
        """
        rows, missing = await self._ask(tuple(shares))
        live = {row.id for row in rows}
        unknown = {share for share in shares.keys() - live if self._router.links.of(shares[share]).slot in missing}
        return list(shares.keys() - live - unknown), list(unknown)

    async def _ask(self, ids: tuple[str, ...]) -> tuple[list[ShareRow], tuple[int, ...]]:
        """Ask all slots for shares; return those that have not ended, and the slots that did not answer."""
        links = self._router.links
        for link in links.all():
            _require_shares(link)
        try:
            asked = await links.ask_all(lambda _, n: Query(request=n, what="shares", ids=ids), list[ShareRow])
        except BusError as exc:
            raise RouterUnavailable(str(exc)) from None
        found = [row for slot, rows in asked.by_slot.items() for row in shares_here(rows, links.at(slot).clock)]
        return found, asked.missing

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
