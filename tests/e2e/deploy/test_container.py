"""The processes in what the steps of the Dockerfile make, as process 1 and not as root: `make test-container`.

Making it takes minutes and the network, so it is no part of `make test-long`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.deploy.test_dockerfile import rootfs
from tests.kit.clients import Clients, eventually
from tests.kit.ports import free_port
from tests.kit.processes import poll
from tests.kit.skips import of_target

MADE = os.environ.get("WATCHOUT_TEST_ROOTFS", "")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not MADE, reason=of_target("test-container"))]
COMES_S = 60.0


class Container:
    """One process as a container runtime starts it, in what a Dockerfile made."""

    def __init__(self, command: list[str], environ: dict[str, str], output: Path, made: str = MADE) -> None:
        root, config = Path(made, "root"), json.loads(Path(made, "config.json").read_text())
        self._output = output
        with output.open("wb") as file:
            self._starter = subprocess.Popen(
                rootfs.start_command(root, config, command, environ), stdout=file, stderr=file, stdin=subprocess.DEVNULL
            )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def process_1(self) -> psutil.Process:
        (found,) = psutil.Process(self._starter.pid).children()
        return found

    def wait(self) -> int:
        return self._starter.wait(COMES_S)

    def end(self) -> None:
        self._starter.kill()  # its process 1 goes with it
        self._starter.wait()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def containers(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Container]]:
    """Router, gateway and bridge, which share their home."""
    directory = tmp_path_factory.mktemp("containers")
    environ = {"WATCHOUT_PORT": str(port)}
    with contextlib.ExitStack() as stack:
        started = {}
        for name in ("router", "gateway", "mlbridge"):
            started[name] = Container([f"watchout-{name}"], environ, directory / name)
            stack.callback(started[name].end)

        def healthy() -> bool:
            with contextlib.suppress(OSError, urllib.error.URLError):
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
            return False

        poll(healthy, COMES_S, "the gateway is not healthy")
        yield started


def test_no_process_is_root_and_each_is_process_1(containers: dict[str, Container]) -> None:
    for name, container in containers.items():
        process = container.process_1
        assert process.uids().effective == 10001, name
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert status.split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
        assert "NoNewPrivs:\t1" in status


def test_the_health_check_of_the_image_tells_a_gateway_that_serves_from_none(
    containers: dict[str, Container], port: int, tmp_path: Path
) -> None:
    assert containers
    check = json.loads(json.loads(Path(MADE, "config.json").read_text())["HEALTHCHECK"].partition(" CMD ")[2])
    for number, code in ((port, 0), (free_port(), 1)):
        asked = Container(check, {"WATCHOUT_PORT": str(number)}, tmp_path / str(number))
        assert asked.wait() == code, asked.output


async def test_a_camera_is_seen(containers: dict[str, Container], port: int, clients: Clients, tmp_path: Path) -> None:
    assert containers
    asked = Container(["watchout-ctl", "token"], {}, tmp_path / "token")
    assert asked.wait() == 0, asked.output
    url, token = f"http://127.0.0.1:{port}", asked.output.strip()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    await camera.register("cam")
    await viewer.subscribe("cam")
    await camera.show()
    await eventually(lambda: viewer.frames, COMES_S)


def test_the_image_has_no_compiler_and_no_pip_but_the_compiled_part() -> None:
    root = Path(MADE, "root")
    assert not [name for name in ("gcc", "cc", "pip", "pip3") if (root / "usr/bin" / name).exists()]
    assert not list((root / "opt/watchout/bin").glob("pip*"))
    assert list((root / "opt/watchout").rglob("_fastpath*.so"))


def test_process_1_hears_sigterm_and_drains(containers: dict[str, Container]) -> None:
    for name in ("gateway", "mlbridge", "router"):
        container = containers[name]
        container.process_1.send_signal(signal.SIGTERM)
        assert container.wait() == 0, container.output
        assert f"{name} ended" in container.output
