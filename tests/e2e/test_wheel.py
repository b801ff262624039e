"""The wheel as somebody else installs it: in an environment of its own, started from a folder with other packages of
the same names.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from tests.kit.clients import Clients, eventually, http
from tests.kit.ports import free_port
from tests.kit.processes import REPOSITORY, Process, Watchout, clean_environ

pytestmark = pytest.mark.e2e
COMES_S = 120.0
#: What a customer may have in the folder where he starts watchout.
FOREIGN = ("common", "router", "gateway", "identity", "mlbridge", "ctl", "client", "ml", "sdk", "watchout_settings")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: a build leaves files beside the sources.
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in listed.stdout.split("\0"):
        if name and not name.startswith(("tests/", "benchmarks/")) and (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    # With the setuptools of this environment, which its own installation asked for, not with another one from an index.
    made_here = ["--no-deps", "--no-build-isolation", "--check-build-dependencies"]
    run([sys.executable, "-m", "pip", "wheel", "-q", *made_here, "-w", str(folder), str(source)])
    (made,) = folder.glob("watchout-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its commands in a new environment."""
    environment = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    # Compiled is what is used, when it is used.
    install = ["--python", str(environment / "bin/python"), "install", "-q", "--no-compile", str(wheel)]
    run([sys.executable, "-m", "pip", *install])
    return environment / "bin"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder whose packages fail when they are imported."""
    for name in FOREIGN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a package of the customer was imported')\n")
    return tmp_path


def run(command: list[str], **options: object) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def test_the_wheel_puts_nothing_but_watchout_into_an_environment(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"watchout"}


def test_the_figures_of_the_capacity_model_are_in_the_wheel(wheel: Path) -> None:
    assert "watchout/ctl/capacity/figures.toml" in zipfile.ZipFile(wheel).namelist()


def test_the_sdks_are_in_the_wheel_and_typed(wheel: Path, installed: Path, foreign: Path) -> None:
    environ = {**clean_environ(), "PYTHONPATH": str(foreign)}
    code = (
        "import watchout.client, watchout.ml; print(watchout.client.connect.__module__, watchout.ml.serve.__module__)"
    )
    said = run([str(installed / "python"), "-c", code], cwd=foreign, env=environ)
    assert said.split() == ["watchout.client.aio", "watchout.ml.service"]
    assert {"watchout/client/py.typed", "watchout/ml/py.typed"} <= set(zipfile.ZipFile(wheel).namelist())


async def test_it_runs_beside_a_customers_packages_of_the_same_names(
    installed: Path, foreign: Path, watchout, clients: Clients
) -> None:
    """Each command says its version, as script and as module, and a frame goes from a camera to a viewer."""
    environ = {**clean_environ(), "PYTHONPATH": str(foreign)}
    environ = {key: value for key, value in environ.items() if key not in ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")}
    for name in ("gateway", "router", "mlbridge", "ctl"):
        for command in ([str(installed / f"watchout-{name}")], [str(installed / "python"), "-m", f"watchout.{name}"]):
            assert "0." in await asyncio.to_thread(run, [*command, "--version"], cwd=foreign, env=environ)
    started: Watchout = watchout(start=False, environ={"PYTHONPATH": str(foreign)})
    started.directory = foreign
    for name in ("router", "gateway", "mlbridge"):
        process: Process = started.run(name, [str(installed / f"watchout-{name}")])
        assert process.running
    started.wait_ready(COMES_S)
    token = run(
        [str(installed / "watchout-ctl"), "token"], cwd=foreign, env={**started.environ, "PATH": os.environ["PATH"]}
    ).strip()
    camera, viewer = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    await camera.register("cam")
    await viewer.subscribe("cam")
    await camera.show()
    await eventually(lambda: viewer.frames, COMES_S)


async def test_the_installed_gateway_serves_the_console_with_an_empty_environment(
    installed: Path, tmp_path: Path
) -> None:
    """As `env -i` starts it: no Node, no PATH, nothing but where it listens and keeps its files."""
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="wo-"))
    environ = {"WATCHOUT_HOME": str(home / "home"), "WATCHOUT_HOST": "127.0.0.1", "WATCHOUT_PORT": str(port)}
    gateway = Process("gateway", [str(installed / "watchout-gateway")], environ, tmp_path / "output", tmp_path)
    url, browser = f"http://127.0.0.1:{port}", {"Accept": "text/html", "Accept-Encoding": "gzip"}
    try:
        await asyncio.to_thread(gateway.wait_for_output, "gateway listens", COMES_S)
        page = await http(f"{url}/", headers=browser)
        assert page.headers["content-type"].startswith("text/html"), page
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert (await http(f"{url}/", headers={**browser, "If-None-Match": page.headers["etag"]})).status == 304
        named = re.findall(rb'(?:href|src)="(console/[^"]*)"', page.body)
        assert len(named) >= 3
        for name in named:
            file = await http(f"{url}/{name.decode()}")
            assert (file.status, file.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
    finally:
        await asyncio.to_thread(gateway.end)
        shutil.rmtree(home, ignore_errors=True)
