"""The frame mesh of one machine, on real Unix sockets: links, bounds, and what is left of members that were killed."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.polling import until
from watchout.common.bus.frames import BusFrame
from watchout.common.bus.zeromq import mesh_links
from watchout.common.bus.zeromq.unix_mesh import UnixFrameMesh, remove_abandoned
from watchout.common.home_files import is_home_file

MAX_BYTES = 1 << 20
Member = Callable[[], tuple[UnixFrameMesh, list[bytes]]]


def frame(number: int, stream: str = "cam", size: int = 1000) -> tuple[bytes, bytes | memoryview]:
    return BusFrame(stream, 1, number, 1, 1, 1, bytes(size)).parts()


def whole(number: int, stream: str = "cam", size: int = 1000) -> bytes:
    return b"".join(frame(number, stream, size))


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wo-") as directory:
        yield Path(directory)


@pytest.fixture
async def member(home: Path) -> AsyncIterator[Member]:
    """Makes members; each with what came to it."""
    opened: list[UnixFrameMesh] = []

    def make() -> tuple[UnixFrameMesh, list[bytes]]:
        got: list[bytes] = []
        opened.append(UnixFrameMesh(home, max_message_bytes=MAX_BYTES, on_frame=lambda frame: got.append(bytes(frame))))
        return opened[-1], got

    yield make
    for mesh in opened:
        mesh.close()
    await asyncio.sleep(0.02)


def silent(home: Path) -> tuple[socket.socket, str]:
    """A member that accepts connections in the kernel only, and its address."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = f"f-{os.urandom(5).hex()[:8].translate(str.maketrans('0189', 'abcd'))}"
    listening.bind(str(home / name))
    listening.listen()
    return listening, f"unix:{name}"


async def test_frames_go_straight_to_each_address_and_are_counted(member: Member, home: Path) -> None:
    sender, nothing = member()
    (near, at_near), (far, at_far) = member(), member()
    assert sender.address
    assert near.address
    assert far.address
    assert all(is_home_file(path.name) for path in home.iterdir())
    sender.send_frame(near.address, frame(1), 0.0)
    sender.send_frame(far.address, frame(2), 0.001)
    near.send_frame(far.address, frame(3, "other"), 0.0)
    await until(lambda: at_near == [whole(1)] and sorted(at_far) == sorted([whole(2), whole(3, "other")]))
    assert nothing == []
    assert (sender.frames_sent, near.frames_sent, far.frames_sent) == (2, 1, 0)
    assert sender.frames_dropped == sender.malformed == 0


async def test_a_receiver_that_comes_back_at_its_address_gets_the_newest_frame_of_each_stream(
    member: Member, home: Path
) -> None:
    sender, _ = member()
    listening, at = silent(home)
    sender.send_frame(at, frame(1), 0.0)
    listening.close()
    (home / at.removeprefix("unix:")).unlink()
    for number in range(2, 50):
        sender.send_frame(at, frame(number, size=50_000), 0.0)
        sender.send_frame(at, frame(number, "other"), 0.0)
        await asyncio.sleep(0)
    back, got = member()
    assert back.address is not None
    (home / back.address.removeprefix("unix:")).rename(home / at.removeprefix("unix:"))
    await until(lambda: {whole(49, size=50_000), whole(49, "other")} <= set(got))
    await until(lambda: sender.frames_sent + sender.frames_dropped == 97)
    assert sender.frames_dropped > 80


async def test_what_waits_for_all_receivers_is_bounded_and_the_one_for_which_most_waits_gives_way(
    member: Member, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_links, "MAX_MESH_BYTES", 4 << 20)
    sender, _ = member()
    reader, got = member()
    assert reader.address is not None
    ends = [silent(home) for _ in range(3)]
    for number in range(30):
        for position, (_, at) in enumerate(ends):
            sender.send_frame(at, frame(number, f"s{number}", size=(position + 1) * 100_000), 0.0)
        held = sum(sender.links.queued_bytes.values())
        assert held <= 4 << 20
        await asyncio.sleep(0)
    sender.send_frame(reader.address, frame(1), 0.0)
    await until(lambda: got == [whole(1)])
    assert sender.frames_dropped > 0
    kept = [sender.links.queued_bytes[at] for _, at in ends]
    assert kept[0] > 0, "the one for which little waits keeps it"
    for listening, _ in ends:
        listening.close()


async def test_past_the_most_links_frames_for_a_further_receiver_are_dropped(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_links, "MAX_LINKS", 1)
    sender, _ = member()
    (near, at_near), (far, at_far) = member(), member()
    assert near.address
    assert far.address
    sender.send_frame(near.address, frame(1), 0.0)
    sender.send_frame(far.address, frame(2), 0.0)
    sender.send_frame(near.address, frame(3, "other"), 0.0)
    await until(lambda: at_near == [whole(1), whole(3, "other")])
    assert at_far == []
    assert sender.frames_dropped == 1


async def test_a_link_that_is_not_used_is_closed_and_made_again_when_it_is(member: Member) -> None:
    sender, _ = member()
    receiver, got = member()
    assert receiver.address is not None
    for number in (1, 2):
        sender.send_frame(receiver.address, frame(number), 0.0)
        await until(lambda n=number: got[-1:] == [whole(n)])
        sender.links.close_idle()
        assert list(sender.links.queued_bytes) == [receiver.address], "it was used since the last look"
        sender.links.close_idle()
        assert len(sender.links) == 0
    assert sender.frames_sent == 2


async def test_a_member_that_cannot_make_its_socket_has_no_address_and_sends_all_the_same(
    member: Member, home: Path, caplog: Any, capsys: Any
) -> None:
    receiver, got = member()
    assert receiver.address is not None
    mesh = UnixFrameMesh(home / "gone", max_message_bytes=MAX_BYTES, on_frame=lambda _: None)
    assert mesh.address is None
    mesh.close()
    assert "come through the router" in capsys.readouterr().out + caplog.text
    assert got == []


async def test_sockets_of_members_that_were_killed_are_removed_and_no_others(member: Member, home: Path) -> None:
    (home / "sessions.db").write_text("")
    (home / "f-file").write_text("not a socket")
    living, got = member()
    killed, killed_at = silent(home)
    starting, starting_at = silent(home)
    serving, _ = silent(home)
    killed.close()
    starting.close()  # as between bind and listen
    long_ago = time.time() - 60
    for path in home.iterdir():
        if path.name != starting_at.removeprefix("unix:"):
            os.utime(path, (long_ago, long_ago))
    before = set(home.iterdir())
    remove_abandoned(home)
    assert before - set(home.iterdir()) == {home / killed_at.removeprefix("unix:")}
    other, _ = member()
    assert living.address is not None
    other.send_frame(living.address, frame(1), 0.0)
    await until(lambda: got == [whole(1)])
    serving.close()
