"""The operator's commands against a running watchout, when something is not as the operator thinks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.kit.clients import eventually, http
from tests.kit.ctl_command import TINY_JPEG
from tests.kit.ports import free_port
from tests.kit.processes import BIN


def ctl(*words: object) -> list[str]:
    return [str(BIN / "watchout-ctl"), *map(str, words)]


async def test_a_mistyped_stream_or_home_is_named_with_what_there_is(watchout, tmp_path: Path):
    started = watchout()
    url = started.url.replace("http", "ws")
    (tmp_path / "1.jpg").write_bytes(TINY_JPEG)
    camera = started.run("publish", ctl("publish", tmp_path, "--stream", "cam-1", "--loop"))

    async def published() -> bool:
        status, stats = await asyncio.to_thread(started.get, "/stats")
        return bool(status == 200 and stats["activeStreams"] == ["cam-1"])

    await eventually(published)

    viewer = started.run("watch", ctl("watch", "cam-l"))
    await eventually(lambda: "did you mean cam-1?" in viewer.output, 30)
    assert "cam-l is not published yet, waiting for it; existing streams: cam-1" in viewer.output

    alert = started.run("alert", ctl("alert", "nosuch", "fire", "--severity", "low"))
    assert await alert.ended() == 1
    assert "nosuch has no publisher and no viewer" in alert.output
    assert "existing streams: cam-1" in alert.output

    elsewhere = tmp_path / "elsewhere"
    lost = started.run("watch-elsewhere", ctl("watch", "cam-1", "--home", elsewhere, "--url", url))
    assert await lost.ended() == 1
    assert f"WATCHOUT_HOME={elsewhere} holds no session store" in lost.output
    assert not elsewhere.exists()

    # With another port in the settings, the home says where its gateway is.
    for name, command in (("publish", ["publish", tmp_path]), ("watch", ["watch", "cam-1"])):
        lost = started.run(f"{name}-port", ctl(*command), environ={"WATCHOUT_PORT": str(free_port())})
        assert await lost.ended() == 1
        assert f"listens on port {started.port}: set WATCHOUT_PORT={started.port}, or give --url" in lost.output

    other = started.run("token", ctl("token", "--home", elsewhere))
    assert await other.ended() == 0
    lost = started.run("watch-elsewhere", ctl("watch", "cam-1", "--home", elsewhere, "--url", url))
    assert await lost.ended() == 1
    assert "the gateway at this address uses another one" in lost.output

    # The gateway's own moving picture is a source like any camera's.
    mjpeg = f"{started.url}/streams/cam-1/mjpeg?token={started.token()}"
    again = started.run("publish-mjpeg", ctl("publish", mjpeg, "--stream", "cam-2", "--count", 5))
    assert await again.ended(30) == 0
    assert "token" not in again.output
    assert "sent 5 frames" in again.output
    assert camera.running


async def test_shares_of_a_stream_are_listed_and_ended(watchout, clients):
    started = watchout()
    token = started.token()
    camera = await clients.camera(started.url, token)
    await camera.register("cam-1")
    path = f"{started.url}/streams/cam-1/shares"
    made = (await http(path, method="POST", token=token, body={"seconds": 600})).json

    async def shares(*words: object) -> tuple[int, str]:
        command = started.run("shares", ctl("shares", "cam-1", "--token", token, *words))
        return await command.ended(), command.output

    code, said = await shares()
    assert (code, made["id"] in said, made["token"] in said) == (0, True, False), said
    code, said = await shares("--json")
    assert [row["id"] for row in json.loads(said)] == [made["id"]]
    assert await shares("--end", made["id"]) == (0, f"ended share {made['id']} of cam-1\n")
    assert (await http(f"{started.url}/streams", token=made["token"])).status == 401
    assert await shares() == (0, "cam-1 is not shared\n")
    code, said = await shares("--end", made["id"])
    assert (code, "Traceback" in said) == (1, False)
    assert said.startswith("watchout-ctl: "), said
