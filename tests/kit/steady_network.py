"""Starts a program that does not hear of changes of the machine's network.

A browser ends connections when an address comes to any interface of the machine, or goes: Chromium those that it is
just making (``ERR_NETWORK_CHANGED``), so that a page whose scripts were under way stays empty; Firefox those over which
nothing comes in the next five seconds, so that moving pictures of a camera that pauses stand still. Other tests make
and remove hosts with interfaces all the time, beside a browser that only uses loopback, of which nothing changes. Both
hear of addresses over a netlink socket; without one they take the network for one that is there.

Run as a script in the new process, whose id stays that of the program.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: The number of the system call `socket`, and how the kernel names the machine (linux/audit.h).
_MACHINES: Final = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}
#: linux/prctl.h, linux/seccomp.h, linux/bpf_common.h.
_SET_SECCOMP, _SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
#: Where struct seccomp_data has the call, the machine, the first argument and the third one.
_CALL, _MACHINE, _FAMILY, _PROTOCOL = 0, 4, 16, 32
_AF_NETLINK, _NETLINK_ROUTE, _EAFNOSUPPORT = 16, 0, 97


def with_steady_network(command: Sequence[str]) -> list[str]:
    """The command that starts another one in this way."""
    return [sys.executable, "-IS", str(Path(__file__)), *command]


def _refuse_netlink() -> None:
    """Let this process and all below it have no socket that tells of addresses and links. Raises `OSError`."""
    call, machine = _MACHINES[platform.machine()]
    conditions = [(_MACHINE, machine), (_CALL, call), (_FAMILY, _AF_NETLINK), (_PROTOCOL, _NETLINK_ROUTE)]
    program = b""
    for number, (place, value) in enumerate(conditions):
        left = 2 * (len(conditions) - number - 1) + 1  # to the instruction that allows
        program += struct.pack("=HBBI", _LOAD, 0, 0, place) + struct.pack("=HBBI", _JUMP_IF_EQUAL, 0, left, value)
    program += struct.pack("=HBBI", _RETURN, 0, 0, _ERROR | _EAFNOSUPPORT)
    program += struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW)
    instructions = ctypes.create_string_buffer(program, len(program))
    counted = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    for words in (
        (_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(counted), 0, 0),
    ):
        if libc.prctl(*words):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    if sys.platform == "linux" and platform.machine() in _MACHINES:
        _refuse_netlink()
    os.execvp(sys.argv[1], sys.argv[1:])
