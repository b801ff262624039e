"""A scheme that does not fit the service is named, over real servers that speak TLS and that do not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from tests.kit.brokers import Broker
from tests.kit.certificates import make_certificate, make_key, pem
from tests.kit.polling import until
from tests.kit.ports import free_port
from tests.kit.relays import Relays, both_ways, connected
from watchout.common.media.frames import Frame
from watchout.common.ml_targets.reach import reach
from watchout.common.settings import Settings
from watchout.ctl.doctor.checks.ml_service import check_ml_service
from watchout.ctl.ml import probes as ml_probes
from watchout.mlbridge.targets import TargetFailure, open_target

FRAME = Frame("s", 1, 1_700_000_000_000, picture=b"\xff\xd8\xff")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    key = make_key()
    (tmp_path / "key.pem").write_bytes(pem(key))
    (tmp_path / "cert.pem").write_bytes(make_certificate(key))
    return tmp_path / "cert.pem", tmp_path / "key.pem"


@contextlib.asynccontextmanager
async def behind_tls(port: int, files: tuple[Path, Path]) -> AsyncIterator[int]:
    """A port that speaks TLS in front of a plain one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connected("127.0.0.1", port) as inner:
            await both_ways((reader, writer), inner)

    async with Relays(serve, ssl=context) as relays:
        yield relays.port


@contextlib.asynccontextmanager
async def http_service() -> AsyncIterator[int]:
    async def analyze(_: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/analyze", analyze)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def said_of(url: str) -> str:
    """What the target's failures say in the end, or "taken"."""
    target = open_target(Settings(ml_service_url=url, ml_timeout_s=15.0))
    assert target is not None
    await target.open(lambda _: None)
    said = ""

    async def names_a_scheme() -> None:
        nonlocal said
        while "expected" not in said:
            try:
                async with asyncio.timeout(15.0):
                    await target.analyse(FRAME)
            except (TargetFailure, TimeoutError) as failure:
                said = str(failure)
            else:
                said = "taken"
                return
            await asyncio.sleep(0.05)

    try:
        await asyncio.wait_for(names_a_scheme(), 60.0)
    finally:
        await target.close()
    return said


async def names(url: str, *words: str) -> None:
    """The target, doctor and ``ml check`` all name the scheme that is expected."""
    settings = Settings(ml_service_url=url)
    (finding,) = await check_ml_service(settings)
    for text in (await said_of(url), finding.sentence, (await ml_probes._reach(url)).sentence):
        assert all(word in text for word in words), text


async def fits(url: str) -> None:
    """Doctor and ``ml check`` find nothing wrong with it."""
    (finding,) = await check_ml_service(Settings(ml_service_url=url))
    assert (finding.level, (await ml_probes._reach(url)).level) == ("ok", "ok"), finding


async def test_http_and_websocket_in_the_wrong_dress_are_named(files: tuple[Path, Path]) -> None:
    async with http_service() as plain, behind_tls(plain, files) as secure:
        await names(f"http://127.0.0.1:{secure}", "it speaks TLS", "expected https://")
        await names(f"https://127.0.0.1:{plain}", "it speaks no TLS", "expected http://")
        await names(f"ws://127.0.0.1:{secure}", "expected wss://")
        await names(f"wss://127.0.0.1:{plain}", "expected ws://")
        for url in (f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{secure}"):
            await fits(url)


async def test_redis_in_the_wrong_dress_is_named(redis_server: Broker, files: tuple[Path, Path]) -> None:
    async with behind_tls(redis_server.port, files) as secure:
        await names(f"redis://:hunter2@127.0.0.1:{secure}", "it speaks TLS", "expected rediss://")
        await names(f"rediss://:hunter2@127.0.0.1:{redis_server.port}", "it speaks no TLS", "expected redis://")
        await fits(f"redis://127.0.0.1:{redis_server.port}")
        await fits(f"rediss://127.0.0.1:{secure}")


async def test_nats_in_the_wrong_dress_is_named(
    start_broker: Callable[..., Broker], nats_server: Broker, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # NATS says who it is, however late: a server that pauses is not taken for one that says nothing.
    monkeypatch.setattr("watchout.common.ml_targets.reach.FIRST_BYTES_S", 30.0)
    secure = start_broker("nats", options=("--tls", "--tlscert", str(files[0]), "--tlskey", str(files[1])))
    await names(f"nats://127.0.0.1:{secure.port}", "it speaks TLS", "expected tls://")
    await names(f"tls://user:hunter2@127.0.0.1:{nats_server.port}", "it speaks no TLS", "expected nats://")
    await fits(f"nats://127.0.0.1:{nats_server.port}")
    await fits(f"tls://127.0.0.1:{secure.port}")


async def test_what_keeps_the_first_connection_is_logged_without_a_frame_and_without_secrets() -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}"
    target = open_target(Settings(ml_service_url=url))
    assert target is not None
    with capture_logs() as lines:
        await target.open(lambda _: None)
        try:
            await until(lambda: lines)
        finally:
            await target.close()
    assert lines[0]["event"] == "no connection to the ML service yet"
    assert "hunter2" not in str(lines)


async def test_a_port_where_nobody_listens_is_told_as_that() -> None:
    reached = await reach(f"http://127.0.0.1:{free_port()}", 2.0)
    assert not reached.connected
    assert "refused" in reached.fault


@pytest.mark.parametrize("scheme", ["http", "redis", "nats", "wss", "tcp"])
async def test_a_peer_that_says_nothing_is_no_fault(scheme: str) -> None:
    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Relays(say_nothing) as server:
        reached = await reach(f"{scheme}://127.0.0.1:{server.port}", 2.0)
    assert (reached.connected, reached.fault) == (True, "")
