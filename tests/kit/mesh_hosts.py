"""Hosts of a frame mesh on loopback: homes with certificates of one authority, and meshes in them."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from watchout.common.bus.frames import BusFrame
from watchout.common.bus.zeromq.mesh_certificates import MeshFiles
from watchout.common.bus.zeromq.tls_mesh import TlsFrameMesh
from watchout.common.settings.mesh_listen import MeshListen
from watchout.ctl import cluster_keys

MAX_BYTES = 1 << 20
_OLD = timedelta(days=400)


class Authority:
    """An authority in a directory, and the hosts that it has issued certificates for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        cluster_keys.make_cluster(
            directory, name="test", days=3650, home=directory / "none", force=False, now=datetime.now(UTC) - _OLD
        )

    def home(self, name: str, *addresses: str, days: int = 365) -> Path:
        """The home of a host, with a fresh certificate for its name and addresses that is valid for so many days."""
        issued = datetime.now(UTC) - _OLD
        made = cluster_keys.make_host(self.directory, name, addresses, days=_OLD.days + days, force=True, now=issued)
        return made.place


@contextlib.contextmanager
def authority() -> Iterator[Authority]:
    """An authority in a directory of its own, whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="wo-") as directory:
        yield Authority(Path(directory) / "ca")


def files(home: Path) -> MeshFiles:
    """The certificates in a home."""
    return MeshFiles(home / "mesh" / "host.crt", home / "mesh" / "host.key", home / "mesh" / "ca.crt")


@contextlib.asynccontextmanager
async def meshes() -> AsyncIterator[Callable[..., tuple[TlsFrameMesh, list[bytes]]]]:
    """Makes meshes, each with what comes to it; they are closed at the end."""
    opened: list[TlsFrameMesh] = []

    def make(
        home: Path, host: str = "127.0.0.1", port: int = 0, advertise: str | None = None, of: MeshFiles | None = None
    ) -> tuple[TlsFrameMesh, list[bytes]]:
        got: list[bytes] = []
        listen = MeshListen(host, port, port, advertise or host)
        made = TlsFrameMesh(
            home,
            listen,
            of or files(home),
            max_message_bytes=MAX_BYTES,
            on_frame=lambda frame: got.append(bytes(frame)),
        )
        opened.append(made)
        return made, got

    try:
        yield make
    finally:
        for mesh in opened:
            mesh.close()
        await asyncio.sleep(0.02)


def frame(number: int, stream: str = "cam", size: int = 1000) -> tuple[bytes, bytes | memoryview]:
    """A frame of `size` bytes of payload."""
    return BusFrame(stream, 1, number, 1, 1, 1, bytes(size)).parts()


def whole(number: int, stream: str = "cam", size: int = 1000) -> bytes:
    """The same as one piece."""
    return b"".join(frame(number, stream, size))
