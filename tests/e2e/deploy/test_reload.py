"""SIGHUP: a running gateway takes up what it can, says what it cannot, and nobody notices but by the effect."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.as_systemd import ServiceStarter, listening_socket
from tests.kit.clients import Clients, eventually, http, new_name
from tests.kit.processes import BIN, Watchout, poll

pytestmark = pytest.mark.e2e
COMES_S = 60.0
PAGE = "https://app.example.com"
BEFORE, AFTER = "the-token-of-yesterday", "the-token-of-tomorrow"


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with listening_socket() as one:
        yield one


async def test_a_reload_takes_effect_without_a_lost_connection_or_frame(
    watchout: Any, clients: Clients, listening: socket.socket, tmp_path: Path
) -> None:
    port, file = listening.getsockname()[1], tmp_path / "gateway.env"
    file.write_text(f"SERVICE_TOKEN={BEFORE}\n")
    environ = {"WATCHOUT_PORT": str(port), "SETTINGS_FILES": str(file), "SERVICE_TOKEN": BEFORE}
    started: Watchout = watchout(start=False, environ=environ)
    started.start("router")
    url, token, stream = f"http://127.0.0.1:{port}", started.token(), new_name()

    async def may_push(service_token: str) -> bool:
        alert = {"streamId": stream, "severity": "low", "message": "x"}
        return (await http(f"{url}/alerts", method="POST", token=service_token, body=alert)).status == 202

    async def may_read() -> bool:
        return "access-control-allow-origin" in (await http(f"{url}/health/live", headers={"Origin": PAGE})).headers

    with ServiceStarter(tmp_path, started.environ, listening) as manager:
        manager.start([str(BIN / "watchout-gateway")])
        manager.hear_until("STATUS=serves")
        camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
        await camera.register(stream)
        await viewer.subscribe(stream)
        assert not await may_read()

        def reload(text: str, said: str) -> str:
            file.write_text(text)
            before = len(manager.output)
            manager.signal(signal.SIGHUP)
            heard = manager.hear_until("RELOADING=1")
            assert [line for line in heard if line.startswith("MONOTONIC_USEC=")]
            manager.hear_until("READY=1")
            poll(lambda: said in manager.output[before:], COMES_S, f"it does not say {said!r}")
            return manager.output[before:]

        async def frames_go_on(count: int) -> None:
            for _ in range(3):
                await camera.show()
            await eventually(lambda: len(viewer.frames) == count, COMES_S)

        await frames_go_on(3)
        said = reload(
            f"SERVICE_TOKEN={AFTER}\nALLOWED_ORIGINS={PAGE}\nSTREAM_ACCESS=authenticated\n", "read its settings"
        )
        assert f"ALLOWED_ORIGINS from nothing to {PAGE}" in said
        assert '"needs_restart": "STREAM_ACCESS"' in said
        assert BEFORE not in said
        assert AFTER not in said
        await frames_go_on(6)
        assert await may_read()
        assert await may_push(AFTER)
        assert not await may_push(BEFORE)

        said = reload(f"SERVICE_TOKEN={BEFORE}\nMESSAGE_RATE=many\n", "keeps all its settings")
        assert "MESSAGE_RATE is 'many', expected" in said
        assert await may_push(AFTER)
        await frames_go_on(9)
        assert [frame["frameId"] for frame in viewer.frames] == list(range(1, 10))
        assert camera.open
        assert viewer.open
        assert "Traceback" not in manager.output
        manager.signal(signal.SIGTERM)
        assert manager.wait() == 0


def test_a_process_ends_with_its_terminal_and_not_with_a_reload(watchout: Any, tmp_path: Path) -> None:
    started: Watchout = watchout(start=False)
    ours, theirs = pty.openpty()

    def in_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(BIN / "watchout-router")], env=started.environ, stdin=theirs, stdout=log, stderr=log, cwd=tmp_path,
            preexec_fn=in_terminal, close_fds=True,
        )  # fmt: skip
    try:
        os.close(theirs)

        def says(text: str) -> None:
            poll(lambda: text in (tmp_path / "log").read_text(), COMES_S, f"it does not say {text!r}")

        says("router ready")
        process.send_signal(signal.SIGHUP)
        says("router read its settings again")
        assert process.poll() is None
        os.close(ours)
        assert process.wait(COMES_S) == 0
    finally:
        process.kill()
        process.wait()
