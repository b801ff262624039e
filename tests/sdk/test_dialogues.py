"""The server's side of sdk/conformance/dialogues.json: a real gateway says what the file lets the server say."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.kit.clients import Camera, Clients, eventually, http, new_name, pack_frame, unpack_frame
from tests.kit.processes import SERVICE_TOKEN, Watchout
from tests.kit.session_stores import end_session
from watchout.common.clock import now_ms

FILE: Final = json.loads((Path(__file__).parents[2] / "sdk/conformance/dialogues.json").read_text())
REAL: Final = {each["name"]: each for each in FILE["dialogues"] if "notReal" not in each}
DEADLINE_S: Final = 30.0
#: Messages that may come at any time, and are passed over unless a step names them.
ANY_TIME: Final = {"ping", "pong", "ack", "demand"}


class Player:
    """Plays the client of one dialogue, and what happens around it."""

    def __init__(self, watchout: Watchout, clients: Clients) -> None:
        self._watchout = watchout
        self._clients = clients
        user = new_name("user")
        self._names: dict[str, str] = {"bad": "b" * 32}
        self._names["good"] = watchout.token(user)
        self._names["good-2"] = watchout.token(user, 3600)  # another session
        self._values: dict[str, str] = {}
        self._cameras: dict[str, Camera] = {}
        self._socket: ClientConnection | None = None
        self._opened_sockets: list[ClientConnection] = []
        self._broken = False
        #: The server's time at its first message: nobody needs alerts from before.
        self._began_ms = 0

    @property
    def socket(self) -> ClientConnection:
        assert self._socket is not None, "no socket is open"
        return self._socket

    async def close(self) -> None:
        await asyncio.gather(*(socket.close() for socket in self._opened_sockets))

    async def play(self, steps: list[dict[str, Any]]) -> None:
        for at, step in enumerate(steps):
            try:
                await self._step(step)
            except (AssertionError, TimeoutError, ConnectionClosed) as fault:
                raise AssertionError(f"step {at} {step}: {fault!r}") from fault

    async def _step(self, step: dict[str, Any]) -> None:
        if "open" in step:
            self._socket, self._broken = await self._opened(step["open"]), False
        elif "client" in step:
            await self.socket.send(json.dumps(self._filled(step["client"])))
        elif "clientFrame" in step:
            frame = step["clientFrame"]
            await self.socket.send(pack_frame(frame["picture"].encode(), timestamp=frame["timestamp"], codec=0))
        elif "server" in step:
            await self._expect(step["server"])
        elif "serverFrame" in step:
            frame = step["serverFrame"]
            came = unpack_frame(await self._received(bytes))
            assert came["picture"] == frame["picture"].encode()
            for name in ("frameId", "timestamp"):
                assert came[name] == frame[name]
            assert came["streamId"] == self._filled(frame["streamId"])
        elif "close" in step:
            await self._closed(step["close"])
        elif "closed" in step:
            await self.socket.close()
        elif "world" in step:
            await self._happen(step["world"], self._filled(step))
        else:
            assert {"wait", "quiet", "network", "refuse", "app", "expect", "onlySdk"} & set(step), "unknown step"

    async def _opened(self, path: str) -> ClientConnection:
        await eventually(lambda: self._watchout.get("/health")[0] == 200, DEADLINE_S, "the gateway is not healthy")
        socket = await self._clients.connect(self._watchout.url, path)
        self._opened_sockets.append(socket)
        return socket

    async def _received(self, kind: type) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                data = await self.socket.recv()
                if isinstance(data, kind):
                    return data

    async def _expect(self, wanted: dict[str, Any]) -> None:
        """The next message that is not one of any time; or that type, until it fits."""
        while True:
            came = json.loads(await self._received(str))
            self._began_ms = self._began_ms or came["timestamp"]
            if wanted["type"] in ANY_TIME:
                if came["type"] == wanted["type"] and self._fits(came, wanted):
                    return
            elif came["type"] not in ANY_TIME:
                assert self._fits(came, wanted), f"got {came}"
                return

    def _fits(self, came: dict[str, Any], wanted: dict[str, Any]) -> bool:
        if wanted["type"] == "error":
            wanted = {name: value for name, value in wanted.items() if name != "message"}  # it is for people
        for name, value in wanted.items():
            if value in ("$now", "$past"):
                if not isinstance(came.get(name), int) or abs(came[name] - now_ms()) > 3_600_000:
                    return False
            elif value != "$any" and came.get(name) != self._filled(value):
                return False
        return True

    async def _closed(self, code: int) -> None:
        if self._broken:
            return
        async with asyncio.timeout(DEADLINE_S):
            await self.socket.wait_closed()
        assert self.socket.close_code == code

    def _filled(self, value: Any) -> Any:
        """With the values of this run in place of names."""
        if isinstance(value, dict):
            return {name: each if name == "type" else self._filled(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        if not isinstance(value, str):
            return value
        if value in ("$now", "$past"):
            return now_ms() if value == "$now" else max(now_ms() - 10_000, self._began_ms)
        if value.startswith("$"):
            return self._values.setdefault(value, new_name("r"))
        if value.startswith("cam-"):
            return self._names.setdefault(value, new_name("cam"))
        if "Stream ID: cam-" in value:
            head, _, name = value.rpartition(" ")
            return f"{head} {self._filled(name)}"
        return self._names.get(value, value)

    async def _happen(self, what: str, step: dict[str, Any]) -> None:
        url, stream = self._watchout.url, step.get("streamId", "")
        if what in ("camera registers", "stranger registers"):
            token = self._names["good"] if what == "camera registers" else self._watchout.token(new_name("stranger"))
            self._cameras[stream] = await self._clients.camera(url, token)
            await self._cameras[stream].register(stream)
        elif what == "camera leaves":
            await self._cameras.pop(stream).connection.close()
        elif what == "camera sends":
            picture = step["picture"].encode()
            await self._cameras[stream].show_binary(picture, timestamp=step["timestamp"], codec=0)
        elif what == "viewer subscribes":
            viewer = await self._clients.viewer(url, self._names["good"])
            await viewer.subscribe(stream, maxFps=step["maxFps"])
        elif what == "alert":
            alert = {name: step[name] for name in ("streamId", "id", "severity", "message")}
            answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
            assert answer.status == 202
        elif what == "session ends":
            end_session(self._watchout.home, step["token"])
        elif what == "gateway restarts":
            gateway = self._watchout.one("gateway")
            gateway.send_signal(15)
            await self._closed(1012)
            self._broken = True
            await gateway.ended()
            self._watchout.start("gateway")
        elif what == "connection breaks":
            self.socket.transport.abort()
            self._broken = True
        else:
            raise AssertionError(f"unknown: {what}")


@pytest.mark.parametrize("name", REAL)
async def test_a_real_gateway_says_what_the_dialogue_lets_the_server_say(plain_watchout, clients, watchout, name):
    steps = REAL[name]["steps"]
    restarts = any(step.get("world") == "gateway restarts" for step in steps)
    started = watchout() if restarts else plain_watchout
    player = Player(started, clients)
    try:
        await player.play(steps)
    finally:
        await player.close()


def test_most_of_what_a_server_says_is_played_for_real() -> None:
    """So that nobody makes the file green by marking dialogues."""
    steps = [step for each in REAL.values() for step in each["steps"]]
    played = {step["server"].get("event") or step["server"]["type"] for step in steps if "server" in step}
    assert played >= {"authenticated", "registered", "subscribed", "unsubscribed"}
    assert played >= {"error", "status", "alert", "demand", "ack"}
    codes = {step["close"] for step in steps if "close" in step}
    assert codes >= {1008, 1012, 4500, 4501}
