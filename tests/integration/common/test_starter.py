"""Who started a process, and whether it is still there and can still write."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.processes import REPOSITORY, poll
from watchout.common.process import starter
from watchout.common.process.starter import Ancestor, Starter, StarterWatch, find, output_is_dead

FIND = (
    "import json, os; from watchout.common.process import starter; "
    "print(json.dumps(starter.find(os.environ).to_state()), flush=True)"
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_one_that_was_started_by_hand_has_no_starter() -> None:
    assert find({}) == Starter()
    assert not StarterWatch(Starter()).gone()
    assert not StarterWatch(Starter()).must_be_asked


def found_below(script: Path, environ: dict[str, str]) -> Starter:
    """What a process finds that is started by this script of Python."""
    script.write_text(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {FIND!r}])\n")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=REPOSITORY, env={"PATH": os.environ["PATH"], "PYTHONPATH": ".", **environ},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return Starter.from_state(json.loads(done.stdout))


def test_honcho_is_found_and_whoever_started_it_is_not_waited_for(tmp_path: Path) -> None:
    found = found_below(tmp_path / "honcho", {"HONCHO_PROCESS_NAME": "gateway.1"})
    assert len(found.ancestors) == 1
    assert found.writer == found.ancestors[0].pid
    assert not found.gone
    # Under another supervisor only the parent counts, and its output is its own business.
    found = found_below(tmp_path / "overmind", {"HONCHO_PROCESS_NAME": "gateway.1"})
    assert (len(found.ancestors), found.writer) == (1, 0)


def test_make_is_found_further_up_and_missed_when_it_is_gone(tmp_path: Path) -> None:
    found = found_below(tmp_path / "honcho", {"WATCHOUT_STARTER": str(os.getpid())})
    assert [each.pid for each in found.ancestors][-1] == os.getpid()
    assert not found.gone
    assert found_below(tmp_path / "honcho", {"WATCHOUT_STARTER": "999999999"}).gone


@pytest.mark.parametrize("way", ["pidfd", "looking"])
def test_the_end_of_an_ancestor_is_seen(
    way: str, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "looking":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        monkeypatch.delattr(starter.select, "kqueue", raising=False)
    seen = starter._read_process(sleeper.pid)
    assert seen is not None
    watch = StarterWatch(Starter((Ancestor(sleeper.pid, seen.born),)))
    assert not watch.gone()
    assert watch.must_be_asked == (way == "looking")
    sleeper.kill()
    sleeper.wait()
    poll(watch.gone, 30, "its end is not seen")
    watch.close()


def test_another_process_with_the_same_id_is_not_it(sleeper: subprocess.Popen[bytes]) -> None:
    assert StarterWatch(Starter((Ancestor(sleeper.pid, 1),))).gone()
    assert StarterWatch(Starter((Ancestor(999_999_999, 1),))).gone()


linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux shows another process's output")


@linux
def test_a_pipe_without_a_reader_is_seen(sleeper: subprocess.Popen[bytes]) -> None:
    assert not output_is_dead(sleeper.pid)
    assert sleeper.stdout is not None
    sleeper.stdout.close()
    assert output_is_dead(sleeper.pid)
    assert StarterWatch(Starter(writer=sleeper.pid)).gone()


@linux
def test_a_terminal_that_hung_up_is_seen() -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(["sleep", "60"], stdout=slave)
    os.close(slave)
    try:
        assert not output_is_dead(process.pid)
        os.close(master)
        assert output_is_dead(process.pid)
    finally:
        process.kill()
        process.wait()


@linux
@pytest.mark.parametrize("where", ["file", "null", "closed", "socket"])
def test_any_other_output_is_alive(where: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        pair = socket.socketpair()
        for each in pair:
            stack.enter_context(each)
        output = {
            "file": lambda: stack.enter_context((tmp_path / "log").open("w")),
            "null": lambda: subprocess.DEVNULL,
            "socket": lambda: pair[0],
            "closed": lambda: None,
        }[where]()
        command = ["sh", "-c", "exec sleep 60 >&-"] if where == "closed" else ["sleep", "60"]
        process = subprocess.Popen(command, stdout=output)
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert not output_is_dead(process.pid)
    assert not output_is_dead(0)
    assert not output_is_dead(999_999_999)
