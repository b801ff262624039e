"""One machine becomes three, by the commands of docs/cluster.md: its camera and its viewer go on by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import watchout.client
from tests.kit.clients import JPEG, eventually, http
from tests.kit.cluster import COMES_S, PATIENCE, Site, told
from tests.kit.hosts import hosts
from tests.kit.processes import BIN, Watchout
from watchout.common.home_files import SHARE_KEY_FILE, STREAM_KEY_FILE

pytestmark = pytest.mark.e2e

#: The variables that make one of three hosts of a machine, beside those of its database and its public address.
OF_A_CLUSTER = ("WATCHOUT_BUS", "BUS_CA", "BUS_CERT", "BUS_KEY", "MESH_LISTEN")
#: Its clients miss no more than this: the processes end, start again, and the clients connect again.
MISSED_S = 10.0 * PATIENCE


@pytest.fixture
def site() -> Iterator[Site]:
    """Three hosts with the files of deploy/three-hosts, on which nothing runs, and no keys on the first."""
    with hosts(3) as made:
        site = Site(made, environ={}, expected=())
        shutil.rmtree(site[0].home)
        try:
            yield site
        finally:
            site.close()


@contextlib.asynccontextmanager
async def camera(url: str, token: str) -> AsyncIterator[None]:
    """A camera of the client library that sends ten pictures a second while the block lasts."""

    async def send() -> None:
        async with watchout.client.connect(url, token=token, on_phase=lambda _: None) as client:
            source = client.camera("door")
            async with source:
                while True:
                    await source.send(JPEG)
                    await asyncio.sleep(0.1)

    task = asyncio.create_task(send())
    try:
        yield
        assert not task.done(), "the camera gave up"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def viewer(url: str, token: str) -> AsyncIterator[list[tuple[float, int]]]:
    """A viewer of the client library; when frames came, and their numbers."""
    got: list[tuple[float, int]] = []

    async def watch() -> None:
        async with (
            watchout.client.connect(url, token=token, on_phase=lambda _: None) as client,
            client.subscribe("door") as events,
        ):
            async for frame in events.frames():
                got.append((time.monotonic(), frame.frame_id))  # noqa: PERF401 - one after another, as they come

    task = asyncio.create_task(watch())
    try:
        yield got
        assert not task.done(), "the viewer gave up"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def ctl(*words: str | Path, at: Path) -> None:
    """Run a command of the page, which has to succeed."""
    command = [str(BIN / "watchout-ctl"), *map(str, words)]
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def keys_for(site: Site, at: Path) -> None:
    """Step 3 of the page: certificates of the hosts, and the keys of the machine that there is for all of them."""
    ctl("keys", "cluster", "--home", site[0].home, at=at)
    for name, machine, host in zip("abc", site, site.hosts, strict=True):
        ctl("keys", "host", f"host-{name}", "--address", host.address, at=at)
        shutil.copytree(at / "cluster-keys" / "hosts" / f"host-{name}", machine.home, dirs_exist_ok=True)


async def test_one_machine_becomes_three_and_its_streams_go_on_by_themselves(site: Site, tmp_path: Path) -> None:
    first: Watchout = site[0]
    of_a_cluster = {name: first.environ.pop(name) for name in OF_A_CLUSTER}
    token = site.token()
    await asyncio.to_thread(site.start, "router:0", "gateway:0")
    async with camera(first.url, token), viewer(first.url, token) as seen:
        await eventually(lambda: len(seen) > 10, COMES_S)
        key = (first.home / SHARE_KEY_FILE, first.home / STREAM_KEY_FILE)
        before = [each.read_bytes() for each in key if each.exists()]
        await asyncio.to_thread(keys_for, site, tmp_path)
        assert [each.read_bytes() for each in key if each.exists()][: len(before)] == before, "they stay what they were"
        for other in (site[1], site[2]):
            assert (other.home / SHARE_KEY_FILE).read_bytes() == key[0].read_bytes(), "and are those of all"
        await asyncio.to_thread(site.start_nats)
        await asyncio.to_thread(site.start, "router:1", "gateway:1", "router:2", "gateway:2")
        count = len(seen)
        await eventually(lambda: len(seen) > count + 5, COMES_S, "nobody felt anything so far")
        # Step 6: the first machine joins.
        since = len(seen) - 1
        for name in ("gateway", "router"):
            await asyncio.to_thread(first.one(name).terminate)
        first.environ.update(of_a_cluster)
        await asyncio.to_thread(site.start, "router:0", "gateway:0")
        count = len(seen)
        await eventually(lambda: len(seen) > count + 10, COMES_S, "the camera and the viewer are back")
        missed = max(later - earlier for (earlier, _), (later, _) in itertools.pairwise(seen[since:]))
        told("longest gap of frames while one machine became three", missed)
        assert missed < MISSED_S
        falls = [numbers for numbers in itertools.pairwise(number for _, number in seen) if numbers[0] >= numbers[1]]
        assert len(falls) <= 1, f"they begin anew once, as after any restart of all processes: {falls}"
        async with viewer(site[2].url, token) as elsewhere:
            await eventually(lambda: len(elsewhere) > 5, COMES_S, "it is seen at another host")
        for machine in site:

            async def at_first(url: str = machine.url) -> bool:
                where = await http(f"{url}/streams/door/where", token=token)
                return where.status == 200 and where.json["url"] == first.url

            await eventually(at_first, COMES_S, f"{machine.url} says that the stream is at {first.url}")
