"""Makes and ends shares for gateways, and replies when they are stored, so that a restart changes nothing."""

from __future__ import annotations

from typing import Final

import msgspec

from watchout.common import log
from watchout.common.bus.messages import CreateShare, EndShare, FromRouter, QueryReply, RefusedReply
from watchout.common.bus.reply_records import ShareRow
from watchout.common.service import Tasks
from watchout.router.outbox import Outbox
from watchout.router.record_store import RecordStore
from watchout.router.shares.table import Shares, StreamShare

#: Code of the refusal of a share over a bound; the gateway answers with 409.
TOO_MANY: Final = "TOO_MANY_SHARES"
_NOT_WRITTEN: Final = "the share cannot be stored now, try again"

_log = log.get("router.shares.handler")


class ShareHandler:
    """Handles what gateways ask about shares. Made by `SlotRouter`; `MessageHandler` and `QueryHandler` call it.

    Args:
        store: Where the shares are kept; closed by the handler.
        shares: The shares, empty so far.
        outbox: Sends the replies.
    """

    def __init__(self, store: RecordStore, shares: Shares, outbox: Outbox) -> None:
        self._shares = shares
        self._outbox = outbox
        self._store = store
        self._tasks = Tasks()
        #: Shares that were ended, and are still stored.
        self._ending: dict[str, StreamShare] = {}

    async def restore(self, now_ms: int) -> None:
        """Load the shares of a former router.

        Args:
            now_ms: Milliseconds since the epoch; what has ended is left out.
        """
        found, bad = [], []
        for key, body in (await self._store.load()).items():
            try:
                found.append(msgspec.json.decode(body, type=StreamShare))
            except (msgspec.DecodeError, UnicodeError):
                bad.append(key)
        self._shares.restore(sorted(found, key=lambda share: share.created_at))
        if bad:
            _log.warning("shares that cannot be read are ignored", count=len(bad))
        self.prune(now_ms)

    def create(self, member: bytes, request: CreateShare, now_ms: int) -> None:
        """Make a share, and reply with its `ShareRow` once it is stored, or with a `RefusedReply`.

        Args:
            member: The gateway.
            request: The share; one that is there already is replied as it is.
            now_ms: Milliseconds since the epoch.
        """
        known = self._shares.get(request.id, now_ms)
        share = known or StreamShare(
            id=request.id,
            stream=request.stream,
            owner=request.user,
            alerts=request.alerts,
            created_at=now_ms,
            ends_at=now_ms + request.seconds * 1000,
        )
        if share.stream != request.stream or share.owner != request.user:
            self._refuse(member, request.request, "ROUTING_ERROR", "its id is taken, try again")
        elif (limit := self._shares.add(share, now_ms)) is not None:
            self._refuse(member, request.request, TOO_MANY, limit)
        else:
            if known is None:
                self._store.change({share.id: msgspec.json.encode(share)})
            self._tasks.start(self._reply_to_create(member, request.request, share, is_new=known is None), "share")

    def end(self, member: bytes, request: EndShare) -> None:
        """End a share of the user's stream, and reply whether there was one, once that is stored.

        From now on gateways find it no more, whether it can be stored or not.

        Args:
            member: The gateway.
            request: Which one, and who ends it.
        """
        share = self._shares.get(request.id, 0) or self._ending.get(request.id)
        if share is None or share.stream != request.stream or share.owner != request.user:
            self._outbox.send(member, QueryReply(request=request.request, body=None))
            return
        if self._shares.end(request.id) is not None:
            _log.info("share ended", stream=share.stream, user=share.owner, share=share.id)
            self._ending[share.id] = share
            self._store.change({share.id: None})
        self._tasks.start(self._reply_to_end(member, request.request, share), "end of a share")

    def rows(self, *, stream: str | None, user: str | None, ids: tuple[str, ...], now_ms: int) -> list[ShareRow]:
        """Return shares: those of these ids, or those of a user's stream.

        Args:
            stream: The stream, when no ids are given.
            user: Its owner.
            ids: Ids of shares.
            now_ms: Milliseconds since the epoch; what has ended is left out.
        """
        if stream is not None:
            found = self._shares.of_stream(stream, user or "", now_ms)
        else:
            found = [share for each in ids if (share := self._shares.get(each, now_ms)) is not None]
        return [_row(share) for share in found]

    def prune(self, now_ms: int) -> None:
        """Forget what has ended.

        Args:
            now_ms: Milliseconds since the epoch.
        """
        self._store.change(dict.fromkeys(self._shares.prune(now_ms)))

    async def save(self) -> None:
        """Write what could not be written, or was only pruned. Runs every few seconds."""
        if self._store.unwritten and await self._store.write():
            self._ending.clear()

    async def close(self) -> None:
        """Write what is left and close the store."""
        await self._tasks.close()
        await self._store.close()

    async def _reply_to_create(self, member: bytes, request: int, share: StreamShare, *, is_new: bool) -> None:
        if await self._store.write():
            if is_new:
                _log.info("stream shared", stream=share.stream, user=share.owner, share=share.id, ends_at=share.ends_at)
            self._outbox.send(member, QueryReply(request=request, body=[_row(share)]))
        else:  # nobody has its token: it must not come up later
            self._shares.end(share.id)
            self._store.change({share.id: None})
            self._refuse(member, request, "ROUTING_ERROR", _NOT_WRITTEN)

    async def _reply_to_end(self, member: bytes, request: int, share: StreamShare) -> None:
        written = await self._store.write()
        if written:
            self._ending.pop(share.id, None)
        reply: FromRouter = QueryReply(request=request, body=share.id)
        if not written:
            reply = RefusedReply(request=request, code="ROUTING_ERROR", message=_NOT_WRITTEN)
        self._outbox.send(member, reply)

    def _refuse(self, member: bytes, request: int, code: str, message: str) -> None:
        self._outbox.send(member, RefusedReply(request=request, code=code, message=message))


def _row(share: StreamShare) -> ShareRow:
    return ShareRow(share.id, share.stream, share.owner, share.alerts, share.created_at, share.ends_at)
