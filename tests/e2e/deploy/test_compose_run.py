"""The services of `deploy/compose` in what the steps of the Dockerfiles make: `make test-container`.

Each gets its command, environment and secrets from compose.yaml, in a file system of its own that it cannot write to;
the network is the machine's, with the services' names for loopback. PostgreSQL and Caddy are not among them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.deploy.test_container import COMES_S, MADE, Container
from tests.kit.clients import Clients, eventually
from tests.kit.processes import REPOSITORY, poll
from tests.kit.proxies import answers
from tests.kit.skips import of_target

DETECTOR = os.environ.get("WATCHOUT_TEST_DETECTOR", "")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not (MADE and DETECTOR), reason=of_target("test-container")),
]
FOLDER = REPOSITORY / "deploy/compose"
NAMES = ("router", "gateway", "mlbridge", "detector")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """compose.yaml with compose.try.yaml over it: the environment of each service, and its command."""
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    tried = yaml.safe_load((FOLDER / "compose.try.yaml").read_text())["services"]
    return {
        name: {
            **found[name],
            "environment": {**found[name].get("environment", {}), **tried.get(name, {}).get("environment", {})},
        }
        for name in NAMES
    }


@pytest.fixture(scope="module")
def composed(
    services: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Container]]:
    directory = tmp_path_factory.mktemp("compose")
    shutil.copy(FOLDER / "secrets.sh", directory)
    subprocess.run(["sh", str(directory / "secrets.sh")], check=True, capture_output=True)
    for made in (MADE, DETECTOR):
        secrets = Path(made, "root/run/secrets")
        shutil.rmtree(secrets, ignore_errors=True)
        shutil.copytree(directory / "secrets", secrets)
        secrets.chmod(0o755)
        (Path(made) / "root/etc/hosts").write_text(f"127.0.0.1 localhost {' '.join(NAMES)}\n")
    assert not answers(3000), "the ports of compose.yaml are free"
    assert not answers(8500)
    with contextlib.ExitStack() as stack:
        started = {}
        for name, service in services.items():
            made = DETECTOR if name == "detector" else MADE
            started[name] = Container(service["command"], service["environment"], directory / name, made)
            stack.callback(started[name].end)
        poll(lambda: is_well("http://127.0.0.1:3000/health"), COMES_S, "the gateway is not healthy")
        yield started


def is_well(url: str) -> bool:
    with contextlib.suppress(OSError, urllib.error.URLError):
        return bool(urllib.request.urlopen(url, timeout=5).status == 200)
    return False


async def test_frames_reach_the_viewer_and_the_detector(
    composed: dict[str, Container], services: dict[str, dict[str, Any]], clients: Clients, tmp_path: Path
) -> None:
    check = services["detector"]["healthcheck"]["test"][1:]

    def detector_is_healthy() -> bool:
        return Container(check, {}, tmp_path / "check", DETECTOR).wait() == 0

    await eventually(detector_is_healthy, COMES_S, composed["detector"].output)
    asked = Container(["watchout-ctl", "token"], services["gateway"]["environment"], tmp_path / "token")
    assert asked.wait() == 0, asked.output
    url, token = "http://127.0.0.1:3000", asked.output.strip()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    await camera.register("cam")
    await viewer.subscribe("cam")
    stats = Path(MADE, "root/run/secrets/stats_token").read_text().strip()

    async def seen_by_the_detector() -> bool:
        await camera.show_binary()
        request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {stats}"})
        text = urllib.request.urlopen(request, timeout=10).read().decode()
        return any(
            float(count) > 0 for count in re.findall(r"^watchout_ml_requests_total\{.*\} (\S+)$", text, re.MULTILINE)
        )

    await eventually(seen_by_the_detector, COMES_S)
    await eventually(lambda: viewer.frames, COMES_S)


async def test_router_and_bridge_are_alive_by_their_checks(
    composed: dict[str, Container], services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    for name in ("router", "mlbridge"):
        _, line = services[name]["healthcheck"]["test"]
        command = ["sh", "-c", line.replace("$$", "$")]

        def is_alive(name: str = name, command: list[str] = command) -> bool:
            return Container(command, services[name]["environment"], tmp_path / name).wait() == 0

        await eventually(is_alive, COMES_S, composed[name].output)
        nobody = {**services[name]["environment"], "ALIVE_FILE": "/var/lib/watchout/nobody.alive"}
        assert Container(command, nobody, tmp_path / name).wait() != 0


def test_each_ends_when_it_is_told(composed: dict[str, Container]) -> None:
    for name in ("gateway", "mlbridge", "router", "detector"):
        composed[name].process_1.send_signal(signal.SIGTERM)
        assert composed[name].wait() == 0, composed[name].output


def test_the_detector_is_not_root_and_has_no_pip() -> None:
    assert json.loads(Path(DETECTOR, "config.json").read_text())["USER"] == "10002"
    assert not list(Path(DETECTOR, "root/opt/watchout/bin").glob("pip*"))
