"""The connections of the load: cameras, viewers, slow viewers and idle clients."""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from typing import Any, Final, Protocol, cast

import msgspec

from benchmarks.clientwire import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Inbox,
    WireFault,
    check_upgraded,
    message,
    upgrade,
)
from benchmarks.load.frames import Corrupt, Messages
from benchmarks.load.model import LoadFault, Plan, Slow
from benchmarks.load.service_alerts import number_of

HOST: Final = "127.0.0.1"
#: Cameras whose socket takes no more than this leave frames out, and say so.
MAX_UNSENT_BYTES: Final = 8 * 1024 * 1024
SLOW_TICK_S: Final = 0.01
IDLE_BUFFER_BYTES: Final = 4096


class RunRecord(Protocol):
    """What a connection knows of its run, and where it reports what it saw. `run.Run` is one.

    Attributes:
        mask: The four bytes with which every client masks its messages.
        begun: When the measured time began, by `time.perf_counter`, in s; infinite before.
        ended: When the measured time ended, in s; infinite before.
        latencies: From the camera's write until a viewer has the whole frame, in s.
        reordered: Frames that came after a newer one of their stream.
    """

    plan: Plan
    mask: bytes
    messages: Messages
    begun: float
    ended: float
    latencies: array[float]
    reordered: int

    def inbox(self, size: int) -> Inbox:
        """Return a buffer of `size` bytes that reads the messages of the plan's dialect."""
        ...

    def corrupted(self, what: str) -> None:
        """Count a frame that is not one that was sent."""
        ...

    def failed(self, why: str) -> None:
        """End the run with `LoadFault`."""
        ...


class Connection(asyncio.BufferedProtocol):
    """One socket of the load: opens, says what it is, and hands on what it is told."""

    def __init__(self, run: RunRecord, what: str, inbox: Inbox) -> None:
        self._run = run
        self._what = what
        self.inbox = inbox
        self.transport: asyncio.Transport
        self._until: bytes | None = None
        self._key: bytes | None = None
        self._awaited: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._failed(f"the server ended the connection ({exc or 'end of file'})")

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self.inbox.space()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._until is not None:
                head = self.inbox.until(self._until, nbytes)
                if head is None:
                    return
                self._until = None
                if self._key is not None:
                    check_upgraded(head, self._key)  # now: whoever refuses closes next
                self._answered(head)
                nbytes = 0
            for opcode, begin, end in self.inbox.filled(nbytes):
                self.message(opcode, begin, end)
        except WireFault as e:
            self._failed(str(e))

    def message(self, opcode: int, begin: int, end: int) -> None:
        """What is not a frame for a viewer."""
        payload = bytes(self.inbox.buffer[begin:end])
        if opcode == PING:
            self.transport.write(message(PONG, payload, self._run.mask))
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big")
            self._failed(f"the server closed with {code} {payload[2:].decode(errors='replace')}".rstrip())
        elif opcode != PONG:
            try:
                said = msgspec.json.decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                said = None
            if not isinstance(said, dict) or said.get("type") == "error":
                self._failed(f"the server said {payload[:300].decode(errors='replace')}")
            elif said.get("type") == "success":
                self._answered(payload)

    def _answered(self, said: bytes) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not awaited.done():
            awaited.set_result(said)

    def _failed(self, why: str) -> None:
        self._run.failed(f"{self._what}: {why}")

    async def ask(self, said: bytes, *, until: bytes | None = None) -> bytes:
        """Write this, and wait for the answer: a success message, or all up to `until`."""
        self._awaited = asyncio.get_running_loop().create_future()
        self._until = until
        self.transport.write(said)
        return await self._awaited

    async def open_websocket(self, path: str) -> None:
        self._key = os.urandom(16)
        await self.ask(upgrade(HOST, path, self._key), until=b"\r\n\r\n")

    async def tell(self, **said: Any) -> None:
        """Send a message of the protocol, and wait for its success."""
        await self.ask(message(TEXT, msgspec.json.encode(said), self._run.mask))

    async def join(self, path: str) -> None:
        """A WebSocket of the dialect `watchout`, authenticated."""
        await self.open_websocket(path)
        if self._run.plan.token is not None:
            await self.tell(type="auth", token=self._run.plan.token)


class Camera(Connection):
    """Publishes one stream."""

    def __init__(self, run: RunRecord, stream: int) -> None:
        super().__init__(run, f"camera {stream}", run.inbox(IDLE_BUFFER_BYTES))
        self.stream = stream
        self.sent_at = array("d")
        self.not_sent = 0

    async def set_up(self) -> None:
        run, stream_id = self._run, self._run.messages.ids[self.stream]
        match run.plan.dialect:
            case "watchout":
                await self.join("/streams/register")
                await self.tell(
                    type="register", clientType="mobile", streamId=stream_id, produces=["video-frame", "alert"]
                )
            case "nchan":
                await self.open_websocket(f"/pub?id={stream_id}")
            case "raw":
                await self.ask(f"P {stream_id}\n".encode(), until=b"ok\n")
        self.transport.set_write_buffer_limits(high=0)  # each frame goes to the kernel in its own turn

    def message(self, opcode: int, begin: int, end: int) -> None:
        if self._run.plan.dialect != "nchan" or opcode not in (TEXT, BINARY):  # it tells publishers how many listen
            super().message(opcode, begin, end)

    def send(self) -> None:
        """Send the next frame, now."""
        n = len(self.sent_at)
        if self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.not_sent += 1
            return
        pieces = self._run.messages.pieces(self.stream, n)
        self.sent_at.append(time.perf_counter())
        self.transport.writelines(pieces)


class Viewer(Connection):
    """Watches one stream, and looks at every byte of it."""

    def __init__(self, run: RunRecord, camera: Camera, size: int) -> None:
        super().__init__(run, f"viewer of {camera.stream}", run.inbox(size))
        self._camera = camera
        self.stream = camera.stream
        self._newest = -1
        self._newest_id = 0
        #: Alerts have no `frameId`.
        self._numbered = run.plan.dialect == "watchout" and run.plan.envelope != "alert"
        self._has_alerts = run.plan.envelope == "alert" or run.plan.alerts_per_s > 0
        #: Number of the newest alert of the ML side.
        self.newest_alert = 0

    async def set_up(self) -> None:
        run, stream_id = self._run, self._run.messages.ids[self._camera.stream]
        match run.plan.dialect:
            case "watchout":
                await self.join("/streams/subscribe")
                await self.tell(
                    type="subscribe",
                    clientType="dashboard",
                    streamId=stream_id,
                    consumes=["video-frame", "alert"] if self._has_alerts else ["video-frame"],
                    format=run.plan.format,
                )
            case "nchan":
                await self.open_websocket(f"/sub?id={stream_id}")
            case "raw":
                await self.ask(f"S {stream_id}\n".encode(), until=b"ok\n")

    def message(self, opcode: int, begin: int, end: int) -> None:
        now = time.perf_counter()
        run, camera = self._run, self._camera
        if run.plan.alerts_per_s and (number := number_of(self.inbox.buffer, begin, end)) is not None:
            if number != self.newest_alert + 1:
                run.failed(f"{self._what}: alert {number} came after alert {self.newest_alert}")
            self.newest_alert = number
            return
        if opcode in (TEXT, BINARY):
            try:
                known = run.messages.known(self.inbox.buffer, begin, end, camera.stream, self._newest + 1)
                if known is not None:
                    n, frame_id = known
                    if n >= len(camera.sent_at):
                        raise Corrupt(f"number {n} was not sent yet")
                    if n <= self._newest or (self._numbered and frame_id <= self._newest_id):
                        run.reordered += 1
                    self._newest, self._newest_id = n, frame_id
                    self.received(camera.sent_at[n], now)
                    return
            except Corrupt as e:
                run.corrupted(f"{self._what}: {e}")
                return
        super().message(opcode, begin, end)

    def received(self, sent_at: float, now: float) -> None:
        if self._run.begun <= sent_at < self._run.ended:
            self._run.latencies.append(now - sent_at)


class SlowViewer(Viewer):
    """Takes so many bytes a second from its socket and no more."""

    def __init__(self, run: RunRecord, camera: Camera, size: int, slow: Slow) -> None:
        super().__init__(run, camera, size)
        self._rate = slow.bytes_per_s
        self._may = 0
        self._throttled = False
        self.ages_s = array("d")

    def get_buffer(self, sizehint: int) -> memoryview:
        space = super().get_buffer(sizehint)
        return space[: self._may] if self._throttled else space

    def buffer_updated(self, nbytes: int) -> None:
        if self._throttled:
            self._may -= nbytes
            if self._may <= 0:
                self.transport.pause_reading()
        super().buffer_updated(nbytes)

    async def read_slowly(self) -> None:
        self._throttled = True
        self.transport.pause_reading()
        before, owed = time.perf_counter(), 0.0
        while True:
            await asyncio.sleep(SLOW_TICK_S)
            now = time.perf_counter()
            # What the server did not have is not saved up.
            owed = min(owed - int(owed) + (now - before) * self._rate, self._rate)
            before = now
            self._may = int(owed)
            if self._may > 0 and not self.transport.is_closing():
                self.transport.resume_reading()

    def received(self, sent_at: float, now: float) -> None:
        if self._run.begun <= now < self._run.ended:
            self.ages_s.append(now - sent_at)


class Idle(Connection):
    """Authenticates and does nothing."""

    def __init__(self, run: RunRecord) -> None:
        super().__init__(run, "idle connection", run.inbox(IDLE_BUFFER_BYTES))

    async def set_up(self) -> None:
        match self._run.plan.dialect:
            case "watchout":
                await self.join("/streams/subscribe")
            case "nchan":
                await self.open_websocket(f"/sub?id={self._run.messages.ids[0]}")
            case "raw":
                raise LoadFault("the floors have no idle connections")
