"""Sockets that a service manager passes, taken over by a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest


def in_a_child(make: str) -> str:
    """What `take_sockets` does in a process in which `make` has put its socket at descriptor 3."""
    code = f"""
import os, socket
{make}
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
from watchout.common.process.passed_sockets import take_sockets
try:
    (one,) = take_sockets()
    print(one.getsockname()[1] == s.getsockname()[1], one.getblocking(), os.get_inheritable(3),
          any(name.startswith("LISTEN_") for name in os.environ), take_sockets())
except Exception as error:
    print(type(error).__name__, error)
"""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_a_listening_socket_is_taken_once_and_by_no_child() -> None:
    make = "s = socket.create_server(('127.0.0.1', 0))"
    assert in_a_child(make) == "True False False False []"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ("s = socket.socket(socket.AF_UNIX); s.bind('\\0x' + str(os.getpid())); s.listen()", "AF_UNIX/SOCK_STREAM"),
        ("s = socket.socket(type=socket.SOCK_DGRAM)", "AF_INET/SOCK_DGRAM"),
        ("s = socket.socket()", "does not listen"),
        ("s = open('/dev/null')", "descriptor 3 (http)"),
    ],
)
def test_what_is_no_listening_socket_is_refused_with_what_was_expected(make: str, says: str) -> None:
    said = in_a_child(make)
    assert said.startswith("StartError")
    assert says in said
    assert "expected a listening TCP socket" in said
