"""Hosts with addresses of their own on this machine: network namespaces at one switch, whose links can be hurt.

Needs root, iproute2 and iptables. The test process is at the same switch and reaches every host, so that it can be
camera, viewer and operator while the hosts do not reach each other. Everything is named after this process and a random
word, and removed at the end; what a killed run has left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from examples.cluster import machines
from examples.cluster.machines import LINK, Machine, Machines, Unable, namespaces
from tests.kit.services import missing, not_permitted

__all__ = ["LINK", "Host", "Hosts", "hosts", "namespaces", "remove_left_overs", "why_not"]

REPOSITORY: Final = Path(__file__).parents[2]
#: What the names of namespaces of tests begin with.
_KIND: Final = "woh"
_NETWORKS: Final = 20

Direction = Literal["both", "in", "out"]


class Host(Machine):
    """One host: `address` is where all others, and the test process, reach it."""

    def iptables(self, *words: str) -> None:
        """Change a rule; another test that changes one of its own has the lock of all namespaces for a moment."""
        machines.run(*self.within, "iptables", "-w", "60", *words)


class Hosts(Machines):
    """Hosts at one switch, in a network that is chosen at random. Faults hold while their block lasts, and several may
    hold at once.
    """

    def __init__(self, count: int) -> None:
        super().__init__(_KIND, f"10.{random.randrange(100, 250)}.{random.randrange(1, 250)}")
        self.all = [Host(self.prefix, self.net, number) for number in range(1, count + 1)]

    def __getitem__(self, index: int) -> Host:
        return self.all[index]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

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
            not_permitted("there is no /dev/net/tun, which carries packets late")
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
                                machines.run("ip", "-n", host.name, "route", "add", *route)
                                stack.callback(machines.run, "ip", "-n", host.name, "route", "delete", *route)
                    yield
                    assert wire.poll() is None, "the wire between the hosts has ended"
            finally:
                wire.kill()


def remove_left_overs() -> None:
    """Remove the hosts of runs that have ended without doing so, with what still runs on them."""
    machines.remove_left_over(_KIND)


def why_not() -> str | None:
    """Why hosts cannot be made here; None: they can."""
    return machines.why_not("iptables")


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
            made.make(made.all)
        except Unable:  # the network may be taken: another one then
            made.remove(made.all)
            if number == _NETWORKS:
                raise
            continue
        except BaseException:
            made.remove(made.all)
            raise
        break
    try:
        yield made
    finally:
        made.remove(made.all)
