"""Finds the process that listens on a TCP port of this machine; also a script: ``port_holder.py [NAME=]PORT…``.

Only processes that this user may inspect are found. The script needs nothing but Python; it prints the holder of each
taken port, and exits with 1 if there is one.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

#: State of a listening socket in /proc/net/tcp (TCP_LISTEN).
LISTENING = "0A"


def holder_of(port: int) -> str:
    """Return the process that listens on the port, as ``process 123 (node)``; empty if none is found."""
    found = _of_proc(port) if Path("/proc/net/tcp").exists() else _of_lsof(port)
    if found is None:
        return ""
    pid, name = found
    return f"process {pid} ({name})" if name else f"process {pid}"


def _of_proc(port: int) -> tuple[int, str] | None:
    """Return id and name of the listening process by Linux's /proc."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                    return int(process.name), _name((process / "cmdline").read_bytes())
            except OSError:  # another user's process, or it has just ended
                continue
    return None


def _name(command: bytes) -> str:
    """Return the name of a process: its program, or the script that an interpreter runs."""
    words = [word.decode("utf-8", "replace") for word in command.split(b"\0") if word]
    names = [Path(word).name for word in words if not word.startswith("-")][:2]
    if len(names) > 1 and re.match(r"(python|node|ruby|perl|sh|bash)", names[0]):
        names = names[1:]
    return "".join(c for c in names[0][:40] if c.isprintable()) if names else ""


def _of_lsof(port: int) -> tuple[int, str] | None:
    """Return id and name of the listening process by lsof(8)."""
    try:
        output = subprocess.run(  # noqa: S603
            ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"],  # noqa: S607
            capture_output=True, text=True, timeout=5, check=False,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    pid, name = re.search(r"^p(\d+)$", output, re.MULTILINE), re.search(r"^c(.+)$", output, re.MULTILINE)
    return None if pid is None else (int(pid[1]), name[1] if name else "")


def is_taken(port: int) -> bool:
    """Whether the port cannot be bound on all addresses; it is bound for a moment to find out."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - bound for a moment
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, port))
        except OSError:
            if family == socket.AF_INET:
                return True
    return False


def main() -> int:
    """Print a sentence for each port that is taken. Returns the exit code."""
    taken = []
    for word in sys.argv[1:]:
        name, _, number = word.rpartition("=")
        if not number.isdecimal() or not 0 < int(number) < 65536:
            taken.append(f"{word}: expected a port from 1 to 65535")
        elif is_taken(int(number)):
            whose = holder_of(int(number)) or "a process that this user may not inspect"
            taken.append(f"port {number} is taken by {whose}" + (f": set {name} to a free one" if name else ""))
    for sentence in taken:
        print(sentence, file=sys.stderr)
    return 1 if taken else 0


if __name__ == "__main__":
    sys.exit(main())
