"""The bus over TCP: both ends on loopback, with keys that are allowed and keys that are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import zmq

from tests.kit.clients import eventually
from tests.kit.ports import free_port
from watchout.common.bus.credit import WINDOW_BYTES
from watchout.common.bus.frames import FOR_ALERT, BusFrame
from watchout.common.bus.zeromq import curve
from watchout.common.bus.zeromq.control import is_remote, new_member_id
from watchout.common.bus.zeromq.curve import AllowList, Pair
from watchout.common.bus.zeromq.tcp import RouterAddress
from watchout.common.bus.zeromq.tcp_member import TcpMemberTransport
from watchout.common.bus.zeromq.tcp_router import MAX_ARRIVALS_OF_ONE, MAX_REMOTE, TcpRouterTransport
from watchout.common.errors import StartError
from watchout.common.process import descriptors

MAX_BYTES = 1 << 20
#: What must come gets this long.
COMES_S = 30.0
#: What must not come would be there after this.
STAYS_AWAY_S = 1.5


def frame(number: int, stream: str = "cam", *, size: int = 10, **fields: bytes) -> bytes:
    return BusFrame(stream, 1, number, 1, 1, 1, b"x" * size, **fields).encode()


class RouterEnd:
    """A router's end that replies to each message with itself, and keeps what arrived."""

    def __init__(self, home: Path, url: str, pair: Pair) -> None:
        self.control: list[tuple[bytes, bytes]] = []
        self.frames: list[bytes] = []
        self.bus = TcpRouterTransport(
            url,
            pair,
            AllowList(home),
            max_message_bytes=MAX_BYTES,
            on_control=self._on_control,
            on_frame=self.frames.append,
        )

    def _on_control(self, member: bytes, message: bytes) -> None:
        self.control.append((member, message))
        self.bus.send_control(member, b"reply to " + message)


class MemberEnd:
    """A member's end that keeps what arrived."""

    def __init__(self, url: str, server_key: str, pair: Pair, **options: object) -> None:
        self.id = new_member_id(remote=True)
        self.received: list[bytes] = []
        self.frames: list[bytes] = []
        self.bus = TcpMemberTransport(
            RouterAddress(url, server_key, pair), member_id=self.id, max_message_bytes=MAX_BYTES,
            on_control=self.received.append, on_frame=self.frames.append,
        )  # fmt: skip

    async def exchange(self, message: bytes) -> None:
        """Send a message, once there is a connection, and wait for the reply."""
        await eventually(lambda: self.bus.send_control(message), COMES_S, "no connection to the router")
        await eventually(lambda: b"reply to " + message in self.received, COMES_S, "no reply of the router")

    async def joins(self, router: RouterEnd) -> None:
        await self.exchange(b"hello")
        self.bus.on_joined()
        await eventually(lambda: router.bus.reaches(self.id), COMES_S, "no window was opened")


class Site:
    """A router with its keys, and whoever connects."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = f"tcp://127.0.0.1:{free_port()}"
        self.server, self.client = curve.new_pair(), curve.new_pair()
        curve.allow(home, "ml", self.client.public)
        self._open: list[TcpRouterTransport | TcpMemberTransport] = []
        self.router = self.start()

    def start(self) -> RouterEnd:
        self.router = RouterEnd(self.home, self.url, self.server)
        self._open.append(self.router.bus)
        return self.router

    def stop(self) -> None:
        self._open.remove(self.router.bus)
        self.router.bus.close()

    def member(self, pair: Pair | None = None, server_key: str | None = None) -> MemberEnd:
        member = MemberEnd(self.url, server_key or self.server.public, pair or self.client)
        self._open.append(member.bus)
        return member

    def close(self) -> None:
        for end in reversed(self._open):
            end.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def test_the_first_bit_of_a_member_id_is_set_over_tcp() -> None:
    for _ in range(500):
        assert is_remote(new_member_id(remote=True))
        local = new_member_id()
        assert not is_remote(local)
        assert local[0] != 0


async def test_a_member_with_an_allowed_key_reaches_the_router_and_gets_its_frames(site: Site) -> None:
    member = site.member()
    await member.joins(site.router)
    for number in range(20):
        site.router.bus.send_frame(member.id, frame(number, f"cam-{number}"), None)
    await eventually(lambda: len(member.frames) == 20, COMES_S)
    assert member.frames == [frame(number, f"cam-{number}") for number in range(20)]
    assert (site.router.bus.frames_sent, site.router.bus.frames_dropped) == (20, 0)


async def test_a_key_that_is_not_allowed_gets_nothing_until_it_is(site: Site) -> None:
    other = curve.new_pair()
    member = site.member(other)
    await eventually(lambda: site.router.bus.refusals["key"], COMES_S)
    await asyncio.sleep(STAYS_AWAY_S)
    assert not member.bus.send_control(b"hello")
    assert site.router.control == []
    curve.allow(site.home, "second", other.public)
    await member.joins(site.router)


async def test_a_member_that_expects_another_routers_key_gets_nothing(site: Site) -> None:
    member = site.member(server_key=curve.new_pair().public)
    await eventually(lambda: site.router.bus.refusals["handshake"], COMES_S)
    assert not member.bus.send_control(b"hello")
    assert site.router.control == []


async def test_a_peer_without_curve_gets_nothing(site: Site) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.setsockopt(zmq.LINGER, 0)
    plain.setsockopt(zmq.ROUTING_ID, new_member_id(remote=True))
    plain.connect(site.url)
    plain.send(b"hello", zmq.NOBLOCK)
    await eventually(lambda: site.router.bus.refusals["handshake"], COMES_S)
    assert site.router.control == []
    plain.close()
    context.term()


async def test_bytes_that_are_no_zmtp_do_not_affect_other_members(site: Site) -> None:
    member = site.member()
    await member.joins(site.router)
    host, port = site.url.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\0" * 10_000)
        await member.exchange(b"still here")


@contextlib.contextmanager
def strangers(url: str, number: int) -> Iterator[list[socket.socket]]:
    """So many connections that say nothing."""
    host, port = url.removeprefix("tcp://").split(":")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(number)]


async def test_connections_that_show_no_key_are_bounded_and_who_has_a_key_is_not_kept_out_by_those_of_others(
    site: Site,
) -> None:
    early = site.member()
    await early.joins(site.router)
    refusals = site.router.bus.refusals
    with strangers(site.url, MAX_ARRIVALS_OF_ONE + 10):
        await eventually(lambda: refusals["room"] == 10, COMES_S, "the others are closed at once")
        await early.exchange(b"still here")
        await eventually(lambda: refusals["handshake"] == MAX_ARRIVALS_OF_ONE, COMES_S, "they end by themselves")
    late = site.member()
    await late.joins(site.router)
    assert refusals == {"room": 10, "handshake": MAX_ARRIVALS_OF_ONE}, "each is counted once"


async def test_members_that_come_and_go_are_not_taken_for_strangers(site: Site) -> None:
    for _ in range(MAX_ARRIVALS_OF_ONE):
        await site.member().joins(site.router)
    assert not site.router.bus.refusals


async def test_a_key_that_is_read_before_its_connection_is_counted_for_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh = AllowList.refresh
    members = [site.member()]

    def refresh_while_another_comes(allowed: AllowList) -> None:
        if len(members) == 1:
            members.append(site.member())
            time.sleep(0.2)  # its key is asked for, and this process reads on where it is
        refresh(allowed)

    monkeypatch.setattr(AllowList, "refresh", refresh_while_another_comes)
    await members[0].joins(site.router)
    await members[1].joins(site.router)
    refusals = site.router.bus.refusals
    with strangers(site.url, MAX_ARRIVALS_OF_ONE):
        while refusals["handshake"] < MAX_ARRIVALS_OF_ONE and not refusals["room"]:
            for member in members:  # one that hears nothing connects again
                await member.exchange(b"still here")
            await asyncio.sleep(0.1)
    assert not refusals["room"], "a member is counted as one that has shown no key"


async def test_whoever_comes_is_turned_away_while_descriptors_are_short(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, refusals = site.member(), site.router.bus.refusals
    await early.joins(site.router)
    monkeypatch.setattr(descriptors, "count_open", descriptors.limit)
    with strangers(site.url, 3):
        await eventually(lambda: refusals["room"] == 3, COMES_S)
    late = site.member()
    await eventually(lambda: refusals["room"] > 3, COMES_S)
    await early.exchange(b"still here")
    monkeypatch.undo()
    await late.joins(site.router)


async def test_messages_under_a_removed_key_are_dropped_until_it_is_allowed_again(site: Site) -> None:
    member = site.member()
    await member.joins(site.router)
    curve.remove(site.home, "ml")
    await eventually(lambda: site.router.bus.revoked() == [member.id], COMES_S)
    site.router.bus.forget(member.id)
    received = len(site.router.control)
    member.bus.send_control(b"still here?")
    site.router.bus.send_frame(member.id, frame(1), None)
    await asyncio.sleep(STAYS_AWAY_S)
    assert len(site.router.control) == received
    assert member.frames == []
    # The router sends nothing more, so the member connects again, and its key is refused.
    await eventually(lambda: site.router.bus.refusals["key"], COMES_S)
    curve.allow(site.home, "ml", site.client.public)
    await member.joins(site.router)


async def test_a_member_reconnects_to_a_restarted_router(site: Site) -> None:
    member = site.member()
    await member.joins(site.router)
    site.stop()
    await eventually(lambda: not member.bus.send_control(b"anybody?"), COMES_S)
    router = site.start()
    await member.joins(router)
    router.bus.send_frame(member.id, frame(2), None)
    await eventually(lambda: member.frames == [frame(2)], COMES_S)


async def test_a_member_that_starts_first_waits_for_the_router(site: Site) -> None:
    site.stop()
    member = site.member()
    await asyncio.sleep(0.2)
    await member.joins(site.start())


@contextlib.contextmanager
def not_reading(member: MemberEnd) -> Iterator[None]:
    """The member's loop does not get to its frames, as when it hangs; the kernel and libzmq still take bytes."""
    taken: Callable[[], None] = member.bus._frames_reader.close
    taken()
    yield


async def test_a_member_that_hangs_is_sent_one_window_and_the_newest_frame_is_queued(site: Site) -> None:
    member = site.member()
    await member.joins(site.router)
    with not_reading(member):
        for number in range(200):
            for stream in ("a", "b"):
                site.router.bus.send_frame(member.id, frame(number, stream, size=50_000), None)
    bus = site.router.bus
    assert bus.frames_sent * 50_000 <= WINDOW_BYTES + 50_100
    assert bus.frames_sent + bus.frames_dropped == 400 - 2
    await member.exchange(b"control is not behind the frames")
    bus.forget(member.id)
    assert bus.frames_sent + bus.frames_dropped == 400


async def test_a_remote_members_frames_are_refused_except_for_pictures_of_alerts(site: Site) -> None:
    member = site.member()
    await member.joins(site.router)
    picture = frame(1, size=100_000, to=FOR_ALERT)
    for sent in (frame(1), frame(2, to=new_member_id()), b"F", b"what is this", b""):
        member.bus.send_frame((sent,), 0.0)
    member.bus.send_frame((picture[:50], picture[50:]), 0.0)
    await eventually(lambda: site.router.frames, COMES_S)
    assert site.router.frames == [picture]
    assert site.router.bus.malformed == 5
    assert member.bus.frames_sent == 6


async def test_more_bytes_than_a_window_go_both_ways_because_each_side_acknowledges(site: Site) -> None:
    member = site.member()
    await member.joins(site.router)
    count = 3 * WINDOW_BYTES // 100_000
    for number in range(count):
        site.router.bus.send_frame(member.id, frame(number, f"cam-{number}", size=100_000), None)
        member.bus.send_frame((frame(number, f"cam-{number}", size=100_000, to=FOR_ALERT),), 0.0)
    await eventually(lambda: len(member.frames) == len(site.router.frames) == count, COMES_S)


@pytest.mark.parametrize("routing_id", [b"\x01" + b"m" * 7, b"\xff" * 7, b"\xff" * 8 + b"x", b"\xff" * 10])
async def test_an_id_that_no_remote_member_can_have_is_refused(site: Site, routing_id: bytes) -> None:
    stranger = TcpMemberTransport(
        RouterAddress(site.url, site.server.public, site.client), member_id=routing_id, max_message_bytes=MAX_BYTES,
        on_control=lambda _: None,
    )  # fmt: skip
    try:
        await eventually(lambda: stranger.send_control(b"hello"), COMES_S)
        await eventually(lambda: site.router.bus.malformed, COMES_S)
        assert site.router.control == []
    finally:
        stranger.close()


async def test_an_id_cannot_be_used_with_another_key(site: Site) -> None:
    member = site.member()
    await member.joins(site.router)
    other = curve.new_pair()
    curve.allow(site.home, "other", other.public)
    thief = TcpMemberTransport(
        RouterAddress(site.url, site.server.public, other), member_id=member.id, max_message_bytes=MAX_BYTES,
        on_control=lambda _: None,
    )  # fmt: skip
    try:
        await eventually(lambda: thief.send_control(b"hello again"), COMES_S)
        await eventually(lambda: site.router.bus.malformed, COMES_S)
        assert (member.id, b"hello again") not in site.router.control
    finally:
        thief.close()


async def test_an_address_that_cannot_be_bound_is_a_start_error(site: Site) -> None:
    with pytest.raises(StartError, match=r"cannot listen on ROUTER_LISTEN=tcp://127\.0\.0\.1"):
        RouterEnd(site.home, site.url, site.server)


def test_members_over_tcp_are_bounded() -> None:
    assert 0 < MAX_REMOTE <= 1_000
