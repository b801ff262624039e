"""A second host on this machine: a network namespace behind a pair of virtual interfaces, whose link can be hurt.

Needs root, iproute2 and iptables. Everything is named after this process and removed at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Iterator

from tests.kit.services import missing

_numbers = itertools.count()


class Host:
    """A host that reaches this one at `here` and is reached at `there`."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.name = f"wo{os.getpid()}n{number}"
        net = f"10.{random.randrange(100, 250)}.{random.randrange(1, 250)}"
        self.here, self.there = f"{net}.1", f"{net}.2"
        self._link = f"wo{os.getpid() % 100_000}v{number}"  # an interface's name has 15 characters at most

    @property
    def within(self) -> list[str]:
        """The beginning of a command that runs there."""
        return ["ip", "netns", "exec", self.name]

    def make(self) -> None:
        """Make the namespace and the link."""
        far = f"{self._link}p"
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "name", far, "netns", self.name)
        _run("ip", "addr", "add", f"{self.here}/30", "dev", self._link)
        _run("ip", "link", "set", self._link, "up")
        for words in (("addr", "add", f"{self.there}/30", "dev", far), ("link", "set", far, "up"),
                      ("link", "set", "lo", "up")):  # fmt: skip
            _run("ip", "-n", self.name, *words)

    def remove(self) -> None:
        """Remove both; the link goes with the namespace."""
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", self._link], check=False, capture_output=True)

    @contextlib.contextmanager
    def hurt(self, *rules: tuple[str, ...]) -> Iterator[None]:
        """While the block lasts, these rules of iptables hold there: ``("INPUT", "-p", "tcp", "-j", "DROP")``."""
        for rule in rules:
            self._iptables("-A", *rule)
        try:
            yield
        finally:
            for rule in rules:
                self._iptables("-D", *rule)

    def _iptables(self, *words: str) -> None:
        """Change a rule; another test that changes one of its own has the lock of all namespaces for a moment."""
        _run(*self.within, "iptables", "-w", "60", *words)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextlib.contextmanager
def another_host() -> Iterator[Host]:
    """A host beside this one, for a while."""
    if os.geteuid() != 0:
        missing("network namespaces can be made by root only")
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            missing(f"the program {program} is not installed (Debian: iproute2, iptables)")
    host = Host()
    try:
        host.make()
        yield host
    finally:
        host.remove()
