"""Three hosts of namespaces that run the files of deploy/three-hosts, only addresses and folders are theirs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from examples.cluster.machines import Machine, Machines, Unable, end, remove_left_over
from watchout.ctl import cluster_keys
from watchout.identity.embedded_store import mint_token

REPOSITORY: Final = Path(__file__).parents[2]
DEPLOYED: Final = REPOSITORY / "deploy" / "three-hosts"
BIN: Final = Path(sys.executable).parent
#: What the names of the demo's namespaces begin with.
KIND: Final = "wod"
#: The file by which a folder is known as one of the demo.
MARK: Final = "made-by-demo-cluster"
#: Names of the hosts, and what honcho starts on each; None: all lines of the Procfile.
NAMES: Final = "abc"
STARTED: Final[dict[str, tuple[str, ...] | None]] = {
    "a": ("nats", "router", "gateway"),
    "b": ("nats", "router", "gateway"),
    "c": None,
}
#: The ML service of host c.
ML_LINE: Final = f"ml: exec watchout-keep {BIN}/python {REPOSITORY}/examples/ml_service/service.py --port 8500\n"
#: Runs what follows under a host name of its own, which is the next word.
NAMED: Final = ("unshare", "--uts", "sh", "-c", 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"')
READY_S: Final = 90.0
END_S: Final = 10.0
PORT: Final = 3000

Say = Callable[[str], None]


class Failed(Exception):
    """The demo cannot go on; the text says why."""


class Host:
    """One host: a namespace, a folder with its `.env`, `Procfile` and `nats.conf`, and a honcho that runs there."""

    def __init__(self, name: str, machine: Machine, folder: Path) -> None:
        self.name, self.machine, self.folder = name, machine, folder
        self.url = f"http://{machine.address}:{PORT}"
        self.honcho: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def start(self) -> None:
        """Start honcho there. It ends when this process is gone."""
        self._log = self._log or (self.folder / "log").open("wb")
        environ = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TERM", "TZ", "USER")}
        environ |= {
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "WATCHOUT_STARTER": str(os.getpid()),
        }
        self.honcho = subprocess.Popen(
            [*self.machine.within, *NAMED, f"host-{self.name}", "honcho", "start", *(STARTED[self.name] or ())],
            cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip

    def pid_of(self, program: str) -> int:
        """The process there that runs this program, not its keeper. Raises `Failed`."""
        for pid in self.machine.pids:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                names = [Path(os.fsdecode(word)).name for word in words[:2]]
                if program in names and "watchout-keep" not in names:
                    return pid
        raise Failed(f"no {program} runs on host {self.name}:\n{self.last_lines()}")

    def kill(self, program: str) -> int:
        """Kill a program there (kill -9); its process id. Its keeper starts it again. Raises `Failed`."""
        pid = self.pid_of(program)
        os.kill(pid, signal.SIGKILL)
        return pid

    def healthy(self) -> bool:
        """Whether its gateway answers, and misses nothing."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2.0) as answer:
                return b'"status":"healthy"' in answer.read()
        except OSError:
            return False

    def last_lines(self) -> str:
        """The last of what its processes printed."""
        with contextlib.suppress(OSError):
            return (self.folder / "log").read_text(errors="replace")[-2000:]
        return ""

    def stop(self) -> None:
        """End honcho and what it started, in order; what does not end in time is killed."""
        if self.honcho is not None and self.honcho.poll() is None:
            self.honcho.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.honcho.wait(END_S)
        with contextlib.suppress(Unable):
            end(self.machine.pids)
        if self.honcho is not None:
            self.honcho.wait()
        if self._log is not None:
            self._log.close()
            self._log = None


class Site:
    """The three hosts. `make` them, `start` what runs there, lose one and `find` it; `remove` leaves nothing behind."""

    def __init__(self, home: Path, net: str) -> None:
        self.home, self.net = home.resolve(), net
        self.machines = Machines(KIND, net)
        self.hosts = [
            Host(name, Machine(self.machines.prefix, net, number), self.home / name)
            for number, name in enumerate(NAMES, 1)
        ]
        self.service_token = secrets.token_hex(16)
        self._store = self.home / "sessions.db"
        self._lock: IO[str] | None = None

    def __getitem__(self, name: str) -> Host:
        return self.hosts[NAMES.index(name)]

    def token(self) -> str:
        """The session token of the demo's user."""
        return mint_token(self._store, None, 86_400.0)

    def make(self, say: Say) -> None:
        """Make the folder, the namespaces and the keys. Raises `Failed` and `Unable`; `remove` is due then too."""
        self._take_home()
        for name in remove_left_over(KIND):
            say(f"removed the namespace {name}, which a demo that was killed had left behind")
        self.machines.make([host.machine for host in self.hosts])
        keys, now = self.home / "cluster-keys", datetime.now(UTC)
        cluster_keys.make_cluster(keys, name="demo", days=30, home=keys / "none", force=False, now=now)
        mint_token(self._store, None, 86_400.0)
        for host in self.hosts:
            made = cluster_keys.make_host(
                keys, f"host-{host.name}", [host.machine.address], days=30, force=False, now=now
            )
            host.folder.mkdir(mode=0o700)
            shutil.copytree(made.place, host.folder / "home")
            (host.folder / "home").chmod(0o700)
            self._write(host)
        script = self.home / "on"
        script.write_text(self._script())
        script.chmod(0o755)

    async def start(self) -> None:
        """Start all hosts, and wait until every gateway is healthy. Raises `Failed`."""
        for host in self.hosts:
            host.start()
        await self.wait_healthy(self.hosts)

    async def wait_healthy(self, hosts: Sequence[Host]) -> None:
        """Wait until these hosts' gateways are healthy. Raises `Failed`."""
        until = time.monotonic() + READY_S
        for host in hosts:
            while not await asyncio.to_thread(host.healthy):
                ended = host.honcho is not None and host.honcho.poll() is not None
                if ended or time.monotonic() > until:
                    raise Failed(f"host {host.name} {'ended' if ended else 'is not healthy'}:\n{host.last_lines()}")
                await asyncio.sleep(0.1)

    def host_with_slot(self, slot: int) -> Host:
        """The host whose router has a slot; one of three has none. Raises `Failed`."""
        command = [str(self.home / "on"), "b", "watchout-ctl", "cluster", "--json"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=READY_S, check=False).stdout
        try:
            found = json.loads(said)["slots"][slot]["host"]
            return next(host for host in self.hosts if f"host-{host.name}" == found)
        except (ValueError, LookupError, StopIteration):
            raise Failed(f"slot {slot} has no router:\n{said[-2000:]}") from None

    def lose(self, host: Host) -> None:
        """Lose a host with all that runs there, without a word to anybody."""
        self.machines.power_off(host.machine)
        if host.honcho is not None:
            host.honcho.wait()

    def find(self, host: Host) -> None:
        """Start a lost host again; returns at once."""
        self.machines.plug(host.machine)
        host.start()

    def remove(self) -> None:
        """End everything in order, and remove what was made: processes, namespaces and files."""
        for host in self.hosts:
            if host.honcho is not None and host.honcho.poll() is None:
                host.honcho.terminate()  # all at once: each takes its time
        for host in self.hosts:
            host.stop()
        self.machines.remove([host.machine for host in self.hosts])
        if self._lock is not None:
            shutil.rmtree(self.home, ignore_errors=True)
            self._lock.close()
            self._lock = None

    def _take_home(self) -> None:
        """Take the folder, with nothing in it but the mark, which is locked. Raises `Failed`."""
        mark = self.home / MARK
        if self.home.exists() and not mark.exists() and any(self.home.iterdir()):
            raise Failed(f"{self.home} is there already and was not made by this demo; choose another: CLUSTER_HOME=…")
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = mark.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise Failed(
                f"the demo runs already in {self.home}; for a second one: CLUSTER_HOME=… CLUSTER_NET=…"
            ) from None
        self._lock = lock
        for each in self.home.iterdir():
            if each != mark:
                shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()

    def _write(self, host: Host) -> None:
        """Write the deployed files of a host: addresses, folders, store and ML service are its own."""
        own = self.deployed(f"host-{host.name}.env", host)
        own = re.sub(r"(?m)^DATABASE_URL=.*$", f"DATABASE_URL=sqlite:{self._store}", own)
        own += f"\n# Of the demo\nSERVICE_TOKEN={self.service_token}\nWATCHOUT_PORT={PORT}\n"
        procfile = self.deployed("Procfile", host)
        if STARTED[host.name] is None:
            own += "ML_SERVICE_URL=http://127.0.0.1:8500\n"
            procfile += ML_LINE
        (host.folder / ".env").write_text(own, encoding="utf-8")
        (host.folder / "Procfile").write_text(procfile, encoding="utf-8")
        (host.folder / "nats.conf").write_text(self.deployed("nats.conf", host), encoding="utf-8")

    def deployed(self, file: str, host: Host) -> str:
        """A file of deploy/three-hosts with the demo's addresses and the folder of a host."""
        text = (DEPLOYED / file).read_text(encoding="utf-8").replace("/var/lib/watchout", str(host.folder / "home"))
        return re.sub(r"\b10\.77\.0\.(\d+)\b", rf"{self.net}.\1", text)

    def _script(self) -> str:
        cases = "\n".join(f"  {host.name}) namespace={host.machine.name};;" for host in self.hosts)
        return (
            "#!/bin/sh\n# on HOST COMMAND…: run a command on a host of the demo, in its folder and with its .env.\n"
            f'case $1 in\n{cases}\n  *) echo "usage: $0 a|b|c COMMAND…" >&2; exit 2;;\nesac\n'
            f'cd "{self.home}/$1" || exit 1\nshift\n'
            f'exec ip netns exec "$namespace" env PATH="{BIN}:$PATH" "$@"\n'
        )
