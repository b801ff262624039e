"""honcho and make as people start and end them: in a terminal, behind a pipe, and by kill -9 of whatever there is.

However it ends no process is left, and the next start works: all ways share a home and a port, and each begins with a
start. Processes are found by a variable of their environment, so that an orphan is found too.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.kit.processes import BIN, REPOSITORY, Watchout, poll, running
from watchout.ctl.commands.addresses import own_addresses

pytestmark = pytest.mark.e2e

MARK: Final = "MARK_OF_THIS_TEST"
#: Longest until nothing is left: a look at the starter each second, a drain, and a slow machine.
GONE_S: Final = 60.0
#: What must end by itself, or must be printed, gets this long.
ENDS_S: Final = 60.0
MAKE: Final = f"make -s -o {BIN.parent}/.run VENV={BIN.parent} run"
HONCHO: Final = f"{BIN}/honcho -e {os.devnull} start"


def processes_of(mark: str) -> list[psutil.Process]:
    """All processes that live and came of the start with this mark, by whichever way."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE and process.cmdline():
                found.append(process)
    return found


class Started:
    """Something that was started in a terminal of its own."""

    def __init__(self, watchout: Watchout, command: str, cwd: Path) -> None:
        self.mark = f"{watchout.home}-{time.monotonic_ns()}"
        self.watchout = watchout
        environ = {**watchout.environ, MARK: self.mark}
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.chdir(cwd)
            os.execve("/bin/sh", ["sh", "-c", command], environ)

    def marked(self) -> list[psutil.Process]:
        return processes_of(self.mark)

    def one(self, *words: str) -> psutil.Process:
        """The one process whose command line has a word that ends so."""
        found = [
            process for process in self.marked()
            if all(any(part.endswith(word) for part in command_of(process)) for word in words)
        ]  # fmt: skip
        found.sort(key=lambda process: process.create_time())
        assert found, [process.cmdline() for process in self.marked()]
        return found[0]

    def wait_ready(self) -> None:
        self.watchout.wait_ready(ENDS_S)

    def press(self, key: bytes) -> None:
        os.write(self.terminal, key)

    def hang_up(self) -> None:
        """Close the terminal's other end, as a lost ssh connection does."""
        os.close(self.terminal)
        self.terminal = -1

    def wait_gone(self) -> None:
        # What was printed is read, or a full terminal would hold it up.
        def gone() -> bool:
            if self.terminal >= 0:
                with contextlib.suppress(OSError):
                    os.set_blocking(self.terminal, False)
                    while os.read(self.terminal, 65536):
                        pass
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            return not self.marked()

        try:
            poll(gone, GONE_S, "a process is left")
        except AssertionError:
            left = [(p.pid, p.ppid(), p.status(), p.cmdline()) for p in self.marked()]
            raise AssertionError(f"left behind: {left}") from None

    def close(self) -> None:
        for process in self.marked():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.terminal >= 0:
            os.close(self.terminal)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


@pytest.fixture(scope="module")
def place() -> Iterator[Watchout]:
    """The home and the port that all starts of this module share."""
    with running(start=False) as watchout:
        shutil.copy(REPOSITORY / "Procfile", watchout.directory / "Procfile")
        watchout.environ.pop("SERVICE_TOKEN", None)
        yield watchout


@pytest.fixture
def start(place: Watchout) -> Iterator[Callable[..., Started]]:
    with contextlib.ExitStack() as stack:

        def begin(command: str, cwd: Path | None = None) -> Started:
            started = Started(place, command, place.directory if cwd is None else cwd)
            stack.callback(started.close)
            return started

        yield begin


def honcho_of(started: Started) -> psutil.Process:
    return started.one("honcho")


def press_ctrl_c(started: Started) -> None:
    started.press(b"\x03")


def hang_up(started: Started) -> None:
    started.hang_up()


def kill_honcho(started: Started) -> None:
    honcho_of(started).kill()


def kill_make(started: Started) -> None:
    started.one("make").kill()


def terminate_honcho(started: Started) -> None:
    honcho_of(started).terminate()


def nothing(_: Started) -> None:
    """It ends by itself: the reader of its output has read enough."""


#: So many lines that all processes are started; a few more follow.
LINES: Final = 10
WAYS: Final = {
    "honcho, Ctrl-C": (HONCHO, None, press_ctrl_c),
    "honcho, Ctrl-C behind a pipe": (f"{HONCHO} 2>&1 | tee log", None, press_ctrl_c),
    "honcho, closed terminal": (f"exec {HONCHO}", None, hang_up),
    "honcho, closed terminal behind a pipe": (f"{HONCHO} 2>&1 | tee log", None, hang_up),
    "honcho, SIGHUP ignored, closed terminal": (f"trap '' HUP; exec {HONCHO}", None, hang_up),
    "honcho, reader gone": (f"{HONCHO} | head -n {LINES} > {{directory}}/read", None, nothing),
    "honcho, kill -9": (f"exec {HONCHO}", None, kill_honcho),
    "honcho, SIGTERM": (f"exec {HONCHO}", None, terminate_honcho),
    "make, Ctrl-C": (MAKE, REPOSITORY, press_ctrl_c),
    "make, Ctrl-C behind a pipe": (f"{MAKE} 2>&1 | tee {{directory}}/log", REPOSITORY, press_ctrl_c),
    "make, closed terminal": (MAKE, REPOSITORY, hang_up),
    "make, kill -9 of make": (f"trap '' HUP; exec {MAKE} > {{directory}}/log 2>&1", REPOSITORY, kill_make),
    "make, kill -9 of honcho": (f"exec {MAKE}", REPOSITORY, kill_honcho),
}


def keepers(started: Started) -> list[psutil.Process]:
    return [each for each in started.marked() if any("watchout-keep" in part for part in command_of(each))]


def command_of(process: psutil.Process) -> list[str]:
    """The command line of a process, empty when it has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("way", WAYS)
def test_however_it_ends_no_process_is_left_and_the_next_start_works(way: str, place, start) -> None:
    command, cwd, end = WAYS[way]
    started = start(command.replace("{directory}", str(place.directory)), cwd)
    if end is nothing:
        read = place.directory / "read"
        poll(lambda: read.exists() and read.read_text().count("\n") == LINES, ENDS_S, "it does not start")
    else:
        started.wait_ready()
        poll(lambda: len(keepers(started)) == 3, ENDS_S, "there are not three keepers")
    end(started)
    started.wait_gone()


def test_a_process_that_was_started_by_hand_outlives_its_starter(place, start) -> None:
    started = start(
        f"nohup {BIN}/watchout-router >/dev/null 2>&1 & setsid {BIN}/watchout-gateway >/dev/null 2>&1 & wait"
    )
    started.wait_ready()
    shell = psutil.Process(started.pid)
    started.hang_up()
    shell.kill()
    os.waitpid(started.pid, 0)
    router, gateway = started.one("watchout-router"), started.one("watchout-gateway")
    # SIGHUP is for nobody who was started by nohup; any other reads its settings again.
    for process in (router, gateway):
        process.send_signal(signal.SIGHUP)
    poll(lambda: place.get("/health")[0] == 200, ENDS_S, "not healthy")
    for process in (gateway, router):
        assert process.is_running()
        process.send_signal(signal.SIGTERM)
    started.wait_gone()


def serving(mark: str, kind: str) -> int:
    """Process id of the one process of this kind; 0 while there is none, or more than one."""
    found = [p.pid for p in processes_of(mark) if any(part.endswith(f"/watchout-{kind}") for part in command_of(p))]
    return found[0] if len(found) == 1 else 0


def test_whichever_process_is_killed_the_others_go_on_and_it_is_back(watchout) -> None:
    started = watchout(start=False)
    shutil.copy(REPOSITORY / "Procfile", started.directory / "Procfile")
    mark = str(started.home)
    honcho = started.run("honcho", [str(BIN / "honcho"), "start"], {MARK: mark})
    kinds = ("router", "gateway", "mlbridge")
    poll(lambda: started.get("/health")[0] == 200 and "joined the router" in honcho.output, ENDS_S, "not healthy")

    def the_one(kind: str) -> int:
        """The process id of the one process of this kind, once there is one."""
        found = 0

        def found_it() -> bool:
            nonlocal found
            found = serving(mark, kind)
            return found != 0

        poll(found_it, ENDS_S, f"there is no {kind}")
        return found

    def kill(kind: str) -> None:
        before = {each: the_one(each) for each in kinds}
        os.kill(before[kind], signal.SIGKILL)
        poll(lambda: serving(mark, kind) not in (0, before[kind]), ENDS_S, f"{kind} did not come back")
        poll(lambda: started.get("/health")[0] == 200, ENDS_S, "not healthy")
        assert {each for each in kinds if before[each] != the_one(each)} == {kind}
        printed(f"{kind} ended by SIGKILL and is started again")

    def printed(text: str) -> None:
        """What processes print comes through honcho: later than what they do."""
        poll(lambda: text in honcho.output, ENDS_S, f"{text!r} is not printed")

    def kill_its_keeper(kind: str, number: int) -> None:
        """Whose process id honcho prints; then the process again, which the next keeper starts."""
        (keeper,) = re.findall(rf"{kind}\.1 started \(pid=(\d+)\)", honcho.output)
        lives = the_one(kind)
        poll(lambda: honcho.output.count(" ready") >= 2 * number + 2, ENDS_S, f"{kind} is not ready")
        os.kill(int(keeper), signal.SIGKILL)
        poll(lambda: honcho.output.count("another one took over") == number, ENDS_S, "no other keeper")
        assert the_one(kind) == lives
        os.kill(lives, signal.SIGKILL)
        poll(lambda: serving(mark, kind) not in (0, lives), ENDS_S, f"{kind} did not come back")
        poll(lambda: honcho.output.count(" ready") >= 2 * number + 3, ENDS_S, f"{kind} is not ready")

    for number, kind in enumerate(kinds, 1):
        kill(kind)
        kill_its_keeper(kind, number)
    poll(lambda: started.get("/health")[0] == 200, ENDS_S, "not healthy")
    honcho.send_signal(signal.SIGTERM)
    honcho.wait(ENDS_S)
    poll(lambda: not processes_of(mark), ENDS_S, "a process is left")


def test_wrong_settings_end_at_once(watchout) -> None:
    started = watchout(start=False)
    shutil.copy(REPOSITORY / "Procfile", started.directory / "Procfile")
    honcho = started.run("honcho", [str(BIN / "honcho"), "start"], {"ML_FPS": "many"})
    assert honcho.wait(ENDS_S) == 2
    assert "ML_FPS is 'many'" in honcho.output
    assert "started again" not in honcho.output


def test_a_taken_port_ends_the_start_and_says_whose_it_is(watchout) -> None:
    started = watchout(start=False)
    shutil.copy(REPOSITORY / "Procfile", started.directory / "Procfile")
    other = started.run("other", [str(BIN / "python"), "-m", "http.server", str(started.port), "--bind", "127.0.0.1"])
    poll(lambda: bool(psutil.Process(other.pid).net_connections("tcp")), ENDS_S, "no server")
    honcho = started.run("honcho", [str(BIN / "honcho"), "start"])
    assert honcho.wait(ENDS_S) == 1
    assert f"process {other.pid} (http.server) listens there" in honcho.output
    assert "gateway could not start, and is not started again" in honcho.output
    other.kill()


def test_the_demo_says_whose_port_is_taken_before_anything_is_installed(watchout, tmp_path: Path) -> None:
    started = watchout(start=False)
    other = started.run("other", [str(BIN / "python"), "-m", "http.server", str(started.port), "--bind", "127.0.0.1"])
    poll(lambda: bool(psutil.Process(other.pid).net_connections("tcp")), ENDS_S, "no server")
    done = subprocess.run(
        ["make", "-s", "demo", f"VENV={tmp_path}/venv", f"ML_PORT={started.port}"],
        cwd=REPOSITORY, env=started.environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode
    assert (
        f"port {started.port} is taken by process {other.pid} (http.server): set ML_PORT to a free one" in done.stderr
    )
    assert not (tmp_path / "venv").exists()
    other.kill()


def test_make_run_prints_where_a_phone_reaches_the_console_and_a_code_for_it(place, start) -> None:
    """Without the processes: on every address, as by default, they would be open to others."""
    started = start(f"WATCHOUT_HOST= {MAKE} HONCHO=true; echo it ended", REPOSITORY)
    printed = bytearray()

    def ended() -> bool:
        with contextlib.suppress(OSError):
            printed.extend(os.read(started.terminal, 65536))
        return b"it ended" in printed

    poll(ended, GONE_S, "make does not end")
    text = printed.decode()
    assert f"console on this machine  http://localhost:{place.port}/" in text
    for address in own_addresses():
        assert f"http://{f'[{address}]' if ':' in address else address}:{place.port}/" in text
        assert "scan it with a phone in the same network: it signs the phone in" in text
        assert "█" in text
    assert "TLS_CERT" in text or not own_addresses()
    file = place.directory / "only-here"
    start(f"{{ {MAKE} HONCHO=true; echo it ended; }} > {file}", REPOSITORY)
    poll(lambda: file.exists() and "it ended" in file.read_text(), GONE_S, "make does not end")
    text = file.read_text()
    assert "WATCHOUT_HOST=127.0.0.1" in text
    assert "█" not in text
