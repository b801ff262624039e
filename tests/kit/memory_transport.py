"""The smallest transport of the bus: both ends in one event loop, messages handed over in its next turn.

It implements the Protocols of `watchout.common.bus.transport` and `mesh` without sockets, bytes in and bytes out, and
behaves as ZeroMQ does where the layers above depend on it: while there is no router a control message is refused, a
member finds a new router by itself, and nothing is delivered to an end that is closed.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable

from watchout.common import supervisor
from watchout.common.bus.mesh import MemberCarrier


class MemoryBus:
    """One bus: at most one router and any number of members.

    Give `open_router` to a `Router`, and `carrier` to each `Gateway` and `Bridge`.
    """

    def __init__(self) -> None:
        self.router: MemoryRouterTransport | None = None
        self.members: dict[bytes, MemoryMemberTransport] = {}
        self.meshes: dict[str, MemoryMesh] = {}
        #: So many of the next control messages to members are lost, as by a full queue.
        self.lose = 0

    def open_router(
        self, *, on_control: Callable[[bytes, bytes], None], on_frame: Callable[[bytes], None]
    ) -> MemoryRouterTransport:
        """Open the router's end. The one before must be closed."""
        assert self.router is None, "a bus has one router"
        self.router = MemoryRouterTransport(self, on_control, on_frame)
        return self.router

    def open_member(
        self, *, on_control: Callable[[bytes], None], on_frame: Callable[[bytes], None] | None
    ) -> MemoryMemberTransport:
        """Open a member's end, before or after the router's."""
        member = MemoryMemberTransport(self, on_control, on_frame)
        self.members[member.member_id] = member
        return member

    def open_mesh(self, *, on_frame: Callable[[bytes], None]) -> MemoryMesh:
        """Open a member's part of the frame mesh."""
        return MemoryMesh(self, on_frame)

    @property
    def carrier(self) -> MemberCarrier:
        """What carries a member's messages."""
        return MemberCarrier(self.open_member, self.open_mesh)


class MemoryRouterTransport:
    """The router's end, a `RouterTransport`; made by `MemoryBus.open_router`."""

    malformed = 0
    frames_dropped = 0
    refused = None

    def __init__(
        self, bus: MemoryBus, on_control: Callable[[bytes, bytes], None], on_frame: Callable[[bytes], None]
    ) -> None:
        self._bus = bus
        self.on_control = on_control
        self.on_frame = on_frame
        self.frames_sent = 0

    def is_remote(self, member: bytes) -> bool:
        return False

    def send_control(self, member: bytes, message: bytes) -> bool:
        end = self._bus.members.get(member)
        if end is None:
            return False
        if self._bus.lose:
            self._bus.lose -= 1
            return False
        _hand_over(lambda: member in self._bus.members, end.on_control, message)
        return True

    def send_frame(self, member: bytes, frame: bytes) -> None:
        end = self._bus.members.get(member)
        if end is not None and end.on_frame is not None:
            self.frames_sent += 1
            _hand_over(lambda: member in self._bus.members, end.on_frame, frame)

    def reaches(self, member: bytes) -> bool:
        return member in self._bus.members

    def forget(self, member: bytes) -> None:
        """Nothing is queued."""

    def revoked(self) -> list[bytes]:
        return []

    def close(self) -> None:
        if self._bus.router is self:
            self._bus.router = None


class MemoryMemberTransport:
    """A member's end, a `MemberTransport`; made by `MemoryBus.open_member`."""

    malformed = 0
    frames_dropped = 0

    def __init__(
        self, bus: MemoryBus, on_control: Callable[[bytes], None], on_frame: Callable[[bytes], None] | None
    ) -> None:
        self._bus = bus
        self.member_id = b"\x01" + secrets.token_bytes(7)
        self.on_control = on_control
        self.on_frame = on_frame
        self.frames_sent = 0

    def send_control(self, message: bytes) -> bool:
        router = self._bus.router
        if router is None:
            return False
        _hand_over(lambda: self._bus.router is router, router.on_control, self.member_id, message)
        return True

    def send_frame(self, parts: tuple[bytes | memoryview, ...], coalescing_delay_s: float) -> None:
        router = self._bus.router
        if router is not None:
            self.frames_sent += 1
            _hand_over(lambda: self._bus.router is router, router.on_frame, b"".join(parts))

    def on_joined(self) -> None:
        """Nothing to do."""

    def drop_frames(self) -> None:
        """Nothing is queued."""

    def explain_absence(self) -> str:
        return "the test has stopped the router"

    def close(self) -> None:
        self._bus.members.pop(self.member_id, None)


class MemoryMesh:
    """A member's part of the frame mesh, a `FrameMesh`; made by `MemoryBus.open_mesh`."""

    malformed = 0
    frames_dropped = 0

    def __init__(self, bus: MemoryBus, on_frame: Callable[[bytes], None]) -> None:
        self._bus = bus
        self.on_frame = on_frame
        self.frames_sent = 0
        self.address = "unix:f-" + base64.b32encode(secrets.token_bytes(5)).decode().lower()
        bus.meshes[self.address] = self

    def send_frame(self, at: str, parts: tuple[bytes | memoryview, ...], coalescing_delay_s: float) -> None:
        other = self._bus.meshes.get(at)
        if other is not None:
            self.frames_sent += 1
            _hand_over(lambda: at in self._bus.meshes, other.on_frame, b"".join(parts))

    def close(self) -> None:
        del self._bus.meshes[self.address]


def _hand_over(is_open: Callable[[], bool], receive: Callable[..., None], *args: bytes) -> None:
    """Call the receiving end in the next turn of the event loop, unless it is closed by then."""

    def deliver() -> None:
        if is_open():
            with supervisor.current().guarding("a bus message"):
                receive(*args)

    asyncio.get_running_loop().call_soon(deliver)
