"""`make demo-cluster`: it breaks what it says, everything comes back, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.cluster import machines
from examples.cluster.site import KIND
from tests.kit.hosts import namespaces, why_not
from tests.kit.processes import REPOSITORY, poll
from tests.kit.services import missing

pytestmark = pytest.mark.e2e

#: The whole demo, or on a machine that other tests keep busy one part of it.
FAULTS = ("nats", "router", "host") if os.environ.get("WATCHOUT_TEST_FIGURES") else ("router",)
ENDS_S = 300.0
READY_S = 240.0


class Demo:
    """One demo with a folder and a network of its own."""

    def __init__(self, *words: str, home: Path | None = None, net: str | None = None) -> None:
        self.home = home or Path(tempfile.mkdtemp(prefix="wo-")) / "demo"  # short: the paths of sockets are
        self.net = net or f"10.{random.randrange(60, 100)}.{random.randrange(1, 250)}"
        command = [sys.executable, "-m", "examples.cluster", "--home", str(self.home), "--net", self.net, *words]
        self.output = Path(tempfile.mkstemp(prefix="wo-")[1])
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def says(self, text: str) -> None:
        poll(lambda: text in self.said or self.process.poll() is not None, READY_S, f"it does not say {text!r}")
        assert text in self.said, self.said

    def namespaces(self) -> list[str]:
        return [name for name in namespaces() if name.startswith(f"{KIND}{self.process.pid}-")]

    def left(self) -> list[object]:
        """What it has left: its folder, namespaces, and processes that name its folder."""
        found = [each for each in Path("/proc").glob("[0-9]*") if names(each, self.home)]
        return [*found, *self.namespaces(), *([self.home] if self.home.exists() else [])]


def names(process: Path, folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return str(folder) in (process / "environ").read_text() or str(folder) in str((process / "cwd").readlink())
    return False


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    reason = why_not()
    if reason is not None:
        missing(reason)
    started: list[Demo] = []
    yield started
    for demo in started:
        if demo.process.poll() is None:
            demo.process.terminate()
        demo.process.wait(ENDS_S)
        demo.output.unlink()
        if demo.home.name == "demo":
            shutil.rmtree(demo.home.parent, ignore_errors=True)


def test_what_it_kills_comes_back_and_it_stands_until_it_is_told_to_end_and_nothing_is_left(demos: list[Demo]) -> None:
    killed = Demo("--faults")
    demos.append(killed)
    killed.says("three hosts start")
    left = killed.namespaces()
    assert len(left) == 4, "three hosts and their switch"
    killed.process.kill()
    killed.process.wait()

    demo = Demo("--seconds", "2", "--hold", "--faults", *FAULTS, home=killed.home, net=killed.net)
    demos.append(demo)
    demo.says("The site stands until Ctrl-C")
    assert all(f"removed the namespace {name}" in demo.said for name in left), demo.said
    if "router" in FAULTS:
        assert re.search(r"kill -9 \d+: watchout-router of host [abc]", demo.said)
    rows = [line.split("│")[1:-1] for line in demo.said.splitlines() if line.startswith("│")]
    assert len(rows) == 1 + len(FAULTS), demo.said
    for row in rows:
        posted, lost, twice = map(int, row[4:7])
        assert (posted > 0, lost, twice) == (True, 0, 0), row

    on = [str(demo.home / "on"), "b", "watchout-ctl", "cluster"]

    def served() -> bool:
        said = subprocess.run(on, capture_output=True, text=True, timeout=READY_S)
        return "3 hosts · 4 of 4 slots served" in said.stdout

    poll(served, READY_S, "not all slots of the three hosts are served")
    second = Demo("--faults", home=demo.home)
    demos.append(second)
    assert second.process.wait(ENDS_S) == 1
    assert f"the demo runs already in {demo.home}" in second.said

    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(ENDS_S) == 0, demo.said
    poll(lambda: demo.left() == killed.namespaces() == [], READY_S, "it leaves something behind")


def test_a_folder_that_is_not_its_own_is_left_alone(demos: list[Demo], tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("keep me")
    demo = Demo("--faults", home=tmp_path)
    demos.append(demo)
    assert demo.process.wait(ENDS_S) == 1
    assert "was not made by this demo" in demo.said
    assert (tmp_path / "letter").read_text() == "keep me"
    assert demo.namespaces() == []


def test_it_says_in_a_sentence_why_it_cannot_run_before_it_installs_anything() -> None:
    script = REPOSITORY / "examples" / "cluster" / "machines.py"
    without = {"PATH": "/nonexistent"}
    said = subprocess.run([sys.executable, script, "10.77.0"], capture_output=True, text=True, env=without)
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert "root only" in line or "the program ip is not installed (Debian: iproute2)" in line
    rule = (REPOSITORY / "Makefile").read_text().partition("\ndemo-cluster:")[2].splitlines()[0].split()
    assert rule[0] == "demo-cluster-machines", "it is asked first"


def test_a_network_that_is_in_use_is_named() -> None:
    reason = why_not()
    if reason is not None:
        missing(reason)
    assert machines.user_of("127.0.0")
    assert not machines.user_of("10.255.254")
