"""The frame mesh between hosts, with real TLS connections: who may connect, renewal, peers that stop."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.kit.mesh_hosts import MAX_BYTES, Authority, authority, files, frame, meshes, whole
from tests.kit.polling import until
from tests.kit.ports import free_port
from tests.kit.proxies import SilentProxy
from watchout.common.bus import mesh_address
from watchout.common.bus.mesh_address import MeshAddress
from watchout.common.bus.zeromq import echoes, mesh_certificates, mesh_links, tls_sockets
from watchout.common.bus.zeromq.mesh_certificates import MeshFiles
from watchout.common.bus.zeromq.tls_mesh import TlsFrameMesh
from watchout.common.errors import StartError
from watchout.common.process import descriptors
from watchout.common.settings.mesh_listen import MeshListen

Make = Callable[..., tuple[TlsFrameMesh, list[bytes]]]
Logged = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def ca() -> Iterator[Authority]:
    with authority() as made:
        yield made


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with meshes() as make_one:
        yield make_one


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Logged:
    """What the modules of the mesh log: (event, fields)."""
    lines: Logged = []

    def add(event: str, **fields: Any) -> None:
        lines.append((event, fields))

    for module in (mesh_certificates, mesh_links, tls_sockets):
        monkeypatch.setattr(module, "_log", SimpleNamespace(info=add, warning=add, error=add))
    return lines


def port_of(mesh: TlsFrameMesh) -> int:
    assert mesh.address is not None
    return mesh_address.parse(mesh.address).port


def told(mesh: TlsFrameMesh) -> dict[str, float]:
    """What is told of its links; its certificate, of which that says when it expires, is good for a year."""
    figures = dict(mesh.figures())
    assert figures.pop("mesh_certificate_expires_seconds") == pytest.approx(time.time() + 365 * 86_400, abs=86_400)
    return figures


async def test_frames_go_from_host_to_host_in_both_directions(ca: Authority, make: Make) -> None:
    (a, at_a), (b, at_b) = make(ca.home("a", "127.0.0.1")), make(ca.home("b", "127.0.0.2"), "127.0.0.2")
    assert a.address
    assert b.address
    assert b.address.startswith(f"tls:127.0.0.2:{port_of(b)}/f-")
    for number, size in enumerate((0, 1, 44_000, 300_000, 1 << 20), 1):
        a.send_frame(b.address, frame(number, size=size), 0.0)
        b.send_frame(a.address, frame(number, size=size), 0.001)
        await until(lambda n=number, s=size: at_a[-1:] == at_b[-1:] == [whole(n, size=s)])
    assert (a.frames_sent, b.frames_sent, a.frames_dropped, a.malformed, a.refused) == (5, 5, 0, 0, 0)
    assert [state.remote for state in a.links.states()] == [True]
    assert a.links.states()[0].connected
    assert told(a) == {"mesh_links": 1, "mesh_links_down": 0, "mesh_refused_total": 0}


async def test_a_member_of_the_same_home_is_reached_by_its_unix_socket(ca: Authority, make: Make) -> None:
    home = ca.home("a", "127.0.0.1")
    (a, _), (b, at_b) = make(home), make(home)
    assert b.address
    a.send_frame(b.address, frame(1), 0.0)
    await until(lambda: at_b == [whole(1)])
    assert [state.remote for state in a.links.states()] == [False]
    assert told(a) == {"mesh_links": 0, "mesh_links_down": 0, "mesh_refused_total": 0}


async def greeted(port: int, context: ssl.SSLContext | None, send: bytes) -> bytes:
    """Connect, send, and return what comes until the other side closes; empty when it refuses."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(send)
        try:
            async with asyncio.timeout(20):
                return await reader.read(1 << 20)
        finally:
            writer.transport.abort()
    except (OSError, ssl.SSLError):
        return b""


def stranger(*, cert: Path | None = None, least: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that takes any certificate, and shows the one in a home, or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        context.load_cert_chain(files(cert).cert, files(cert).key)
    if least is not None:
        context.maximum_version = least
    return context


async def test_whoever_has_no_valid_certificate_of_the_cluster_is_refused_and_disturbs_nobody(
    ca: Authority, make: Make, logged: Logged
) -> None:
    (a, at_a), (b, _) = make(ca.home("a", "127.0.0.1")), make(ca.home("b", "127.0.0.1"))
    assert a.address
    with authority() as other:
        foreign, expired = other.home("x", "127.0.0.1"), ca.home("old", "127.0.0.1", days=-1)
        tries: list[tuple[ssl.SSLContext | None, bytes]] = [
            (None, b"GET / HTTP/1.1\r\n\r\n"),
            (None, b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)),  # ZMTP without TLS
            (None, bytes(range(256)) * 40),
            (stranger(), b"x" * 100),
            (stranger(cert=foreign), b"x" * 100),
            (stranger(cert=expired), b"x" * 100),
            (stranger(cert=foreign, least=ssl.TLSVersion.TLSv1_2), b"x" * 100),
        ]
        for number, (context, send) in enumerate(tries, 1):
            assert b"READY" not in await greeted(port_of(a), context, send), number
            await until(lambda n=number: a.refused == n)
            b.send_frame(a.address, frame(number), 0.0)
            await until(lambda n=number: at_a[-1:] == [whole(n)])
    assert a.malformed == 0
    refusals = [fields for event, fields in logged if event == "a connection to the frame mesh was refused"]
    assert [fields["peer"] for fields in refusals] == ["127.0.0.1"], "once a minute"


async def test_a_peer_of_the_cluster_that_speaks_garbage_is_closed_and_disturbs_nobody(
    ca: Authority, make: Make
) -> None:
    home_b = ca.home("b", "127.0.0.1")
    (a, at_a), (b, _) = make(ca.home("a", "127.0.0.1")), make(home_b)
    assert a.address
    for number, garbage in enumerate((b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40), 1):
        assert await greeted(port_of(a), stranger(cert=home_b), garbage) is not None
        await until(lambda n=number: a.malformed == n)
        b.send_frame(a.address, frame(number), 0.0)
        await until(lambda n=number: at_a[-1:] == [whole(n)])
    assert a.refused == 0


async def test_strangers_that_say_nothing_are_bounded_and_closed(
    ca: Authority, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_sockets, "HANDSHAKE_S", 3.0)
    monkeypatch.setattr(tls_sockets, "MAX_HANDSHAKES_OF_ONE", 5)
    a, at_a = make(ca.home("a", "127.0.0.1"))
    b, _ = make(ca.home("b", "127.0.0.2"), "127.0.0.2")
    assert a.address
    silent = [await asyncio.open_connection("127.0.0.1", port_of(a), local_addr=("127.0.0.3", 0)) for _ in range(12)]
    await until(lambda: a.refused + len(a._binding._handshakes) == 12)
    assert len(a._binding._handshakes) <= 5, "the others are closed at once"
    b.send_frame(a.address, frame(1), 0.0)  # from another address
    await until(lambda: at_a == [whole(1)])
    for reader, _ in silent:
        async with asyncio.timeout(20):
            assert await reader.read() == b"", "it is closed after the time for a handshake"
    await until(lambda: a.refused == 12)
    for _, writer in silent:
        writer.transport.abort()


async def test_nobody_new_comes_in_while_descriptors_are_short_and_who_is_in_stays(
    ca: Authority, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, at_a = make(ca.home("a", "127.0.0.1"))
    b, _ = make(ca.home("b", "127.0.0.2"), "127.0.0.2")
    c, _ = make(ca.home("c", "127.0.0.3"), "127.0.0.3")
    assert a.address
    b.send_frame(a.address, frame(1), 0.0)
    await until(lambda: at_a == [whole(1)])
    monkeypatch.setattr(descriptors, "count_open", descriptors.limit)
    c.send_frame(a.address, frame(2, "late"), 0.0)
    await until(lambda: a.refused > 1)
    b.send_frame(a.address, frame(3), 0.0)
    await until(lambda: at_a[-1] == whole(3))
    assert whole(2, "late") not in at_a
    monkeypatch.undo()
    await until(lambda: at_a[-1] == whole(2, "late"))


async def test_a_host_that_the_certificate_does_not_name_gets_no_frames_and_the_log_says_why(
    ca: Authority, make: Make, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(mesh_links, "MISSING_AFTER_S", 0.0)
    a, _ = make(ca.home("a", "127.0.0.1"))
    wrong, at_wrong = make(ca.home("b", "127.0.0.2"), "127.0.0.1")  # it listens where its certificate does not say
    assert wrong.address
    a.send_frame(wrong.address, frame(1), 0.0)
    await until(lambda: a.links.states()[0].fault)
    assert "127.0.0.1" in a.links.states()[0].fault
    assert not a.links.states()[0].connected
    assert a.figures()["mesh_links_down"] == 1
    assert at_wrong == []
    said = dict(logged)
    assert "not valid for" in said["other hosts will refuse this host's certificate"]["reason"]
    assert "not valid for" in said["frames do not reach another host"]["reason"]


async def test_a_host_of_another_authority_gets_no_frames(ca: Authority, make: Make) -> None:
    with authority() as other:
        a, _ = make(ca.home("a", "127.0.0.1"))
        foreign, at_foreign = make(other.home("b", "127.0.0.1"))
        assert foreign.address
        a.send_frame(foreign.address, frame(1), 0.0)
        await until(lambda: a.links.states()[0].fault)
        assert "certificate" in a.links.states()[0].fault
        assert at_foreign == []


def shown_by(sender: TlsFrameMesh, at: str) -> str:
    """The certificate of the peer of a link, as text."""
    connection = sender.links._links[at].sender.connection
    assert connection is not None
    return str(connection.transport.get_extra_info("ssl_object").getpeercert(True))


async def test_renewed_certificates_are_used_for_new_connections_without_a_restart(
    ca: Authority, make: Make, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_certificates, "LOOK_AGAIN_S", 0.0)
    home_a, home_b = ca.home("a", "127.0.0.1"), ca.home("b", "127.0.0.1")
    (a, at_a), (b, _) = make(home_a), make(home_b)
    assert a.address
    numbers = iter(range(1, 10_000))

    async def crosses() -> str:
        """Send over a new connection; the certificate that the receiver showed."""
        number = next(numbers)
        b.links.close_idle()
        b.links.close_idle()
        assert len(b.links) == 0
        b.send_frame(a.address or "", frame(number), 0.0)
        await until(lambda: whole(number) in at_a)
        return shown_by(b, a.address or "")

    first = await crosses()
    assert await crosses() == first
    # The way to another authority: both are accepted, then one host after the other has a new certificate.
    with authority() as other:
        both = (ca.directory / "ca.crt").read_bytes() + (other.directory / "ca.crt").read_bytes()
        for home in (home_a, home_b):
            (home / "mesh" / "ca.crt").write_bytes(both)
        assert await crosses() == first
        made = other.home("a", "127.0.0.1")
        (made / "mesh" / "host.crt").replace(home_a / "mesh" / "host.crt")  # its key is still the old one
        assert await crosses() == first
        assert any("cannot be used, the old one stays" in event for event, _ in logged)
        (made / "mesh" / "host.key").replace(home_a / "mesh" / "host.key")
        renewed = await crosses()
        assert renewed != first
        only_new = other.home("c", "127.0.0.1")
        (only_new / "mesh" / "host.key").replace(home_b / "mesh" / "host.key")
        (only_new / "mesh" / "host.crt").replace(home_b / "mesh" / "host.crt")
        for home in (home_a, home_b):
            (home / "mesh" / "ca.crt").write_bytes((other.directory / "ca.crt").read_bytes())
        assert await crosses() == renewed
        foreign = ca.home("d", "127.0.0.1")
        for name in ("host.crt", "host.key"):
            (foreign / "mesh" / name).replace(home_a / "mesh" / name)
        assert await crosses() == renewed, "one that others would refuse is not taken"
    assert any("would refuse the new certificate" in event for event, _ in logged)


@pytest.mark.parametrize("days", [-1, 29, 31])
async def test_a_certificate_that_expires_soon_is_logged(ca: Authority, make: Make, logged: Logged, days: int) -> None:
    home = ca.home("a", "127.0.0.1", days=days)
    make(home)
    if days == 31:
        await asyncio.sleep(0.1)
        assert not any("certificate" in event for event, _ in logged)
        return
    word = "expired" if days < 0 else "expires soon"
    await until(lambda: any(word in event for event, _ in logged))


async def test_what_cannot_be_listened_with_ends_the_start(ca: Authority, make: Make, tmp_path: Path) -> None:
    home, other = ca.home("a", "127.0.0.1"), ca.home("b", "127.0.0.1")
    first, _ = make(home)
    for arguments, said in (
        ({"port": port_of(first)}, "every port is in use"),
        ({"host": "192.0.2.1"}, "cannot be bound"),
        ({"host": "no-such-host.invalid"}, "is not known"),
        ({"of": MeshFiles(tmp_path / "none", tmp_path / "none", tmp_path / "none")}, "MESH_CERT cannot be read"),
        ({"of": replace(files(home), key=files(other).key)}, "does not belong to"),
        ({"of": replace(files(home), ca=files(home).key)}, "MESH_CA holds no certificate"),
        ({"of": replace(files(home), cert=files(home).key)}, "MESH_CERT is no certificate"),
    ):
        with pytest.raises(StartError, match=said):
            make(home, **arguments)


async def test_each_process_takes_a_free_port_of_the_range(ca: Authority) -> None:
    home = ca.home("a", "127.0.0.1")
    first = free_port()
    listen = MeshListen("127.0.0.1", first, min(first + 20, 65_535), "127.0.0.1")
    made = [TlsFrameMesh(home, listen, files(home), max_message_bytes=1000, on_frame=lambda _: None) for _ in range(3)]
    try:
        ports = [port_of(mesh) for mesh in made]
        assert len(set(ports)) == 3
        assert all(listen.first <= port <= listen.last for port in ports)
    finally:
        for mesh in made:
            mesh.close()


class Peer:
    """A mesh in a thread of its own, whose event loop can be stopped as SIGSTOP would stop it."""

    def __init__(self, home: Path, host: str = "127.0.0.1") -> None:
        self.got: list[tuple[float, bytes]] = []
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._go_on = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(home, host))
        self._thread.start()
        assert self._ready.wait(30)

    def _run(self, home: Path, host: str) -> None:
        async def work() -> None:
            self._end = asyncio.Event()
            mesh = TlsFrameMesh(
                home, MeshListen(host, 0, 0, host), files(home), max_message_bytes=MAX_BYTES,
                on_frame=lambda data: self.got.append((time.monotonic(), bytes(data))),
            )  # fmt: skip
            self.address = mesh.address or ""
            self._ready.set()
            await self._end.wait()
            mesh.close()
            await asyncio.sleep(0.05)

        self._loop.run_until_complete(work())
        self._loop.close()

    def stop(self) -> None:
        self._go_on.clear()
        self._loop.call_soon_threadsafe(self._go_on.wait, 60)

    def go_on(self) -> None:
        self._go_on.set()

    def close(self) -> None:
        self._go_on.set()
        self._loop.call_soon_threadsafe(lambda: self._end.set())
        self._thread.join(30)


async def test_a_peer_that_was_stopped_gets_few_old_frames_and_then_the_newest(ca: Authority, make: Make) -> None:
    a, _ = make(ca.home("a", "127.0.0.1"))
    b, at_b = make(ca.home("b", "127.0.0.2"), "127.0.0.2")
    assert b.address
    peer = await asyncio.to_thread(Peer, ca.home("c", "127.0.0.3"), "127.0.0.3")
    streams = [f"cam-{number}" for number in range(10)]
    sent_at: dict[bytes, float] = {}

    async def send_for(seconds: float, first: int) -> int:
        """Send frames of 44 kB, 10 per second of each stream."""
        end = time.monotonic() + seconds
        number = first
        while time.monotonic() < end:
            for stream in streams:
                sent_at[whole(number, stream, 44_000)] = time.monotonic()
                a.send_frame(peer.address, frame(number, stream, 44_000), 0.0)
            a.send_frame(b.address or "", frame(number, "near"), 0.0)
            number += 1
            await asyncio.sleep(0.1)
        return number

    try:
        next_number = await send_for(1.0, 1)
        await until(lambda: len(peer.got) >= 10)
        peer.stop()
        before = len(peer.got)
        next_number = await send_for(4.0, next_number)
        stalled = len(peer.got)
        assert a.links.queued_bytes[peer.address] <= 8 << 20
        woke_at = time.monotonic()
        peer.go_on()
        last = next_number
        while len(peer.got) <= stalled + 20:  # newer frames may take the place of some
            assert time.monotonic() - woke_at < 60, "the newest frames do not come"
            next_number = await send_for(0.5, next_number)
        late = [data for _, data in peer.got[before:] if sent_at[data] < woke_at - 0.25]
        rate = len(streams) * 10
        assert len(late) <= rate * 0.5, "what was sent before the stop was noticed"
        print("late", len(late), "of", rate * 4, "sent meanwhile")
        await until(lambda: whole(last - 1, "near") in at_b)  # no neighbour waits
    finally:
        await asyncio.to_thread(peer.close)


async def test_a_peer_that_vanishes_without_a_word_is_noticed_and_reached_again(
    ca: Authority, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echoes, "GONE_S", 1.0)
    (a, _), (b, at_b) = make(ca.home("a", "127.0.0.1")), make(ca.home("b", "127.0.0.1"))
    assert b.address
    proxy = SilentProxy(port_of(b))
    async with proxy.running():
        at = str(MeshAddress(mesh_address.parse(b.address).name, "127.0.0.1", proxy.port))
        number = 1

        async def send_until(condition: Callable[[], object]) -> None:
            """Send 20 frames a second until it is so; what is queued is never more than the newest."""
            nonlocal number

            def send() -> bool:
                nonlocal number
                a.send_frame(at, frame(number), 0.0)
                number += 1
                return bool(condition())

            deadline = time.monotonic() + 60
            while not send():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

        await send_until(lambda: len(at_b) >= 5)
        proxy.silence()
        await send_until(lambda: a.links.states()[0].fault == "the peer does not answer")
        assert proxy.made >= 1
        assert a.links.queued_bytes[at] <= len(whole(1)), "the newest frame alone"
        silent_at, came = number, len(at_b)
        await proxy.heal()
        await send_until(lambda: len(at_b) > came + 5)
        old = [data for data in at_b[came:] if data in {whole(earlier) for earlier in range(silent_at - 1)}]
        assert old == [], "nothing of what was sent while it was away"


def test_one_machine_loads_nothing_of_tls() -> None:
    code = """
import sys
from watchout.common.bus import transport_choice
from watchout.common.settings import load
transport_choice.gateway_carrier(load({}))
sys.exit(any("tls" in name or "mesh_certificates" in name for name in sys.modules if "watchout.common.bus" in name))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
