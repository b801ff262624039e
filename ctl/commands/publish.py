"""``watchout-ctl publish``: publishes a file, a folder, a camera or a drawn scene as a stream.

A thread puts pictures in real time into a slot for one frame, where a newer frame replaces an older one; the camera of
`watchout.client` sends from it whenever it has room. The slot outlives reconnects.
"""

from __future__ import annotations

import asyncio
from typing import Final

import click

from watchout.client import Alert, AsyncCamera, FrameTooLarge, Problem
from watchout.common.clock import now_ms
from watchout.common.errors import ErrorCode
from watchout.common.media.codecs import sniff
from watchout.common.media.drop_policy import STANDALONE, AwaitedKeyFrames, FrameKind
from watchout.common.media.rate import RateMeter
from watchout.ctl import environment as env
from watchout.ctl.client import Edge, connected
from watchout.ctl.sources.open import Source, open_source
from watchout.ctl.sources.pump import Pump
from watchout.ctl.terminal import Screen, alert_line, counted, printable, size

#: Seconds between two status lines where they cannot be refreshed.
STATUS_EVERY_S: Final = 10.0
#: Seconds to send the last frame after the source ended, including a reconnect.
FLUSH_S: Final = 5.0
#: Frames that may be under way without an acknowledgement of the gateway.
WINDOW: Final = 2
#: The key of the one slot, for `AwaitedKeyFrames`.
_SLOT: Final = 0


@click.command("publish", short_help="Publish a file, a folder, a camera or a drawn scene.")
@click.argument("source_text", metavar="SOURCE")
@click.option("--stream", "stream_id", type=env.stream_id, metavar="ID", help="Stream id; without it the gateway "
              "assigns one.")  # fmt: skip
@click.option("--fps", type=click.FloatRange(0.01, 240), metavar="N", help="Frames per second; without it the "
              "source's own rate, and 10 for a folder and the drawn scene.")  # fmt: skip
@click.option("--loop", "loop_source", is_flag=True, help="Start again when a file or folder ends.")
@click.option("--once", is_flag=True, help="End when the camera disconnects, instead of reconnecting to it.")
@click.option("--binary", is_flag=True, help="Send binary frames instead of JSON.")
@click.option("--quality", type=click.IntRange(1, 95), default=75, show_default=True, help="JPEG quality, where "
              "pictures are encoded here.")  # fmt: skip
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N frames were sent.")
@env.edge_options
def publish(
    source_text: str,
    stream_id: str | None,
    fps: float | None,
    loop_source: bool,
    once: bool,
    binary: bool,
    quality: int,
    count: int | None,
    url: str | None,
    token: str | None,
    wait_s: float,
    home: str | None,
) -> None:
    """Publish pictures as a camera does, and show the alerts about them.

    SOURCE is a video file, a folder of JPEGs, the address of a camera (rtsp://… or http://…, also MJPEG), a camera
    such as /dev/video0, or the word "test" for a drawn scene. Video, cameras and the scene need:
    pip install 'watchout[media]'

    A camera that disconnects is tried again until it is back, unless --once is given; each attempt is a line on stderr
    with its reason. Damaged files of a folder are ignored.
    """
    environment = env.read_environment(home)
    edge = Edge.chosen(environment, url=url, token=token, wait_s=wait_s)
    source = open_source(source_text, fps=fps, loop=loop_source, once=once, quality=quality)
    env.run(environment.settings, Publisher(edge, source, stream_id=stream_id, binary=binary, count=count).run())


class Publisher:
    """Publishes one source as a stream, across reconnects, until the source ends. The command creates and runs it."""

    def __init__(
        self,
        edge: Edge,
        source: Source,
        *,
        stream_id: str | None = None,
        binary: bool = False,
        count: int | None = None,
    ) -> None:
        self.sent = 0
        self.dropped = 0
        self._sent_bytes = 0
        self._edge = edge
        self._source = source
        self._stream_id = stream_id
        self._binary = binary
        self._count = count
        self._screen = Screen()
        self._rate = RateMeter()
        self._slot: tuple[int, bytes, FrameKind] | None = None
        self._awaited = AwaitedKeyFrames()
        self._last_kind = STANDALONE
        self._filled = asyncio.Event()
        self._registered = asyncio.Event()
        self._ended = self._reported_too_large = False
        self._pump: Pump | None = None
        self._connection = 0

    async def run(self) -> None:
        """Publish until the source ends, or `count` frames were sent. Raises `Failure`."""
        line = asyncio.create_task(self._show_status(), name="status line")
        try:
            async with connected(self._edge, self._screen.note, self._on_problem) as client:
                camera = client.camera(self._stream_id, window=WINDOW, demand=False, binary=self._binary)
                async with camera:
                    await self._publish(camera)
        finally:
            line.cancel()
            await asyncio.wait({line})
            self._summarize()

    async def _publish(self, camera: AsyncCamera) -> None:
        self._stream_id = camera.stream_id
        self._registered.set()
        feeder = asyncio.create_task(self._feed(), name="feeder")
        sender = asyncio.create_task(self._send(camera), name="sender")
        listener = asyncio.create_task(self._listen(camera), name="listener")
        tasks = {feeder, sender, listener}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if feeder.done() and not feeder.cancelled() and feeder.exception() is None:
                await asyncio.wait({sender, listener}, timeout=FLUSH_S, return_when=asyncio.FIRST_COMPLETED)
            for task in (sender, listener, feeder):
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _summarize(self) -> None:
        if not self._registered.is_set():
            return
        if self._slot is not None:
            self.dropped += 1
        self._screen.refresh(self._status(), force=True)
        self._screen.close()
        bad = self._pump.skipped if self._pump else 0
        self._screen.line(
            f"sent {counted(self.sent, 'frame')}, {size(self._sent_bytes)}; dropped {self.dropped}"
            + (f"; {counted(bad, 'file')} skipped" if bad else "")
        )

    async def _feed(self) -> None:
        """Fill the slot in real time; a late source is not made up for."""
        loop = asyncio.get_running_loop()
        interval = 1 / self._source.fps if self._source.fps else 0.0
        pump = self._pump = Pump(self._source.pictures, self._screen.note)
        try:
            due = loop.time()
            while (picture := await pump.get()) is not None:
                now = loop.time()
                if now - due > interval:
                    due = now
                await asyncio.sleep(max(0.0, due - now))  # also 0: the sender takes the last picture before the next
                due += interval
                self._put(picture)
        finally:
            pump.stop()
            self._ended = True
            self._filled.set()

    def _put(self, picture: bytes) -> None:
        """Put a picture into the slot, in place of one that still waits, or drop it when its codec demands that."""
        kind = sniff(picture).kind_of(picture)
        waiting = self._slot
        if waiting is not None:
            self.dropped += 1
        if not self._awaited.admits(_SLOT, None if waiting is None else waiting[2], kind):
            self.dropped += waiting is None
            return
        self._slot = (now_ms(), picture, kind)
        self._filled.set()

    def _begin_connection(self) -> None:
        """Drop what depends on frames that a former connection may have lost."""
        self._awaited.dropped(_SLOT, self._last_kind)
        if self._slot is not None and not self._slot[2].is_key:
            self._slot = None
            self.dropped += 1
            self._filled.clear()

    async def _send(self, camera: AsyncCamera) -> None:
        loop = asyncio.get_running_loop()
        while self._count is None or self.sent < self._count:
            await camera.room()
            if camera.connection != self._connection:
                if self._connection:
                    self._begin_connection()
                self._connection = camera.connection
                self._screen.line(
                    f"publishing {self._source.name} as stream {printable(camera.stream_id)} to {self._edge.url}"
                )
            await self._filled.wait()
            if self._slot is None:
                return
            if not camera.has_room:  # the connection was lost meanwhile: a newer frame may come
                continue
            timestamp, picture, kind = self._slot
            self._slot = None
            if not self._ended:
                self._filled.clear()
            try:
                written = await camera.send(picture, timestamp=timestamp)
            except FrameTooLarge as fault:
                self._too_large(fault.size_bytes)
                self._awaited.dropped(_SLOT, kind)
                continue
            self._last_kind = kind
            if written:
                self.sent += 1
                self._sent_bytes = camera.sent_bytes
                self._rate.add(loop.time())
            else:
                self.dropped += 1

    def _too_large(self, size_bytes: int) -> None:
        """Drop a frame for which the gateway would close the connection; report it once."""
        self.dropped += 1
        if not self._reported_too_large:
            self._reported_too_large = True
            self._screen.note(
                f"a frame of {size(size_bytes)} is over MAX_MESSAGE_BYTES ({size(self._edge.max_message_bytes)}), it "
                "is dropped; use --binary or a lower --quality, or raise the setting"
            )

    async def _listen(self, camera: AsyncCamera) -> None:
        async for event in camera:
            if isinstance(event, Alert):
                self._screen.line(alert_line(dict(event.body)))

    def _on_problem(self, problem: Problem) -> None:
        if problem.code != ErrorCode.STREAM_TAKEN_OVER:  # the close code that follows reports it
            self._screen.note(f"the gateway reports {printable(problem.code)}: {printable(problem.message)}")

    def _status(self) -> str:
        rate = self._rate.rate(asyncio.get_running_loop().time())
        return f"sent {self.sent} · {rate:.1f} fps · {size(self._sent_bytes)} · dropped {self.dropped}"

    async def _show_status(self) -> None:
        while True:
            await asyncio.sleep(0.5 if self._screen.live else STATUS_EVERY_S)
            if not self._registered.is_set():
                continue
            if self._screen.live:
                self._screen.refresh(self._status())
            else:
                self._screen.line(self._status())
