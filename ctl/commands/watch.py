"""``watchout-ctl watch``: a viewer in the terminal, which shows frames, status and alerts of one stream."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.text import Text

from watchout.client import Alert, Event, Frame, Problem, Status, Subscription
from watchout.common.clock import now_ms
from watchout.common.media.codecs import Codec
from watchout.common.media.frame_ids import frames_between
from watchout.common.media.frames import FrameFault
from watchout.common.media.rate import RateMeter
from watchout.ctl.client import Edge, Message, connected
from watchout.ctl.directory import others_than, viewable
from watchout.ctl.environment import (
    Failure,
    edge_options,
    read_environment,
    run,
    stream_id,
)
from watchout.ctl.terminal import STATUS_STYLES, Screen, alert_line, clock, counted, printable, size

#: Frames that may be under way, and wait here, so that none is dropped between the gateway and this command.
WINDOW: Final = 8

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])\Z")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(value: str) -> int:
    """Parse a time, as a click type: milliseconds since 1970, or how long ago (``10m``)."""
    if value.isascii() and value.isdigit() and int(value) < 2**53:
        return int(value)
    ago = _AGO.match(value)
    if ago is None:
        raise click.BadParameter(f"{value!r} is not a time: 30s, 10m, 2h, 1d (ago), or milliseconds since the epoch")
    return max(0, now_ms() - int(float(ago[1]) * _UNIT_S[ago[2]] * 1000))


@click.command("watch", short_help="Watch a stream in the terminal.")
@click.argument("stream", type=stream_id)
@click.option("--alerts-only", is_flag=True, help="Subscribe to alerts and status only, not to frames.")
@click.option("--save", "folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write each picture to DIR as STREAM-<frameId>.jpg.")  # fmt: skip
@click.option("--binary", is_flag=True, help="Request binary frames instead of JSON.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N frames; alerts with --alerts-only.")
@click.option("--max-fps", type=click.FloatRange(0.01, 1000), metavar="N", help="Request at most N frames per second.")
@click.option("--since", type=moment, metavar="TIME", help="Replay the stored alerts since then: 10m, 2h, or "
              "milliseconds since the epoch.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, frames without their picture.")
@edge_options
def watch(
    stream: str,
    alerts_only: bool,
    folder: Path | None,
    binary: bool,
    count: int | None,
    max_fps: float | None,
    since: int | None,
    as_json: bool,
    url: str | None,
    token: str | None,
    wait_s: float,
    home: str | None,
) -> None:
    """Watch STREAM: show its frames, status and alerts.

    If the stream is not published yet, the command waits for it and lists the existing streams. The latency of a frame
    is the difference of this machine's clock and the publisher's.
    """
    environment = read_environment(home)
    edge = Edge.chosen(environment, url=url, token=token, wait_s=wait_s)
    viewer = StreamViewer(
        edge,
        stream,
        alerts_only=alerts_only,
        binary=binary,
        max_fps=max_fps,
        folder=folder,
        count=count,
        since=since,
        as_json=as_json,
    )
    run(environment.settings, viewer.run())


class StreamViewer:
    """A viewer of one stream, across reconnects, until `count` is reached. The command creates and runs it.

    Attributes:
        frames: number of received frames.
        alerts: number of received alerts.
        dropped: frames that the gateway dropped for this viewer, by the gaps in their ids.
    """

    def __init__(
        self,
        edge: Edge,
        stream: str,
        *,
        alerts_only: bool = False,
        binary: bool = False,
        max_fps: float | None = None,
        folder: Path | None = None,
        count: int | None = None,
        since: int | None = None,
        as_json: bool = False,
    ) -> None:
        self.frames = 0
        self.alerts = 0
        self.dropped = 0
        self._edge = edge
        self._stream = stream
        self._alerts_only = alerts_only
        self._binary = binary
        self._max_fps = max_fps
        self._folder = folder
        self._count = count
        self._since = since
        self._as_json = as_json
        self._screen = Screen()
        self._rate = RateMeter()
        self._last_id: int | None = None
        self._subscribed = False
        self._connection = 0
        self._listed_others = False

    async def run(self) -> None:
        """Watch until `count` is reached. Raises `Failure`."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        try:
            async with connected(self._edge, self._screen.note, self._on_problem) as client:
                wanted = client.subscribe(
                    self._stream,
                    frames=not self._alerts_only,
                    binary=self._binary,
                    max_fps=self._max_fps,
                    window=WINDOW,
                    frames_waiting=WINDOW,
                    alerts_since=self._since,
                )
                async with wanted as events:
                    await self._watch(events)
        finally:
            self._screen.close()
            if self._subscribed and not self._as_json:
                frames = "" if self._alerts_only else f"{counted(self.frames, 'frame')}, {self.dropped} dropped; "
                self._screen.line(f"received {frames}{counted(self.alerts, 'alert')}")

    async def _watch(self, events: Subscription) -> None:
        self._subscribed = True
        self._begin_connection(events)
        while not self._done():
            event = await anext(events)
            self._begin_connection(events)
            await self._on_event(event)

    async def _on_event(self, event: Event) -> None:
        match event:
            case Frame():
                self._on_frame(event)
            case Alert():
                self._on_alert(dict(event.body))
            case Status():
                self._on_status(dict(event.body))
                if event.status == "offline" and not self._listed_others:
                    self._listed_others = True
                    await self._list_others()

    def _begin_connection(self, events: Subscription) -> None:
        if events.connection != self._connection:
            self._connection = events.connection
            if not self._as_json:
                self._screen.line(f"watching stream {self._stream} at {self._edge.url}")

    def _on_problem(self, problem: Problem) -> None:
        self._screen.note(f"the gateway reports {printable(problem.code)}: {printable(problem.message)}")

    def _done(self) -> bool:
        return self._count is not None and (self.alerts if self._alerts_only else self.frames) >= self._count

    async def _list_others(self) -> None:
        """Report that the stream is not published, and list the others: the id may be mistyped."""
        existing = await viewable(self._edge.url, self._edge.token())
        if existing is not None and self._stream not in existing:
            self._screen.note(
                f"{self._stream} is not published yet, waiting for it; {others_than(self._stream, existing)}"
            )

    def _on_frame(self, frame: Frame) -> None:
        if frame.frame_id == self._last_id:
            return
        gap = 0 if self._last_id is None else frames_between(self._last_id, frame.frame_id)
        self._last_id = frame.frame_id
        self.frames += 1
        self.dropped += gap
        self._rate.add(time.monotonic())
        latency_ms = now_ms() - frame.timestamp
        try:
            picture, codec = frame.picture, frame.codec
        except FrameFault as fault:
            picture, codec = b"", Codec.OPAQUE
            self._screen.note(f"frame {frame.frame_id}: {printable(fault)}")
        saved = self._save(frame.frame_id, picture, codec) if picture else None
        if self._as_json:
            body = {
                "type": "video-frame",
                "streamId": frame.stream_id,
                "frameId": frame.frame_id,
                "timestamp": frame.timestamp,
                "bytes": len(picture),
                "contentType": codec.content_type,
                "latencyMs": latency_ms,
                "missed": gap,
            }
            click.echo(msgspec.json.encode(body | ({"file": str(saved)} if saved else {})))
            return
        text = (
            f"frame {frame.frame_id} · {size(len(picture))} · {latency_ms} ms · "
            f"{self._rate.rate(time.monotonic()):.1f} fps"
        )
        if self._screen.live:
            self._screen.refresh(f"{text} · {self.frames} received · {self.dropped} dropped")
        else:
            self._screen.line(f"{text}{f' · {gap} dropped' if gap else ''}")

    def _save(self, frame_id: int, picture: bytes, codec: Codec) -> Path | None:
        if self._folder is None:
            return None
        path = self._folder / f"{safe_name(self._stream)}-{frame_id}.{codec.extension}"
        try:
            path.write_bytes(picture)
        except OSError as exc:
            raise Failure(f"{path} cannot be written: {exc.strerror}") from None
        return path

    def _on_alert(self, alert: Message) -> None:
        self.alerts += 1
        if self._as_json:
            click.echo(msgspec.json.encode(alert))
        else:
            self._screen.line(alert_line(alert))

    def _on_status(self, status: Message) -> None:
        if self._as_json:
            click.echo(msgspec.json.encode(status))
            return
        state = printable(status.get("status", "?"))
        line = Text(f"{clock(status.get('timestamp'))} {self._stream} is ")
        line.append(state, STATUS_STYLES.get(state, "bold"))
        self._screen.line(line)


def safe_name(stream_id: str) -> str:
    """Return a stream id as the beginning of a file name, without `:` and leading dot; different ids stay different."""
    name = stream_id.replace(":", "_")
    if name.startswith("."):
        name = "_" + name[1:]
    if name == stream_id:
        return name
    return f"{name}.{hashlib.sha256(stream_id.encode()).hexdigest()[:8]}"
