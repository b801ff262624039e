"""Acknowledges the frames of a camera that registered with a `window`: the newest, for all up to it."""

from __future__ import annotations

import asyncio
import time

from watchout.gateway import wire
from watchout.gateway.client.client_socket import ClientSocket
from watchout.gateway.latency.camera_clock import AckTimes


class FrameAcks:
    """The acknowledgements of one camera; made by its `ClientHandler` at the first registration with a `window`.

    One message acknowledges all frames that are read in one turn of the loop. Refused frames are acknowledged as well:
    the camera must not wait for them.

    Args:
        socket: The camera's socket, which keeps the newest acknowledgement while the kernel takes no bytes.

    Attributes:
        times: When acknowledgements were sent, for the latency ledger.
        stream: The stream whose frames are acknowledged; None: the camera registered without a window, none are.
    """

    __slots__ = ("_loop", "_newest", "_socket", "stream", "times")

    def __init__(self, socket: ClientSocket) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self.stream: str | None = None
        self.times = AckTimes(0)
        #: Stream, frame id and timestamp of the frame to acknowledge at the end of this turn; None: none.
        self._newest: tuple[str, int, int] | None = None

    def add(self, frame_id: int, timestamp: int) -> None:
        """Acknowledge a frame, at the end of this turn of the loop.

        Args:
            frame_id: Id of the newest frame that was taken in.
            timestamp: The camera's time of this frame, in ms since the epoch.
        """
        if self.stream is None:
            return
        if self._newest is None:
            self._loop.call_soon(self._send)
        self.times.received += 1
        self._newest = self.stream, frame_id, timestamp

    def _send(self) -> None:
        newest, self._newest = self._newest, None
        if newest is not None:
            self._socket.send_ack(wire.ack(*newest, self.times.received))
            self.times.add(time.monotonic() * 1000)
