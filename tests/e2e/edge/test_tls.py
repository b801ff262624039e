"""Sockets and HTTP over TLS, certificates that change, and handshakes that are left open."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from benchmarks.clientwire import TEXT, message, upgrade
from tests.e2e.edge.support import ELSEWHERE, LOOPS, SUBSCRIBE, from_elsewhere, patched_gateway
from tests.kit.certificates import make_certificate, make_key, pem
from tests.kit.clients import DEADLINE_S, Clients, eventually
from tests.kit.processes import Watchout, poll, running

FRAME_BYTES = 10_000
#: On its way to a viewer that reads nothing there may be: the reader's buffer, what the kernel takes before it sends,
#: and the rest of one frame in the gateway; then the newest frame comes.
WIRE_BYTES = 8 * FRAME_BYTES


class Secured:
    """A watchout whose port speaks TLS."""

    def __init__(self, started: Watchout, changes: str = "") -> None:
        self.started = started
        self.cert, self.key = started.directory / "cert.pem", started.directory / "key.pem"
        self.renew()
        environ = {"TLS_CERT": str(self.cert), "TLS_KEY": str(self.key)}
        started.start("router")
        self.gateway = patched_gateway(started, changes, environ)
        poll(lambda: "gateway ready" in self.gateway.output or not self.gateway.running, 30, "no gateway")
        assert self.gateway.running, self.gateway.output
        self.url = started.url.replace("http:", "https:")

    def renew(self) -> None:
        """Another certificate and key in place of what is there."""
        key = make_key()
        for path, data in ((self.key, pem(key)), (self.cert, make_certificate(key))):
            new = path.with_suffix(".new")
            new.write_bytes(data)
            new.replace(path)

    @property
    def trust(self) -> ssl.SSLContext:
        """Trusts the certificate that is there now, and no other."""
        return ssl.create_default_context(cafile=str(self.cert))

    async def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as session,
            session.get(self.url + path, ssl=self.trust, headers=headers) as response,
        ):
            return response.status, await response.json()


@pytest.fixture(scope="module", params=LOOPS)
def secured(request: pytest.FixtureRequest) -> Iterator[Secured]:
    with running(loop=request.param, environ={"HANDSHAKE_TIMEOUT_S": "60"}, start=False) as started:
        yield Secured(started)


@pytest.fixture(scope="module", params=LOOPS)
def hasty(request: pytest.FixtureRequest) -> Iterator[Secured]:
    """One that waits a second for each handshake and head; on a busy machine a good client may be too late."""
    environ = {"HANDSHAKE_TIMEOUT_S": "1", "MAX_UNAUTHENTICATED_PER_ADDRESS": "30"}
    with running(loop=request.param, environ=environ, start=False) as started:
        yield Secured(started)


async def status(hasty: Secured, clients: Clients, sent: bytes = b"", **options: Any) -> int:
    """Of the answer to these bytes, or to a request; 0: none came."""
    with contextlib.suppress(OSError, EOFError):
        raw = await clients.raw(hasty.started.url, ssl=hasty.trust, **options)
        await raw.send(sent or raw.head("/"))
        return (await raw.answer()).status
    return 0


async def test_sockets_and_http_work_over_tls(secured, clients):
    url, token = secured.url.replace("https:", "wss:"), secured.started.token()

    async def healthy() -> bool:
        return (await secured.get("/health"))[0] == 200

    await eventually(healthy, 30)
    camera = await clients.camera(url, token, ssl=secured.trust)
    viewer = await clients.viewer(url, token, "header", ssl=secured.trust)
    stream = await camera.register()
    await viewer.subscribe(stream)
    picture = b"\xff\xd8\xff" + secrets.token_bytes(600_000)
    for _ in range(5):
        await camera.show_binary(picture)
        frame = await viewer.frame()
        assert base64.b64decode(frame["data"]) == picture
    status, body = await secured.get("/streams", token)
    assert (status, [row["id"] for row in body["streams"]]) == (200, [stream])
    await viewer.leave()
    assert viewer.connection.close_code == 1000
    await camera.leave()


async def test_a_slow_viewer_over_tls_skips_frames_and_alerts_overtake(secured, clients):
    url, token = secured.url.replace("https:", "wss:"), secured.started.token()
    camera = await clients.camera(url, token, ssl=secured.trust)
    viewer = await clients.viewer(url, token, ssl=secured.trust)
    await viewer.subscribe(await camera.register())
    viewer.connection.transport.pause_reading()
    for _ in range(100):
        await camera.show_binary(b"\xff\xd8\xff" + secrets.token_bytes(200_000))
    viewer.connection.transport.resume_reading()
    await eventually(lambda: viewer.frame_ids and viewer.frame_ids[-1] == 100, 30)
    assert len(viewer.frame_ids) < 100
    assert viewer.frame_ids == sorted(viewer.frame_ids)


def frames_until(sock: ssl.SSLSocket, last: int) -> list[int]:
    """The ids of the binary frames that come, up to this one."""
    held, found = bytearray(), [0]
    while found[-1] < last:
        data = sock.recv(65536)
        assert data, "it ended"
        held += data
        while len(held) >= 4:
            at = 2 + {126: 2, 127: 8}.get(held[1], 0)
            size = int.from_bytes(held[2:at], "big") if at > 2 else held[1]
            if len(held) < at + size:
                break
            if held[0] & 0x0F == 2:
                found.append(int.from_bytes(held[at + 4 : at + 8], "big"))
            del held[: at + size]
    return found[1:]


async def test_a_viewer_over_tls_that_did_not_read_gets_few_old_frames_and_then_the_newest(secured, clients):
    """What waits is what waits without TLS: the rest of one frame in the gateway, and what its kernel took."""
    token = secured.started.token()
    camera = await clients.camera(secured.url.replace("https:", "wss:"), token, ssl=secured.trust)
    stream = await camera.register()

    def watch() -> ssl.SSLSocket:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(DEADLINE_S)
        plain.connect(("127.0.0.1", secured.started.port))
        sock = secured.trust.wrap_socket(plain, server_hostname="127.0.0.1")
        sock.sendall(upgrade("x", f"{SUBSCRIBE}?token={token}", bytes(16)))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += sock.recv(1)
        assert b" 101 " in answer
        wish = {"type": "subscribe", "streamId": stream, "consumes": ["video-frame"], "format": "binary"}
        sock.sendall(message(TEXT, json.dumps(wish).encode(), bytes(4)))
        while b'"status"' not in (said := sock.recv(65536)):
            assert said
        return sock

    viewer = await asyncio.to_thread(watch)
    try:
        for _ in range(100):
            await camera.show_binary(b"\xff\xd8\xff" + secrets.token_bytes(FRAME_BYTES))
        await camera.rest()
        ids = await asyncio.to_thread(frames_until, viewer, 100)
    finally:
        viewer.close()
    assert ids[:-1] == list(range(1, len(ids))), "what is between was replaced"
    assert len(ids) * FRAME_BYTES <= WIRE_BYTES, f"{len(ids)} frames of 100 waited"


async def test_many_handshakes_at_once_are_all_answered(secured):
    answers = await asyncio.gather(*(secured.get("/health/live") for _ in range(25)))
    assert all(status == 200 for status, _ in answers)


async def test_a_refused_handshake_is_answered_over_tls(secured, clients):
    raw = await clients.raw(secured.started.url, ssl=secured.trust)
    await raw.send(raw.upgrade_head(f"{SUBSCRIBE}?token=wrong"))
    assert (await raw.answer()).status == 401
    await raw.gone()
    raw = await clients.raw(secured.started.url, ssl=secured.trust)
    await raw.send(raw.head("/health/live", "X: y\0"))
    assert (await raw.answer()).status == 400
    await raw.gone()


async def test_plain_http_on_the_tls_port_is_closed_and_nothing_else(secured, clients):
    raw = await clients.raw(secured.started.url)
    await raw.send(raw.head("/health/live"))
    said = await raw.gone()
    assert b"HTTP/1.1 2" not in said
    assert (await secured.get("/health/live"))[0] == 200


async def test_a_tls_handshake_left_open_is_a_stranger_and_closed_in_time(hasty, clients):
    async def thirty_fill_it() -> bool:
        held = [await from_elsewhere(clients, hasty.started.url) for _ in range(30)]
        for raw in held[::2]:
            await raw.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        full = await status(hasty, clients, local_addr=ELSEWHERE) == 503
        free = await status(hasty, clients) == 200  # for other addresses
        for raw in held:
            await raw.gone()
        return full and free

    async def it_is_free_again() -> bool:
        return await status(hasty, clients, local_addr=ELSEWHERE) == 200

    await eventually(thirty_fill_it)
    await eventually(it_is_free_again)


async def test_after_the_tls_handshake_the_head_has_its_own_deadline(hasty, clients):
    async def it_is_over() -> bool:
        return await status(hasty, clients, b"GET / HTTP/1.1\r\n") == 408

    await eventually(it_is_over)


async def test_old_tls_is_refused(secured, clients):
    context = secured.trust
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await clients.raw(secured.started.url, ssl=context)


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_gateway_that_ends_closes_sockets_over_tls_in_order(watchout, clients, loop):
    made = Secured(watchout(loop=loop, start=False))
    viewer = await clients.viewer(made.url.replace("https:", "wss:"), made.started.token(), ssl=made.trust)
    half = await clients.raw(made.started.url)
    await half.send(b"\x16\x03\x01")
    ended = asyncio.get_running_loop().create_task(asyncio.to_thread(made.gateway.terminate))
    assert await viewer.closed() == 1012
    assert await ended == 0


async def test_a_new_certificate_is_taken_up_and_a_bad_one_is_not(watchout, clients):
    expected = ("cannot be used, the old one stays in use",)
    hurried = "import watchout.gateway.listen.tls\nwatchout.gateway.listen.tls.LOOK_EVERY_S = 0.1"
    made = Secured(watchout(start=False, expected=expected), hurried)
    viewer = await clients.viewer(made.url.replace("https:", "wss:"), made.started.token(), ssl=made.trust)
    old = made.trust
    good = made.key.read_bytes()
    made.key.write_bytes(b"half a fi")
    await eventually(lambda: "the old one stays in use" in made.gateway.output)
    assert (await made.get("/health/live"))[0] == 200
    made.key.write_bytes(good)
    made.renew()

    async def renewed() -> bool:
        try:
            return (await made.get("/health/live"))[0] == 200
        except aiohttp.ClientConnectorCertificateError:
            return False

    await eventually(renewed)
    with pytest.raises(ssl.SSLError):
        await clients.raw(made.started.url, ssl=old)
    await viewer.rest()


def test_a_key_that_does_not_belong_to_the_certificate_is_said_and_nothing_starts(watchout):
    started = watchout(start=False)
    cert, key = started.directory / "cert.pem", started.directory / "key.pem"
    cert.write_bytes(make_certificate(make_key()))
    key.write_bytes(pem(make_key()))
    gateway = started.start("gateway", {"TLS_CERT": str(cert), "TLS_KEY": str(key)})
    assert gateway.wait(30) == 1
    assert "the private key in TLS_KEY does not belong to the certificate in TLS_CERT" in gateway.output
