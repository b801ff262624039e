"""Clients for Node with the npm package `ws`, written from the edge protocol alone (node_client.mjs)."""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kit.clients import JPEG, base64_of, http, new_name
from tests.kit.node import node_command, npm_command
from tests.kit.processes import SERVICE_TOKEN, clean_environ, running
from tests.kit.services import missing

pytestmark = [pytest.mark.e2e, pytest.mark.real]

HERE: Final = Path(__file__).parent
SCRIPT: Final = HERE / "node_client.mjs"
INSTALL_S: Final = 300.0
DEADLINE_S: Final = 30.0
PICTURE: Final = base64_of(b"\xff\xd8\xff\xe0a picture of Node\xff\xd9")


@pytest.fixture(scope="module")
def node() -> str:
    """The program, with `ws` beside the script."""
    node, npm = node_command(), npm_command()
    if node is None or npm is None:
        missing("no Node, neither on the PATH nor as a package")
        raise AssertionError
    package = HERE / "node"
    (package / "node_modules").mkdir(exist_ok=True)
    with (package / "node_modules" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (package / "node_modules" / "ws" / "package.json").exists():
            # A lock file would name the registry of the machine that made it.
            command = [*npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
            done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=INSTALL_S, check=False)
            if done.returncode:
                missing(f"no Node client: npm install failed: {done.stderr[-500:]}")
    return node[0]


class NodeClient:
    """One run of the script; its events are read as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            line = await self.process.stdout.readline()
        assert line, "the script ended"
        event: dict[str, Any] = json.loads(line)
        assert event["event"] != "failed", event
        return event

    async def find(self, kind: str) -> dict[str, Any]:
        """The next event of this kind."""
        while (event := await self.next())["event"] != kind:
            assert event["event"] not in ("closed", "error"), event
        return event

    async def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


@pytest.fixture
async def start(node: str) -> AsyncIterator[Callable[..., Any]]:
    """Start a camera or a viewer of Node: `await start("viewer", url, token=…)`."""
    started: list[NodeClient] = []

    async def make(role: str, url: str, **options: Any) -> NodeClient:
        process = await asyncio.create_subprocess_exec(
            node, str(SCRIPT), role, url.replace("http", "ws"), json.dumps(options),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=clean_environ(), limit=64 << 20,
        )  # fmt: skip
        client = NodeClient(process)
        started.append(client)
        return client

    yield make
    for client in started:
        await client.end()


@pytest.fixture
def token(plain_watchout) -> str:
    return plain_watchout.token(new_name("node"))


@pytest.mark.parametrize("by", ["message", "header", "query"])
@pytest.mark.parametrize("sent", ["json", "binary"])
@pytest.mark.parametrize("wanted", ["json", "binary"])
async def test_a_viewer_of_node_sees_a_camera_of_node(plain_watchout, token, start, by, sent, wanted):
    url = plain_watchout.url
    camera = await start("camera", url, token=token, by=by, format=sent, waitFor="start", alert="panic")
    registered = await camera.find("registered")
    assert registered["same"]
    assert re.fullmatch(r"stream_\w+", registered["streamId"], re.ASCII)
    viewer = await start("viewer", url, token=token, by=by, format=wanted, streamId=registered["streamId"], window=5)
    opened = await viewer.find("open")
    assert "permessage-deflate" in opened["extensions"]
    # A camera that has shown nothing for five seconds is online: Node may have been as long in starting.
    assert (await viewer.find("status"))["status"] in ("streaming", "online")
    await camera.tell("start")
    for n in (1, 2, 3):
        frame = await viewer.find("frame")
        assert (frame["streamId"], frame["frameId"]) == (registered["streamId"], n)
        assert frame["timestamp"] == 1_729_943_200_000 + n
        assert frame["data" if wanted == "json" else "picture"] == PICTURE
    assert (await camera.find("alert"))["message"] == "panic"
    assert (await closed(viewer))["code"] == 1000
    await camera.tell("end")
    assert (await closed(camera))["code"] in (1000, 1005)


async def closed(client: NodeClient) -> dict[str, Any]:
    while (event := await client.next())["event"] != "closed":
        pass
    return event


async def test_a_phones_data_url_reaches_a_json_viewer_unchanged(plain_watchout, token, start, clients):
    prefix = "data:image/jpeg;base64,"
    viewer = await clients.viewer(plain_watchout.url, token)
    binary = await clients.viewer(plain_watchout.url, token)
    stream = new_name()
    await viewer.subscribe(stream)
    await binary.subscribe(stream, format="binary")
    camera = await start("camera", plain_watchout.url, token=token, streamId=stream, prefix=prefix)
    await camera.find("published")
    for n in (1, 2, 3):
        assert (await viewer.frame(frameId=n))["data"] == prefix + PICTURE
        assert base64_of((await binary.frame(frameId=n))["picture"]) == PICTURE


async def test_a_viewer_of_node_sees_a_camera_of_another_kind(plain_watchout, token, start, clients):
    camera = await clients.camera(plain_watchout.url, token)
    stream = new_name()
    viewer = await start("viewer", plain_watchout.url, token=token, by="query", streamId=stream, format="binary")
    assert (await viewer.find("status"))["status"] == "offline"
    await camera.register(stream)
    assert (await viewer.find("status"))["status"] == "streaming"
    for _ in range(3):
        await camera.show()
        assert (await viewer.find("frame"))["picture"] == base64_of(JPEG)
    assert (await closed(viewer))["code"] == 1000


@pytest.mark.parametrize("by", ["header", "query"])
async def test_node_sees_the_401_of_a_wrong_token(plain_watchout, start, by):
    client = await start("viewer", plain_watchout.url, token="wrong", by=by, streamId="cam")
    refused = await client.find("refused")
    assert refused["status"] == 401
    assert refused["body"]["error"]["code"] == "AUTH_FAILED"


async def test_node_sees_the_close_codes(plain_watchout, token, start, clients):
    client = await start("viewer", plain_watchout.url, token="w" * 32, streamId="cam")
    assert (await client.next())["event"] == "open"
    assert (await client.next())["code"] == "AUTH_FAILED"
    assert (await closed(client))["code"] == 1008
    camera = await start("camera", plain_watchout.url, token=token, waitFor="start")
    stream = (await camera.find("registered"))["streamId"]
    await (await clients.camera(plain_watchout.url, token)).register(stream)
    assert (await closed(camera))["code"] == 4501


async def test_node_sees_1012_when_the_gateway_ends(start, clients):
    with running() as started:
        token = started.token()
        camera = await start("camera", started.url, token=token, waitFor="start")
        viewer = await start("viewer", started.url, token=token, streamId="cam")
        await camera.find("registered")
        await viewer.find("status")
        gateway = started.one("gateway")
        gateway.send_signal(15)
        assert (await closed(camera))["code"] == 1012
        assert (await closed(viewer))["code"] == 1012
        assert await gateway.ended() == 0


async def test_an_alert_of_the_ml_side_reaches_a_viewer_of_node(plain_watchout, token, start, clients):
    stream = new_name()
    viewer = await start("viewer", plain_watchout.url, token=token, streamId=stream, consumes=["alert"])
    await viewer.find("status")
    alert = {"streamId": stream, "severity": "high", "message": "Gefahr ≠ 😀", "metadata": {"objectType": "person"}}
    answer = await http(f"{plain_watchout.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    assert 200 <= answer.status < 300
    came = await viewer.find("alert")
    assert came.items() >= alert.items()
    assert came["id"]
