"""Whose a stream id is while its camera is away: on the real processes, over restarts, full disks and broken files."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit import disks
from tests.kit.clients import Clients, Viewer, eventually, http, new_name
from tests.kit.processes import BIN, Watchout, poll, running
from watchout.common.home_files import EPOCH_FILE, RESERVATIONS_FILE

pytestmark = pytest.mark.e2e

SAVED_S = 30.0
#: Longer than a restart of the router takes: a claim meanwhile is answered by the next one, not refused in time.
PATIENT = {"ROUTER_TIMEOUT_S": "30"}


@pytest.fixture(scope="module")
def two_gateways() -> Iterator[Watchout]:
    with running(gateways=2, environ=PATIENT) as started:
        yield started


async def publish_and_leave(started: Watchout, clients: Clients, user: str = "ann", stream: str | None = None) -> str:
    """A camera of the user registers, shows a frame and goes; the stream's id."""
    camera = await clients.camera(started.url, started.token(user))
    name = await camera.register(stream)
    await camera.show()
    await camera.leave()
    await eventually(lambda: gone(started, name), 30, "the camera did not go")
    return name


async def gone(started: Watchout, stream: str) -> bool:
    answer = await http(f"{started.url}/stats")
    return answer.status == 200 and stream not in answer.json["activeStreams"]


async def refused(started: Watchout, clients: Clients, stream: str, user: str = "mallory") -> None:
    """The user is told at every try, at whichever gateway, that the stream is not his."""
    for _ in range(4):
        thief = await clients.camera(started.url, started.token(user))
        await thief.send("register", streamId=stream, produces=["video-frame"])
        assert (await thief.expect("error"))["code"] == "UNAUTHORIZED"
        await thief.leave()


async def comes_back(started: Watchout, clients: Clients, stream: str, user: str = "ann") -> None:
    """The owner registers again, with another session and over another connection, and leaves."""
    camera = await clients.camera(started.url, started.token(user))
    assert await camera.register(stream) == stream
    await camera.leave()


def ctl(started: Watchout, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "watchout-ctl"), *arguments]
    return subprocess.run(command, env=started.environ, capture_output=True, text=True, timeout=120, check=False)


def restart_router(started: Watchout, *, kill: bool = True) -> None:
    router = started.one("router")
    if kill:
        router.kill()
    else:
        router.terminate()
    started.start("router")


async def serves(started: Watchout) -> None:
    """Wait until the newest router and its one gateway serve together."""
    await asyncio.to_thread(started.one("router").wait_for_output, "router ready")

    async def so() -> bool:
        try:
            return (await http(f"{started.url}/health")).status == 200
        except OSError:
            return False

    await eventually(so, 30, "it does not serve")


@pytest.mark.parametrize("made", [False, True], ids=["own", "made"])
async def test_in_the_owners_absence_nobody_takes_his_id_and_his_viewers_stay(
    made: bool, two_gateways: Watchout, clients: Clients
) -> None:
    stream = await publish_and_leave(two_gateways, clients, stream=None if made else new_name())
    viewers: list[Viewer] = []
    for _ in range(4):
        viewer = await clients.viewer(two_gateways.url, two_gateways.token("ann"))
        assert await viewer.subscribe(stream) == "offline"
        viewers.append(viewer)
    await refused(two_gateways, clients, stream)
    spy = await clients.viewer(two_gateways.url, two_gateways.token("mallory"))
    await spy.send("subscribe", streamId=stream, consumes=["video-frame"])
    assert (await spy.expect("error"))["code"] == "UNAUTHORIZED"
    camera = await clients.camera(two_gateways.url, two_gateways.token("ann"))
    await camera.register(stream)
    await camera.show()
    for viewer in viewers:
        await viewer.frame(streamId=stream)
        assert not [message for message in viewer.heard if message["type"] == "error"]


async def test_of_many_who_try_in_the_moment_of_his_absence_none_succeeds(
    two_gateways: Watchout, clients: Clients
) -> None:
    stream = new_name()
    camera = await clients.camera(two_gateways.url, two_gateways.token("ann"))
    await camera.register(stream)
    thieves = [await clients.camera(two_gateways.url, two_gateways.token("mallory")) for _ in range(8)]
    for round_number in range(5):
        camera.cut()
        for thief in thieves:
            await thief.send("register", streamId=stream, produces=["video-frame"])
        camera = await clients.camera(two_gateways.url, two_gateways.token("ann"))
        await camera.register(stream)
        for thief in thieves:
            assert (await thief.expect("error"))["code"] == "UNAUTHORIZED", round_number


async def test_an_id_that_was_only_waited_for_or_whose_registration_failed_is_nobodys(
    two_gateways: Watchout, clients: Clients
) -> None:
    stream = new_name()
    viewer = await clients.viewer(two_gateways.url, two_gateways.token("mallory"))
    await viewer.subscribe(stream)
    await viewer.leave()
    failed = await clients.camera(two_gateways.url, two_gateways.token("mallory"))
    await failed.send("register", streamId=stream, produces="video-frame")
    assert (await failed.expect("error"))["code"] == "INVALID_MESSAGE"
    await comes_back(two_gateways, clients, stream)


async def test_after_the_time_of_the_setting_an_id_is_free_but_one_that_the_server_made_never_is(
    watchout: Callable[..., Watchout], clients: Clients
) -> None:
    started = watchout(environ={"STREAM_RESERVED_S": "0.5", **PATIENT})
    own = await publish_and_leave(started, clients, stream=new_name())
    made = await publish_and_leave(started, clients)

    async def free() -> bool:
        thief = await clients.camera(started.url, started.token("mallory"))
        await thief.send("register", streamId=own, produces=["video-frame"])
        answer = await thief.next()
        await thief.leave()
        return answer["type"] == "success"

    await eventually(free, 30, "the id did not become free")
    await refused(started, clients, made)
    await comes_back(started, clients, made)


@pytest.mark.parametrize("kept_by", ["file", "gateways"])
@pytest.mark.parametrize("kill", [True, False], ids=["kill", "term"])
async def test_a_restart_of_the_router_gives_nobodys_id_away(
    kept_by: str, kill: bool, watchout: Callable[..., Watchout], clients: Clients
) -> None:
    started = watchout(start=False, environ=PATIENT, expected=["cannot be used", "cannot be written"])
    if kept_by == "gateways":  # something else is where the file would be
        (started.home / RESERVATIONS_FILE).mkdir(parents=True)
        started.home.chmod(0o700)
    started.start_all()
    stream = await publish_and_leave(started, clients, stream=new_name())
    if kept_by == "file":
        poll(lambda: stream in reserved_in(started), SAVED_S, "it was not written")
        for process in started.named("gateway"):
            process.kill()
    restart_router(started, kill=kill)
    if kept_by == "file":
        started.start("gateway")
    await serves(started)
    await refused(started, clients, stream)
    await comes_back(started, clients, stream)


def reserved_in(started: Watchout) -> set[str]:
    """What a copy of the file says."""
    copy = started.directory / "copy.db"
    for suffix in ("", "-journal"):
        source = started.home / f"{RESERVATIONS_FILE}{suffix}"
        if source.exists():
            shutil.copyfile(source, f"{copy}{suffix}")
    try:
        db = sqlite3.connect(copy)
        try:
            return {name for (name,) in db.execute("SELECT stream FROM reservation")}
        finally:
            db.close()
    except sqlite3.Error:
        return set()


async def test_a_claim_right_after_the_routers_start_waits_for_what_the_gateways_tell(
    watchout: Callable[..., Watchout], clients: Clients
) -> None:
    """The camera lives on at its gateway; the file is lost."""
    started = watchout(environ=PATIENT)
    stream = new_name()
    camera = await clients.camera(started.url, started.token("ann"))
    await camera.register(stream)
    thief = await clients.camera(started.url, started.token("mallory"))
    started.one("router").kill()
    (started.home / RESERVATIONS_FILE).unlink(missing_ok=True)
    await thief.send("register", streamId=stream, produces=["video-frame"])
    started.start("router")
    assert (await thief.expect("error"))["code"] in ("UNAUTHORIZED", "ROUTING_ERROR")
    await serves(started)
    await refused(started, clients, stream)
    assert camera.open


async def test_a_broken_file_is_passed_over_with_a_word(watchout: Callable[..., Watchout], clients: Clients) -> None:
    started = watchout(start=False)
    started.home.mkdir(mode=0o700)
    (started.home / RESERVATIONS_FILE).write_bytes(b"this is no database\n" * 1000)
    (started.home / EPOCH_FILE).write_text("no number")
    started.start_all()
    router = started.one("router")
    assert str(started.home / RESERVATIONS_FILE) in router.output
    assert str(started.home / EPOCH_FILE) in router.output
    stream = await publish_and_leave(started, clients, stream=new_name())
    poll(lambda: stream in reserved_in(started), SAVED_S, "it was not written anew")


async def test_an_operator_sees_a_reservation_and_releases_it(two_gateways: Watchout, clients: Clients) -> None:
    stream = await publish_and_leave(two_gateways, clients, user="owner1", stream=new_name())
    rows = json.loads(ctl(two_gateways, "reservations", "--json").stdout)
    (row,) = [row for row in rows if row["streamId"] == stream]
    assert 604_700 < row["secondsLeft"] <= 604_800
    table = ctl(two_gateways, "reservations", "--user", row["userId"]).stdout
    assert stream in table
    assert "6 d 23 h" in table
    await refused(two_gateways, clients, stream)
    ended = ctl(two_gateways, "reservations", "--release", stream)
    assert (ended.returncode, row["userId"] in ended.stdout) == (0, True), ended
    ended = ctl(two_gateways, "reservations", "--release", stream)
    assert ended.returncode == 1
    assert "not reserved" in ended.stderr
    await comes_back(two_gateways, clients, stream, user="mallory")
    assert ctl(two_gateways, "reservations", "--release", "bad id").returncode == 2


# ── a disk without room ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk") as place:
        yield place


async def test_a_router_that_restarts_on_a_full_disk_starts_and_names_what_it_could_not_write(
    small_disk: Path, watchout: Callable[..., Watchout], clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"WATCHOUT_HOME": str(small_disk), **PATIENT}
    started = watchout(environ=environ, start=False, expected=["No space left", "full"])
    started.home = small_disk
    started.start_all()
    camera = await clients.camera(started.url, started.token("ann"))
    stream = await camera.register(new_name())
    viewer = await clients.viewer(started.url, started.token("ann"))
    await viewer.subscribe(stream)
    tokens = {user: started.token(user) for user in ("bob", "mallory")}  # the store cannot take any later
    monkeypatch.setattr(started, "token", tokens.__getitem__)
    filling = disks.fill(small_disk)
    for _ in range(2):
        restart_router(started)
        await serves(started)
        router = started.one("router")
        assert str(small_disk / EPOCH_FILE) in router.output
        assert "No space left" in router.output
        await camera.show()
        await viewer.frame()
    other = await publish_and_leave(started, clients, user="bob", stream=new_name())
    router = started.one("router")
    poll(lambda: str(small_disk / RESERVATIONS_FILE) in router.output, 30, "it does not say that it cannot write")
    await refused(started, clients, other)
    filling.unlink()
    poll(lambda: "are written again" in router.output, 30, "it does not write again")
    poll(lambda: other in reserved_in(started), SAVED_S, "it was not written")


async def test_a_read_only_home_stops_the_start_by_name(small_disk: Path, watchout: Callable[..., Watchout]) -> None:
    """The sockets of the bus cannot be had there."""
    started = watchout(environ={"WATCHOUT_HOME": str(small_disk)}, start=False)
    started.home = small_disk
    router = started.start("router")
    router.wait_for_output("router ready")
    router.terminate(SAVED_S)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    router = started.start("router")
    assert router.wait(SAVED_S) == 1
    assert str(small_disk) in router.output
    assert "Read-only file system" in router.output
