"""A backup of a watchout that runs brings everything back after its home is gone, and nobody has to sign in again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.clients import Clients, Viewer, eventually, http, new_name
from tests.kit.processes import BIN, Watchout

pytestmark = pytest.mark.e2e


async def ctl(started: Watchout, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in the environment of this watchout."""
    command = [str(BIN / "watchout-ctl"), *map(str, arguments)]
    return await asyncio.to_thread(
        subprocess.run, command, env=started.environ, capture_output=True, text=True, timeout=120, check=False
    )


async def serves(started: Watchout) -> bool:
    try:
        return (await http(f"{started.url}/health")).status == 200
    except OSError:
        return False


def reserved(file: Path) -> list[str]:
    """Streams whose camera has left, as the router has written them."""
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        return [stream for (stream,) in db.execute("SELECT stream FROM reservation WHERE ended_ms IS NOT NULL")]


async def sees(viewer: Viewer, stream: str) -> None:
    await viewer.subscribe(stream, consumes=["video-frame"])
    await viewer.frame(streamId=stream)


async def test_a_backup_of_a_running_watchout_brings_all_back_after_its_home_is_gone(
    watchout: Callable[..., Watchout], clients: Clients, tmp_path: Path
) -> None:
    # A claim right after a start is answered when the router knows enough, not refused in time.
    started, saved = watchout(environ={"ROUTER_TIMEOUT_S": "30"}), tmp_path / "backup.tar.gz"
    home = started.home
    ann, bob, mallory = (started.token(name) for name in ("ann", "bob", "mallory"))
    shown, away = new_name(), new_name()
    left = await clients.camera(started.url, bob)
    await left.register(away)
    await left.leave()
    await eventually(lambda: away in reserved(home / "reservations.db"), 60, "the reservation was not written")
    key = (await ctl(started, "keys", "server")).stdout
    camera = await clients.camera(started.url, ann)
    await camera.register(shown)
    made = await http(f"{started.url}/streams/{shown}/shares", method="POST", token=ann, body={"seconds": 3600})
    assert made.status == 201
    async with camera.streaming(10):
        await sees(await clients.viewer(started.url, made.json["token"]), shown)
        done = await ctl(started, "backup", saved)
        assert done.returncode == 0, done.stderr
        assert all(
            name in done.stdout for name in ("sessions.db", "reservations.db", "shares.db", "share.key", "curve")
        )
        refused = await ctl(started, "restore", "--replace", saved)
        assert refused.returncode == 1
        assert "stop all of watchout first" in refused.stderr
        await sees(await clients.viewer(started.url, made.json["token"]), shown)
    for process in started.processes:
        process.kill()
    shutil.rmtree(home)

    done = await ctl(started, "restore", saved)
    assert done.returncode == 0, done.stderr
    for name in ("router", "gateway"):
        started.start(name)
    await eventually(lambda: serves(started), 60, "it does not serve again")
    assert (await ctl(started, "keys", "server")).stdout == key
    camera = await clients.camera(started.url, ann)
    await camera.register(shown)
    async with camera.streaming(10):
        await sees(await clients.viewer(started.url, made.json["token"]), shown)
    thief = await clients.camera(started.url, mallory)
    await thief.send("register", streamId=away, produces=["video-frame"])
    assert (await thief.expect("error"))["code"] == "UNAUTHORIZED"
    owner = await clients.camera(started.url, bob)
    assert await owner.register(away) == away
