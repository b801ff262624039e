"""What the first `auth` of a socket that signed in at the upgrade leaves behind, and what it joins."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.kit.playbook import ANN, BOB, read, viewer
from watchout.common.errors import StoreUnavailable
from watchout.common.metrics import Metrics
from watchout.common.service import Tasks
from watchout.common.settings import Settings
from watchout.gateway.client.handler import ClientHandler
from watchout.gateway.presence import Presence
from watchout.gateway.quotas import Connections
from watchout.identity import Identity

AUTH = b'{"type":"auth","token":"bobs"}'


class Moving:
    """A socket of ann, and a session store that answers when it is told to."""

    def __init__(self) -> None:
        self.settings = Settings(max_connections_per_user=1)
        self.answer: asyncio.Future[Identity | None] = asyncio.get_running_loop().create_future()
        self.asked: list[str] = []
        self.said: list[bytes] = []
        self.codes: list[int] = []
        self.tasks = Tasks()
        self.connections, self.presence = Connections(self.settings), Presence[Any]()
        context = SimpleNamespace(
            settings=self.settings, metrics=Metrics(), tasks=self.tasks, connections=self.connections,
            presence=self.presence, closed=False, authenticator=SimpleNamespace(verify=self._verify),
        )  # fmt: skip
        self.socket = SimpleNamespace(
            closing=False, send_message=self.said.append, close=self._close, hold_messages=lambda: None,
            resume_messages=lambda: None, on_authenticated=lambda: None, write_waiting=lambda: None,
        )  # fmt: skip
        self.talk = ClientHandler(context, self.socket, viewer(settings=self.settings))  # type: ignore[arg-type]
        self.talk.begin(limit=None, store_unavailable=False)

    async def _verify(self, token: Any, *, fresh: bool) -> Identity | None:
        assert fresh
        self.asked.append(token.text)
        return await self.answer

    def _close(self, code: int, _: str) -> None:
        self.codes.append(int(code))
        self.socket.closing = True

    @property
    def sessions(self) -> list[str]:
        return self.presence.sessions()

    def users(self) -> dict[str, int]:
        return {user: 1 for user in ("ann", "bob") if self.connections.limit_of_user(user) is not None}


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_while_the_token_is_looked_up_the_socket_is_nobodys() -> None:
    moving = Moving()
    assert (moving.sessions, moving.users()) == ([ANN.session_id], {"ann": 1})
    moving.talk.receive(AUTH, 0.0, text=True)
    await settle()
    assert (moving.asked, moving.sessions, moving.users()) == (["bobs"], [], {})
    moving.answer.set_result(BOB)
    await settle()
    assert (moving.sessions, moving.users(), moving.codes) == ([BOB.session_id], {"bob": 1}, [])
    assert read(moving.said[-1])["event"] == "authenticated"
    moving.talk.on_connection_lost()
    assert (moving.sessions, moving.users()) == ([], {})


async def test_a_socket_that_goes_meanwhile_counts_for_nobody() -> None:
    moving = Moving()
    moving.talk.receive(AUTH, 0.0, text=True)
    moving.socket.closing = True
    moving.talk.on_connection_lost()
    moving.answer.set_result(BOB)
    await settle()
    assert (moving.sessions, moving.users(), moving.connections.authenticated) == ([], {}, 0)


async def test_a_wrong_token_and_a_store_that_is_away_close_what_is_nobodys() -> None:
    for answer, code in ((None, 1008), (StoreUnavailable("away"), 1013)):
        moving = Moving()
        moving.talk.receive(AUTH, 0.0, text=True)
        if isinstance(answer, Exception):
            moving.answer.set_exception(answer)
        else:
            moving.answer.set_result(answer)
        await settle()
        assert (moving.codes, moving.sessions, moving.users()) == ([code], [], {})


async def test_the_limit_is_that_of_the_tokens_user() -> None:
    moving = Moving()
    assert moving.connections.add_socket("bob") is None
    moving.talk.receive(AUTH, 0.0, text=True)
    moving.answer.set_result(BOB)
    await settle()
    assert (moving.codes, read(moving.said[-1])["code"]) == ([1013], "TOO_MANY_CONNECTIONS")
    moving.talk.on_connection_lost()
    assert moving.users() == {"bob": 1}  # the other socket's
