"""Requests about shares: replied when the file has them, refused when it cannot, the same when they come twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.kit.clients import eventually
from watchout.common.bus.messages import CreateShare, EndShare, QueryReply, RefusedReply
from watchout.common.bus.reply_records import ShareRow
from watchout.common.home_files import SHARES_FILE
from watchout.router.record_file import RecordFile
from watchout.router.shares.handler import ShareHandler
from watchout.router.shares.table import Shares

ID, OTHER = "a" * 22, "b" * 22
GATEWAY = b"g" * 8
ROW = ShareRow(ID, "cam", "ann", False, 1000, 61_000)


class Office:
    """A share handler in a home, and what it replied."""

    def __init__(self, home: Path) -> None:
        self.replies: list[Any] = []
        self.home = home
        outbox: Any = SimpleNamespace(send=lambda _, body: self.replies.append(body))
        self.store = RecordFile(home / SHARES_FILE, "shared streams")
        self.handler = ShareHandler(self.store, Shares(per_stream=2, per_user=9, total=9), outbox)

    async def create(self, share_id: str = ID, stream: str = "cam", user: str = "ann", seconds: int = 60) -> Any:
        request = CreateShare(request=1, id=share_id, stream=stream, user=user, seconds=seconds)
        self.handler.create(GATEWAY, request, 1000)
        return await self.reply()

    async def end(self, share_id: str = ID, stream: str = "cam", user: str = "ann") -> Any:
        self.handler.end(GATEWAY, EndShare(request=2, id=share_id, stream=stream, user=user))
        return await self.reply()

    async def reply(self) -> Any:
        await eventually(lambda: self.replies, what="no reply")
        return self.replies.pop()

    def known(self) -> list[ShareRow]:
        return self.handler.rows(stream="cam", user="ann", ids=(), now_ms=1000)


async def opened(home: Path) -> Office:
    """An office that has loaded what the one before stored."""
    office = Office(home)
    await office.handler.restore(1000)
    return office


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = await opened(tmp_path)
    yield made
    await made.handler.close()


async def test_a_share_is_replied_once_the_next_router_would_have_it(office: Office, tmp_path: Path) -> None:
    assert await office.create() == QueryReply(request=1, body=[ROW])
    assert await office.create(seconds=99) == QueryReply(request=1, body=[ROW]), "asked twice, made once"
    await office.handler.close()
    assert (await opened(tmp_path)).known() == [ROW]


async def test_an_end_is_replied_once_the_next_router_would_not_have_it(office: Office, tmp_path: Path) -> None:
    await office.create()
    for share_id, stream, user in ((OTHER, "cam", "ann"), (ID, "yard", "ann"), (ID, "cam", "bob")):
        assert await office.end(share_id, stream, user) == QueryReply(request=2, body=None)
    assert office.known() == [ROW]
    assert await office.end() == QueryReply(request=2, body=ID)
    assert await office.end() == QueryReply(request=2, body=None)
    await office.handler.close()
    assert (await opened(tmp_path)).known() == []


async def test_a_share_that_cannot_be_stored_is_not_made(office: Office, tmp_path: Path) -> None:
    await office.create(OTHER)
    office.store._file.close()  # the file is opened anew: make that fail from here on
    (tmp_path / SHARES_FILE).unlink()
    (tmp_path / SHARES_FILE).mkdir()
    reply = await office.create()
    assert isinstance(reply, RefusedReply)
    assert reply.code == "ROUTING_ERROR"
    assert [row.id for row in office.known()] == [OTHER]
    # What is ended is ended at once, and is said to be only when the file has it.
    reply = await office.end(OTHER)
    assert isinstance(reply, RefusedReply)
    assert office.known() == []
    (tmp_path / SHARES_FILE).rmdir()
    assert await office.end(OTHER) == QueryReply(request=2, body=OTHER)


async def test_bounds_and_taken_ids_are_refused(office: Office) -> None:
    await office.create()
    await office.create(OTHER)
    reply = await office.create("c" * 22)
    assert (reply.code, "2 shares" in reply.message) == ("TOO_MANY_SHARES", True)
    assert (await office.create(ID, user="eve")).code == "ROUTING_ERROR"
    assert (await office.create(ID, stream="yard")).code == "ROUTING_ERROR"


async def test_records_that_are_none_are_passed_over(office: Office, tmp_path: Path) -> None:
    await office.create()
    office.store.change({"bad": b"{}", "worse": b"\xff"})
    await office.handler.close()
    assert (await opened(tmp_path)).known() == [ROW]


def test_gateways_ask_for_shares_by_their_ids(office: Office) -> None:
    assert office.handler.rows(stream=None, user=None, ids=(ID, OTHER), now_ms=0) == []
