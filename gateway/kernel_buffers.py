"""What the kernel holds of a connection's bytes: limits for it, and how much the peer has acknowledged."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from typing import Final

#: Above this many bytes that the kernel did not take, a transport reports that it is full, so that frames wait in our
#: queues, where a newer one can replace them.
WRITE_HIGH_BYTES: Final = 1
#: Bytes not sent yet that the kernel may hold before it takes no more (tcp(7) TCP_NOTSENT_LOWAT). As nothing waits in
#: the transport, a slow viewer is at most this and the rest of one frame behind its newest frame.
NOTSENT_LOWAT_BYTES: Final = 8 * 1024
#: Bytes that the kernel may hold for a client, sent or not (socket(7) SO_SNDBUF, which doubles the number for its own
#: needs). Bytes in flight to a healthy viewer far away have to fit: 20 Mbit/s over 200 ms.
SEND_BUFFER_BYTES: Final = 512 * 1024

#: ``tcpi_bytes_acked`` in Linux's ``struct tcp_info`` (linux/tcp.h), since 4.1.
_BYTES_ACKED: Final = struct.Struct("=120xQ")


def limit_kernel_buffers(transport: asyncio.Transport) -> None:
    """Bound what the kernel holds for a slow reader, so that the reader is not seconds behind."""
    raw: socket.socket | None = transport.get_extra_info("socket")
    if raw is None:
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)


def shares_writes(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether bytes written to several such transports stay one object while they wait, neither copied nor encrypted.

    True for plain TCP on uvloop, and on asyncio since Python 3.12.
    """
    if transport.get_extra_info("sslcontext") is not None:
        return False
    return sys.version_info >= (3, 12) or type(loop).__module__.partition(".")[0] == "uvloop"


def unread_bytes(transport: asyncio.Transport) -> int:
    """Return the bytes that the peer has not acknowledged: in the transport, and in the kernel (tcp(7) SIOCOUTQ).

    Where the kernel does not report it, only those in the transport.
    """
    raw, buffered = transport.get_extra_info("socket"), transport.get_write_buffer_size()
    if raw is None or raw.fileno() < 0:
        return buffered
    try:
        (kernel,) = struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return buffered
    return buffered + int(kernel)


def acknowledged_bytes(transport: asyncio.Transport) -> int:
    """Return a count that rises with the bytes that the peer has acknowledged.

    Where the kernel does not count them it is the negative of `unread_bytes`: that rises as well, as long as nothing
    new is written.
    """
    raw = transport.get_extra_info("socket")
    if sys.platform == "linux" and raw is not None and raw.fileno() >= 0:
        try:
            info = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
        except OSError:
            info = b""
        if len(info) == _BYTES_ACKED.size:
            (acked,) = _BYTES_ACKED.unpack(info)
            return int(acked)
    return -unread_bytes(transport)
