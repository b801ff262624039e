"""Machines with addresses of their own on this one: network namespaces at one switch. Needs root and iproute2.

This machine is at the same switch. Everything is named after the process that made it, and removed at the end;
`remove_left_over` removes what a killed one has left. As a script (``machines.py NETWORK``, which needs nothing but
Python) it says in one sentence why they cannot be made here, and exits with 1.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: The interface of a machine, in its namespace.
LINK: Final = "eth0"
#: The number of this machine in the addresses of the network.
OURS: Final = 254
_END_S: Final = 30.0
#: Debian's packages of programs with other names.
_PACKAGES: Final = {"ip": "iproute2", "unshare": "util-linux"}


class Unable(Exception):
    """A command of iproute2 failed; the text is its own word."""


class Machine:
    """One machine: `address` is where all others, and this one, reach it."""

    def __init__(self, prefix: str, net: str, number: int) -> None:
        self.number = number
        self.name = f"{prefix}-{number}"
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
        return pids_in(self.name)


class Machines:
    """The switch and its links: `make` and `remove` them, `unplug` and `plug` machines, and lose one (`power_off`).

    `kind` is what their names begin with, of letters; `net` are the first three numbers of their addresses.
    """

    def __init__(self, kind: str, net: str) -> None:
        word = secrets.token_hex(2)
        self.net = net
        self.prefix = f"{kind}{os.getpid()}-{word}"
        self._switch = f"{self.prefix}-s"
        self._link = link_of(kind, os.getpid(), word)
        #: Where the machines reach this one.
        self.here = f"{net}.{OURS}"

    def make(self, machines: Sequence[Machine]) -> None:
        """Make the switch, the machines and their links. Raises `Unable`, also when the network is in use."""
        user = user_of(self.net)
        if user:
            raise Unable(f"the network {self.net}.0/24 is in use on this machine ({user})")
        run("ip", "netns", "add", self._switch)
        self._at_switch("link", "add", "switch", "type", "bridge")
        self._at_switch("link", "set", "switch", "up")
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "ours", "netns", self._switch)
        run("ip", "addr", "add", f"{self.here}/24", "dev", self._link)
        run("ip", "link", "set", self._link, "up")
        self._to_switch("ours")
        for each in machines:
            run("ip", "netns", "add", each.name)
            run("ip", "-n", each.name, "link", "add", LINK, "type", "veth", "peer", "name", each.port, "netns",
                self._switch)  # fmt: skip
            self._to_switch(each.port)
            for words in (("addr", "add", f"{each.address}/24", "dev", LINK), ("link", "set", LINK, "up"),
                          ("link", "set", "lo", "up")):  # fmt: skip
                run("ip", "-n", each.name, *words)

    def remove(self, machines: Sequence[Machine]) -> None:
        """End what still runs on the machines, and remove them; the links go with them."""
        for each in machines:
            with contextlib.suppress(Unable):
                end(each.pids)
        remove_link(self._link)
        remove_namespaces([self._switch, *(each.name for each in machines)])

    def unplug(self, machine: Machine) -> None:
        """Take its link out of the switch."""
        self._at_switch("link", "set", machine.port, "down")

    def plug(self, machine: Machine) -> None:
        """Put its link back into the switch."""
        self._at_switch("link", "set", machine.port, "up")

    def power_off(self, machine: Machine) -> None:
        """Lose it as a machine is lost: the link first, so that no connection is told, then every process."""
        self.unplug(machine)
        end(machine.pids)

    def _to_switch(self, port: str) -> None:
        self._at_switch("link", "set", port, "master", "switch")
        self._at_switch("link", "set", port, "up")

    def _at_switch(self, *words: str) -> None:
        run("ip", "-n", self._switch, *words)


def run(*command: str) -> str:
    """Run a command; what it printed. Raises `Unable`."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Unable(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def user_of(net: str) -> str:
    """Who uses this network here already: the line of its address or route; empty if nobody does."""
    lines = (
        run("ip", "-4", "-o", "addr").splitlines()
        + run("ip", "-4", "route", "show", "root", f"{net}.0/24").splitlines()
    )
    return next((" ".join(line.split()) for line in lines if re.search(rf"\b{re.escape(net)}\.\d", line)), "")


def pids_in(namespace: str) -> list[int]:
    """The processes in a network namespace. Raises `Unable`."""
    return [int(pid) for pid in run("ip", "netns", "pids", namespace).split()]


def end(pids: Sequence[int]) -> None:
    """Kill these processes, and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    give_up = time.monotonic() + _END_S
    while any(runs(pid) for pid in pids):
        assert time.monotonic() < give_up, f"of {pids} some do not end"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def remove_namespaces(names: Sequence[str]) -> None:
    """Remove network namespaces; those that are gone are passed over."""
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def namespaces() -> list[str]:
    """The names of all network namespaces of this machine. Raises `Unable`."""
    return [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip()]


def link_of(kind: str, pid: int, word: str) -> str:
    """The name of this machine's link to a switch."""
    return f"{kind}{word}{pid % 1_000_000}"  # an interface's name has 15 characters at most


def remove_link(name: str) -> None:
    """Remove a link, if it is there: with its namespace it would go too, but a moment later."""
    subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def remove_left_over(kind: str) -> list[str]:
    """Remove namespaces of this kind whose process is gone, with what still runs there; their names."""
    removed = []
    for name in namespaces():
        found = re.fullmatch(rf"({kind})(\d+)-([0-9a-f]{{4}})-(?:\d+|s)", name)
        if found and not runs(int(found[2])):
            with contextlib.suppress(Unable):  # somebody else does the same
                end(pids_in(name))
            remove_link(link_of(kind, int(found[2]), found[3]))
            remove_namespaces([name])
            removed.append(name)
    return removed


def why_not(*programs: str) -> str | None:
    """Why machines cannot be made here, where these programs are needed besides; None: they can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces can be made by root only"
    for program in ("ip", *programs):
        if shutil.which(program) is None:
            return f"the program {program} is not installed (Debian: {_PACKAGES.get(program, program)})"
    made = Machines("wot", "")
    one = Machine(made.prefix, "", 0)
    try:
        run("ip", "netns", "add", one.name)
        run("ip", "-n", one.name, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", one.name, "link", "add", LINK, "type", "veth", "peer", "name", "port0")
    except Unable as exc:
        return f"this machine lets nobody make a network namespace with a switch: {exc}"
    finally:
        remove_namespaces([one.name])
    return None


def main() -> None:
    """Say why the machines of the demo cannot be made here; exit with 1 then."""
    net = sys.argv[1]
    reason = why_not("unshare")
    if reason is None and user_of(net):
        reason = f"the network {net}.0/24 is in use here ({user_of(net)}); choose another: CLUSTER_NET=10.78.0"
    if reason is not None:
        sys.exit(f"make demo-cluster makes three machines of network namespaces: {reason}")


if __name__ == "__main__":
    main()
