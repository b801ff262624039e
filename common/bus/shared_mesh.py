"""One part of the frame mesh for all slots of a router process: one socket and one port, however many slots it has."""

from __future__ import annotations

import functools
from typing import Final

from watchout.common import log
from watchout.common.bus.frames import MAX_FRAME_HEAD_BYTES, read_frame_head
from watchout.common.bus.mesh import FrameMesh, LinkState, OnFrame, OpenFrameMesh
from watchout.common.bus.peer_queue import Parts
from watchout.common.bus.slots import slot_of
from watchout.common.errors import BusError
from watchout.common.metric_names import MetricName

_log: Final = log.get("common.bus.shared_mesh")


class SharedMesh:
    """The mesh of one router process; its router's app makes it. Opened with the first slot, closed with the last one.

    Args:
        open_mesh: Opens the part of the mesh.
        slots: How many slots there are.

    """

    def __init__(self, open_mesh: OpenFrameMesh, slots: int) -> None:
        self._open_mesh = open_mesh
        self._slots = slots
        self._mesh: FrameMesh | None = None
        self._shares: list[SlotMesh] = []
        self._malformed = 0

    def of(self, slot: int) -> OpenFrameMesh:
        """Return what opens the mesh for the router of a slot.

        Args:
            slot: The slot, from 0.

        """
        return functools.partial(self._join, slot)

    def _join(self, slot: int, *, on_frame: OnFrame) -> SlotMesh:
        """Raises `StartError` when the mesh cannot be opened."""
        if self._mesh is None:
            self._mesh, self._malformed = self._open_mesh(on_frame=self._on_frame), 0
        share = SlotMesh(self, self._mesh, slot, on_frame)
        self._shares.append(share)
        if self._shares[0] is share:
            share.begin_counting()
        return share

    def leave(self, share: SlotMesh) -> None:
        """Close the part of one slot; called by `SlotMesh.close`.

        Args:
            share: The part.

        """
        was_first = self._shares[0] is share
        self._shares.remove(share)
        if self._shares and was_first:
            self._shares[0].begin_counting()
        elif not self._shares and self._mesh is not None:
            self._mesh.close()
            self._mesh = None

    def counts_for(self, share: SlotMesh) -> bool:
        """Whether this part reports what the whole mesh counts: the one that was opened first.

        Args:
            share: The part.

        """
        return bool(self._shares) and self._shares[0] is share

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form, since the mesh was opened."""
        return self._malformed + (0 if self._mesh is None else self._mesh.malformed)

    def _on_frame(self, data: bytes | memoryview) -> None:
        """Pass a frame to the router of its stream; without one here it is dropped, as by a router that has ended."""
        try:
            slot = slot_of(read_frame_head(bytes(data[:MAX_FRAME_HEAD_BYTES])).stream, self._slots)
        except BusError as error:
            self._malformed += 1
            _log.debug("bad frame from a member", error=str(error))
            return
        for share in list(self._shares):
            if share.slot == slot:
                share.on_frame(data)


class SlotMesh:
    """The mesh as the router of one slot sees it, a `FrameMesh`; made by `SharedMesh`.

    Of all parts the one that was opened first reports the counts of the whole, so that the sums over the slots of a
    process are right.

    Args:
        shared: What it is a part of.
        mesh: The mesh of the process.
        slot: The slot.
        on_frame: Called with each frame of a stream of this slot.

    """

    def __init__(self, shared: SharedMesh, mesh: FrameMesh, slot: int, on_frame: OnFrame) -> None:
        self._shared = shared
        self._mesh = mesh
        self.slot = slot
        self.on_frame = on_frame
        self._is_open = True
        #: What the mesh had counted when this part began to report it: frames sent, dropped, malformed.
        self._began: tuple[int, int, int] = (0, 0, 0)
        self._final: tuple[int, int, int] = (0, 0, 0)

    def begin_counting(self) -> None:
        """Report from now on what the mesh counts."""
        self._began = self._mesh.frames_sent, self._mesh.frames_dropped, self._shared.malformed

    def _counts(self) -> tuple[int, int, int]:
        if not self._is_open or not self._shared.counts_for(self):
            return self._final
        sent, dropped, malformed = self._began
        mesh = self._mesh
        return mesh.frames_sent - sent, mesh.frames_dropped - dropped, self._shared.malformed - malformed

    @property
    def address(self) -> str | None:
        """Where other members send frames to: the same for all slots of the process."""
        return self._mesh.address

    @property
    def frames_sent(self) -> int:
        """Frames handed to the links."""
        return self._counts()[0]

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for a link and not sent."""
        return self._counts()[1]

    @property
    def malformed(self) -> int:
        """Received messages that were dropped because of their form."""
        return self._counts()[2]

    def figures(self) -> dict[MetricName, float]:
        """Return what is told of the links to other hosts."""
        return self._mesh.figures() if self._shared.counts_for(self) else {}

    def link_states(self) -> list[LinkState]:
        """Return the state of each link of the process."""
        return self._mesh.link_states()

    def send_frame(self, at: str, parts: Parts, coalescing_delay_s: float) -> None:
        """Send a frame to one member, or queue it. See `FrameMesh.send_frame`."""
        if self._is_open:
            self._mesh.send_frame(at, parts, coalescing_delay_s)

    def close(self) -> None:
        """Accept no more frames; the last part of a process closes the mesh."""
        if self._is_open:
            self._final, self._is_open = self._counts(), False
            self._shared.leave(self)
