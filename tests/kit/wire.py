"""Carries IP packets between the hosts of `tests.kit.hosts`, each as late as it is told: what `tc netem delay` does.

``python -m tests.kit.wire SECONDS NAMESPACE=ADDRESS…`` makes the interface ``wire`` in each network namespace, says
``ready``, and runs until it is killed or its standard input ends; the interfaces go with it.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from typing import Final

from tests.kit.namespaces import enter

#: linux/if_tun.h.
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
NAME: Final = "wire"
#: Packets of one interface that are read before the others are looked at.
_TURN: Final = 64
_PACKET: Final = 65536


def open_end(namespace: str) -> int:
    """Make the interface in this namespace; what is sent through it is read here, and the other way round."""
    enter(namespace)
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", NAME.encode(), _IFF_TUN | _IFF_NO_PI))
    subprocess.run(["ip", "-n", namespace, "link", "set", NAME, "up", "txqueuelen", "10000"], check=True)
    return end


def target_of(packet: bytes) -> bytes | None:
    """The address that an IPv4 packet goes to; None: it is of another kind."""
    return packet[16:20] if len(packet) >= 20 and packet[0] >> 4 == 4 else None


def carry(ends: dict[bytes, int], delay_s: float) -> None:
    """Carry packets until the standard input ends."""
    waiting: collections.deque[tuple[float, int, bytes]] = (
        collections.deque()
    )  # all are as late: in order of their time
    poll = select.poll()
    for end in (0, *ends.values()):
        poll.register(end, select.POLLIN)
    while True:
        wait_ms = -1 if not waiting else max(0.0, (waiting[0][0] - time.monotonic()) * 1000)
        for end, _ in poll.poll(wait_ms):
            if end == 0:
                return
            with contextlib.suppress(BlockingIOError):
                for _ in range(_TURN):
                    packet = os.read(end, _PACKET)
                    target = ends.get(target_of(packet) or b"")
                    if target is not None:
                        waiting.append((time.monotonic() + delay_s, target, packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, target, packet = waiting.popleft()
            try:
                os.write(target, packet)
            except OSError as exc:  # a host whose queue is full, or which is down, loses the packet
                if exc.errno not in (errno.EAGAIN, errno.EIO, errno.ENOBUFS, errno.EINVAL):
                    raise


def main() -> None:
    ends = {}
    for word in sys.argv[2:]:
        namespace, _, address = word.partition("=")
        ends[bytes(map(int, address.split(".")))] = open_end(namespace)
    print("ready", flush=True)
    carry(ends, float(sys.argv[1]))


if __name__ == "__main__":
    main()
