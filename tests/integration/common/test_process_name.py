"""Names of processes: unique in a home whatever the process ids are, and the same after a restart."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.processes import REPOSITORY
from watchout.common.process.process_name import member_name, running, wanted_name
from watchout.common.settings import load

HOLD = """
import sys
from pathlib import Path
from watchout.common import home
from watchout.common.process import process_name
home.os.getpid = lambda: 1  # as in a container of its own
print(process_name.claim_name(Path(sys.argv[1]), sys.argv[2]), flush=True)
sys.stdin.read()
"""


class Holder:
    """A process that has a name until it is ended."""

    def __init__(self, home: Path, wanted: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(home), wanted], cwd=REPOSITORY,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.name = self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def test_two_containers_that_share_a_home_have_two_names(tmp_path: Path) -> None:
    holders = [Holder(tmp_path, "gateway") for _ in range(3)]
    try:
        assert [holder.name for holder in holders] == ["gateway", "gateway-2", "gateway-3"]
        assert running(tmp_path) == {"gateway": 1, "gateway-2": 1, "gateway-3": 1}
        # Who starts anew gets the name that it had: the series of a dashboard go on.
        holders[1].end()
        assert running(tmp_path) == {"gateway": 1, "gateway-3": 1}
        holders[1] = Holder(tmp_path, "gateway")
        assert holders[1].name == "gateway-2"
    finally:
        for holder in holders:
            holder.end()
    assert running(tmp_path) == {}


def test_other_kinds_and_homes_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    holders = [Holder(tmp_path / "a", "gateway"), Holder(tmp_path / "a", "router"), Holder(tmp_path / "b", "gateway")]
    try:
        assert [holder.name for holder in holders] == ["gateway", "router", "gateway"]
    finally:
        for holder in holders:
            holder.end()


def test_a_setting_counts_more_than_honcho_and_honcho_more_than_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONCHO_PROCESS_NAME", raising=False)
    assert wanted_name(load({}), "gateway") == "gateway"
    monkeypatch.setenv("HONCHO_PROCESS_NAME", "gateway.1")
    assert wanted_name(load({}), "gateway") == "gateway.1"
    assert wanted_name(load({"WATCHOUT_PROCESS_NAME": "edge-a"}), "gateway") == "edge-a"


def test_a_home_that_is_not_there_has_no_processes(tmp_path: Path) -> None:
    assert running(tmp_path / "nowhere") == {}


def test_the_name_on_the_bus_has_the_host_where_members_are_on_several() -> None:
    far = {"WATCHOUT_BUS": "nats://a:4222", "WATCHOUT_PROCESS_NAME": "edge"}
    assert member_name(load({"WATCHOUT_PROCESS_NAME": "edge"}), "gateway") == "edge"
    assert member_name(load(far), "gateway") == f"edge@{socket.gethostname()}"
    assert member_name(load(far), "mlbridge") == f"edge@{socket.gethostname()}"
