"""Reads what the kernel knows of a TCP connection (Linux, ``TCP_INFO``): it counts bytes so that no frame has to be."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Final

#: `struct tcp_info` of Linux 4.9 and later, as far as it is read: 8 bytes of state, 24 numbers of 32 bits, two rates,
#: bytes acknowledged and received, 6 more numbers, the delivery rate, and three times in µs.
_FORM: Final = struct.Struct("=8x24I2Q2Q6I1Q3Q")
_RTT: Final = 15
_ACKED, _RECEIVED = 26, 27
_RECEIVER_LIMITED: Final = 36
_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """What the kernel counts of one connection since it was accepted.

    Attributes:
        acked: Bytes that the peer confirmed.
        received: Bytes that came from it.
        rtt_s: The smoothed round trip, in seconds.
        receiver_limited_s: Seconds in which there was something to send and the peer had announced no room for it.
    """

    acked: int
    received: int
    rtt_s: float
    receiver_limited_s: float


def read_tcp_info(transport: asyncio.Transport) -> TcpInfo | None:
    """Return what the kernel knows of a connection; None: nothing, as on other systems.

    Args:
        transport: The connection, with or without TLS, which may be closing.
    """
    found = transport.get_extra_info("socket")
    if found is None or _TCP_INFO is None:
        return None
    try:
        data = found.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _FORM.size)
    except (OSError, ValueError):
        return None
    if len(data) < _FORM.size:
        return None
    values = _FORM.unpack(data)
    return TcpInfo(
        acked=values[_ACKED], received=values[_RECEIVED], rtt_s=values[_RTT] / 1e6,
        receiver_limited_s=values[_RECEIVER_LIMITED] / 1e6,
    )  # fmt: skip
