"""The smallest transport of the bus: all ends in one event loop, messages handed over in its next turn.

It implements the Protocols of `watchout.common.bus.transport` and `mesh` without sockets, bytes in and bytes out. With
one slot it behaves as ZeroMQ does where the layers above depend on it: without a router a control message is
refused, a member finds a new router by itself, and nothing is delivered to an end that is closed. A `fenced` one is
like NATS: a control message is taken whether a router is there or not, every live router of a slot gets it, and
frames between members and routers cross the mesh.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import secrets
from collections.abc import Callable

from watchout.common import supervisor
from watchout.common.bus.mesh import LinkState, MemberCarrier
from watchout.common.bus.transport import OpenRouterTransport
from watchout.common.metric_names import MetricName


class MemoryBus:
    """One bus: any number of members, and for each slot at most one router; on a fenced bus any number of routers.

    Give `open_router` (or `router_of(slot)`) to a `Router`, and `carrier` to each `Gateway` and `Bridge`. While
    `passes` returns False for a router and a member, nothing goes from one to the other.
    """

    def __init__(self, slots: int = 1, *, fenced: bool | None = None) -> None:
        self.slots = slots
        self.fenced = slots > 1 if fenced is None else fenced
        #: The live routers of each slot, in the order of their starts.
        self.routers: list[list[MemoryRouterTransport]] = [[] for _ in range(slots)]
        self.members: dict[bytes, MemoryMemberTransport] = {}
        self.meshes: dict[str, MemoryMesh] = {}
        #: So many of the next control messages to members are lost, as by a full queue.
        self.lose = 0
        self.passes: Callable[[MemoryRouterTransport, MemoryMemberTransport], bool] = lambda _router, _member: True

    @property
    def router(self) -> MemoryRouterTransport | None:
        """The router of the first slot that started last."""
        return self.routers[0][-1] if self.routers[0] else None

    def open_router(
        self, *, on_control: Callable[[bytes, bytes], None], on_frame: Callable[[bytes], None], slot: int = 0
    ) -> MemoryRouterTransport:
        """Open a router's end. The one before must be closed, unless the bus is fenced."""
        assert self.fenced or not self.routers[slot], "a bus has one router"
        return MemoryRouterTransport(self, slot, on_control, on_frame)

    def router_of(self, slot: int) -> OpenRouterTransport:
        """Return what opens a router's end of this slot."""
        return functools.partial(self.open_router, slot=slot)

    def open_member(
        self, *, on_control: Callable[[bytes], None], on_frame: Callable[[bytes], None] | None
    ) -> MemoryMemberTransport:
        """Open a member's end of the first slot, before or after the router's."""
        return self.open_slot(0, on_control=on_control, on_frame=on_frame)

    def open_slot(
        self, slot: int, *, on_control: Callable[[bytes], None], on_frame: Callable[[bytes], None] | None
    ) -> MemoryMemberTransport:
        """Open a member's end of a slot."""
        member = MemoryMemberTransport(self, slot, on_control, on_frame)
        self.members[member.member_id] = member
        return member

    def open_mesh(self, *, on_frame: Callable[[bytes], None]) -> MemoryMesh:
        """Open a member's part of the frame mesh."""
        return MemoryMesh(self, on_frame)

    @property
    def carrier(self) -> MemberCarrier:
        """What carries a member's messages."""
        return MemberCarrier(self.open_slot, self.open_mesh, self.slots, self.fenced)


class MemoryRouterTransport:
    """The router's end of a slot, a `RouterTransport`; made by `MemoryBus.open_router`."""

    malformed = 0
    frames_dropped = 0
    refused = None
    over = "memory"

    def __init__(
        self,
        bus: MemoryBus,
        slot: int,
        on_control: Callable[[bytes, bytes], None],
        on_frame: Callable[[bytes], None],
    ) -> None:
        self._bus = bus
        self.slot = slot
        self.on_control = on_control
        self.on_frame = on_frame
        self.frames_sent = 0
        self._mesh = bus.open_mesh(on_frame=on_frame) if bus.fenced else None
        bus.routers[slot].append(self)

    @property
    def frames_at(self) -> str | None:
        return None if self._mesh is None else self._mesh.address

    @property
    def is_open(self) -> bool:
        return self in self._bus.routers[self.slot]

    def is_remote(self, member: bytes) -> bool:
        return False

    def send_control(self, member: bytes, message: bytes) -> bool:
        end = self._bus.members.get(member)
        if end is None or end.slot != self.slot or not self.is_open:
            return self._bus.fenced
        if self._bus.lose:
            self._bus.lose -= 1
            return False
        if self._bus.passes(self, end):
            _hand_over(lambda: member in self._bus.members, end.on_control, message)
        return True

    def broadcast(self, message: bytes) -> None:
        if self._bus.fenced:
            for member in [end.member_id for end in self._bus.members.values() if end.slot == self.slot]:
                self.send_control(member, message)

    def send_frame(self, member: bytes, frame: bytes, at: str | None = None) -> None:
        if self._mesh is not None:
            if at is not None:
                self.frames_sent += 1
                self._mesh.send_frame(at, (frame,), 0.0)
            return
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
        if self.is_open:
            self._bus.routers[self.slot].remove(self)
            if self._mesh is not None:
                self._mesh.close()


class MemoryMemberTransport:
    """A member's end of a slot, a `MemberTransport`; made by `MemoryBus.open_slot`.

    From the first control message on of which `is_late` says so, all that the member sends waits for `let_go`.
    """

    malformed = 0
    frames_dropped = 0

    def __init__(
        self,
        bus: MemoryBus,
        slot: int,
        on_control: Callable[[bytes], None],
        on_frame: Callable[[bytes], None] | None,
    ) -> None:
        self._bus = bus
        self.slot = slot
        self.member_id = b"\x01" + secrets.token_bytes(7)
        self.on_control = on_control
        self.on_frame = on_frame
        self.frames_sent = 0
        self.is_late: Callable[[bytes], bool] = lambda _message: False
        self.late: list[bytes] = []

    def let_go(self) -> None:
        """Deliver what waits, in its order, and what follows at once."""
        self.is_late = lambda _message: False
        late, self.late = self.late, []
        for message in late:
            self.send_control(message)

    def send_control(self, message: bytes) -> bool:
        if self.late or self.is_late(message):
            self.late.append(message)
            return True
        routers = self._bus.routers[self.slot]
        for router in routers:
            if self._bus.passes(router, self):
                _hand_over(lambda router=router: router.is_open, router.on_control, self.member_id, message)
        return bool(routers) or self._bus.fenced

    def send_frame(self, parts: tuple[bytes | memoryview, ...], coalescing_delay_s: float) -> None:
        assert not self._bus.fenced, "frames for a router cross the mesh"
        for router in self._bus.routers[self.slot]:
            self.frames_sent += 1
            _hand_over(lambda router=router: router.is_open, router.on_frame, b"".join(parts))

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
        self.sent_to: dict[str, tuple[int, int]] = {}
        self.address = "unix:f-" + base64.b32encode(secrets.token_bytes(5)).decode().lower()
        bus.meshes[self.address] = self

    def figures(self) -> dict[MetricName, float]:
        return {}

    def link_states(self) -> list[LinkState]:
        return [
            LinkState(at, False, at in self._bus.meshes, sent, size, 0, 0, 0, "")
            for at, (sent, size) in self.sent_to.items()
        ]

    def send_frame(self, at: str, parts: tuple[bytes | memoryview, ...], coalescing_delay_s: float) -> None:
        other = self._bus.meshes.get(at)
        if other is not None:
            self.frames_sent += 1
            sent, size = self.sent_to.get(at, (0, 0))
            self.sent_to[at] = sent + 1, size + sum(map(len, parts))
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
