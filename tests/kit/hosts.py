"""Hosts with addresses of their own on this machine: network namespaces at one switch, whose links can be hurt.

Needs root, iproute2 and iptables. The test process is at the same switch and reaches every host, so that it can be
camera, viewer and operator while the hosts do not reach each other. Everything is named after this process and a random
word, and removed at the end; what a killed run has left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import psutil

from tests.kit.services import missing

REPOSITORY: Final = Path(__file__).parents[2]
#: Names of namespaces: of which process, of which run, which host ("s" is the switch).
_NAME: Final = re.compile(r"woh(\d+)-([0-9a-f]{4})-(\d+|s)")
#: The interface of a host, in its namespace.
LINK: Final = "eth0"
#: The number of the test process in the addresses of the hosts' network.
_OURS: Final = 254
_NETWORKS: Final = 20

Direction = Literal["both", "in", "out"]


class Host:
    """One host: `address` is where all others, and the test process, reach it."""

    def __init__(self, number: int, net: str, word: str) -> None:
        self.number = number
        self.name = f"woh{os.getpid()}-{word}-{number}"
        self.address = f"{net}.{number}"
        #: The switch's end of the link.
        self.port = f"port{number}"

    @property
    def within(self) -> list[str]:
        """The beginning of a command that runs there."""
        return ["ip", "netns", "exec", self.name]

    @property
    def pids(self) -> list[int]:
        """The processes that run there."""
        return [int(pid) for pid in _run("ip", "netns", "pids", self.name).split()]

    def iptables(self, *words: str) -> None:
        """Change a rule; another test that changes one of its own has the lock of all namespaces for a moment."""
        _run(*self.within, "iptables", "-w", "60", *words)


class Hosts:
    """Hosts at one switch. Faults hold while their block lasts, and several may hold at once."""

    def __init__(self, count: int) -> None:
        word = secrets.token_hex(2)
        self._net = f"10.{random.randrange(100, 250)}.{random.randrange(1, 250)}"
        self._switch = f"woh{os.getpid()}-{word}-s"
        self._link = f"woh{word}{os.getpid() % 1_000_000}"  # an interface's name has 15 characters at most
        #: Where hosts reach the test process.
        self.here = f"{self._net}.{_OURS}"
        self.all = [Host(number, self._net, word) for number in range(1, count + 1)]

    def __getitem__(self, index: int) -> Host:
        return self.all[index]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def make(self) -> None:
        """Make the switch, the hosts and their links. Raises `AssertionError` when the network is taken."""
        assert f" {self._net}." not in _run("ip", "-4", "-o", "addr"), f"the network {self._net}.0 is taken"
        _run("ip", "netns", "add", self._switch)
        self._at_switch("link", "add", "switch", "type", "bridge")
        self._at_switch("link", "set", "switch", "up")
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "ours", "netns", self._switch)
        _run("ip", "addr", "add", f"{self.here}/24", "dev", self._link)
        _run("ip", "link", "set", self._link, "up")
        self._plug("ours")
        for host in self.all:
            _run("ip", "netns", "add", host.name)
            _run("ip", "-n", host.name, "link", "add", LINK, "type", "veth", "peer", "name", host.port, "netns",
                 self._switch)  # fmt: skip
            self._plug(host.port)
            for words in (("addr", "add", f"{host.address}/24", "dev", LINK), ("link", "set", LINK, "up"),
                          ("link", "set", "lo", "up")):  # fmt: skip
                _run("ip", "-n", host.name, *words)

    def remove(self) -> None:
        """End what still runs on the hosts, and remove them; the links go with them."""
        for host in self.all:
            with contextlib.suppress(AssertionError):
                _kill(host.pids)
        _remove_namespaces([self._switch, *(host.name for host in self.all)])
        subprocess.run(["ip", "link", "delete", self._link], check=False, capture_output=True)

    @contextlib.contextmanager
    def hurt(self, host: Host, *rules: Sequence[str]) -> Iterator[None]:
        """While the block lasts, these rules of iptables hold on the host: ``("INPUT", "-p", "tcp", "-j", "DROP")``."""
        with contextlib.ExitStack() as stack:
            for rule in rules:
                host.iptables("-A", *rule)
                stack.callback(host.iptables, "-D", *rule)
            yield

    @contextlib.contextmanager
    def cut(
        self, host: Host, direction: Direction = "both", *, of: Sequence[Host] | None = None, of_us: bool = False
    ) -> Iterator[None]:
        """Drop, without a word, what this host and the others send each other.

        Args:
            host: The host that is cut off.
            direction: Only what comes ``in`` to the host, or what goes ``out``: a one-way partition.
            of: The hosts that it does not reach; else all others.
            of_us: The test process does not reach it either.

        """
        with contextlib.ExitStack() as stack:
            for other in self.all if of is None else of:
                # Where it would arrive: the sender's kernel tells a program of a packet that it drops itself.
                if other is not host and direction != "out":
                    stack.enter_context(self.hurt(host, ("INPUT", "-s", other.address, "-j", "DROP")))
                if other is not host and direction != "in":
                    stack.enter_context(self.hurt(other, ("INPUT", "-s", host.address, "-j", "DROP")))
            if of_us and direction != "out":
                stack.enter_context(self.hurt(host, ("INPUT", "-s", self.here, "-j", "DROP")))
            if of_us and direction != "in":
                stack.enter_context(self.hurt(host, ("OUTPUT", "-d", self.here, "-j", "DROP")))
            yield

    @contextlib.contextmanager
    def losing(self, share: float) -> Iterator[None]:
        """Lose this share of all packets between hosts, at random."""
        some = ("-m", "statistic", "--mode", "random", "--probability", f"{share:.4f}", "-j", "DROP")
        with contextlib.ExitStack() as stack:
            for host in self.all:
                others = [other.address for other in self.all if other is not host]
                stack.enter_context(self.hurt(host, *(("INPUT", "-s", each, *some) for each in others)))
            yield

    @contextlib.contextmanager
    def delaying(self, seconds: float) -> Iterator[None]:
        """Let each packet between hosts be on its way for so long, in each direction; connections go on.

        Kernels without netem are common, so a process carries the packets meanwhile (`tests.kit.wire`).
        """
        if not Path("/dev/net/tun").exists():
            missing("this machine has no /dev/net/tun, which carries packets late")
        command = [sys.executable, "-m", "tests.kit.wire", str(seconds), *(f"{h.name}={h.address}" for h in self.all)]
        with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as wire:
            try:
                assert wire.stdout is not None
                assert wire.stdout.readline() == b"ready\n", "the wire between the hosts does not start"
                with contextlib.ExitStack() as stack:
                    for host in self.all:
                        for other in self.all:
                            if other is not host:
                                route = (f"{other.address}/32", "dev", "wire", "src", host.address)
                                _run("ip", "-n", host.name, "route", "add", *route)
                                stack.callback(_run, "ip", "-n", host.name, "route", "delete", *route)
                    yield
                    assert wire.poll() is None, "the wire between the hosts has ended"
            finally:
                wire.kill()

    def unplug(self, host: Host) -> None:
        """Take its link out of the switch."""
        self._at_switch("link", "set", host.port, "down")

    def plug(self, host: Host) -> None:
        """Put its link back into the switch."""
        self._at_switch("link", "set", host.port, "up")

    def power_off(self, host: Host) -> None:
        """Lose the host as a machine is lost: the link first, so that no connection is told, then every process."""
        self.unplug(host)
        _kill(host.pids)

    def _plug(self, port: str) -> None:
        self._at_switch("link", "set", port, "master", "switch")
        self._at_switch("link", "set", port, "up")

    def _at_switch(self, *words: str) -> None:
        _run("ip", "-n", self._switch, *words)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _kill(pids: Sequence[int]) -> None:
    """Kill these processes, and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    give_up = time.monotonic() + 30.0
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < give_up, f"of {pids} some do not end"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _remove_namespaces(names: Sequence[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def namespaces() -> list[str]:
    """The names of all network namespaces of this machine."""
    return [line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line.strip()]


def remove_left_overs() -> None:
    """Remove the hosts of runs that have ended without doing so, with what still runs on them."""
    for name in namespaces():
        found = _NAME.fullmatch(name)
        if found and not psutil.pid_exists(int(found[1])):
            with contextlib.suppress(AssertionError):  # another worker does the same
                _kill([int(pid) for pid in _run("ip", "netns", "pids", name).split()])
            _remove_namespaces([name])


def why_not() -> str | None:
    """Why hosts cannot be made here; None: they can."""
    if os.geteuid() != 0:
        return "network namespaces can be made by root only"
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            return f"the program {program} is not installed (Debian: iproute2, iptables)"
    name = f"woh{os.getpid()}-{secrets.token_hex(2)}-0"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if made.returncode:
        return f"this machine lets nobody make a network namespace: {made.stderr.strip()}"
    _remove_namespaces([name])
    return None


@contextlib.contextmanager
def hosts(count: int = 3) -> Iterator[Hosts]:
    """So many hosts at one switch, for a while. Skips the test where they cannot be made; in CI it fails."""
    reason = why_not()
    if reason is not None:
        missing(reason)
    remove_left_overs()
    for number in itertools.count():
        made = Hosts(count)
        try:
            made.make()
        except AssertionError:  # the network may be taken: another one then
            made.remove()
            if number == _NETWORKS:
                raise
            continue
        except BaseException:
            made.remove()
            raise
        break
    try:
        yield made
    finally:
        made.remove()
