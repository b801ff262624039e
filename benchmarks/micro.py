"""Micro-benchmarks of the hot pure functions: `python -m benchmarks.micro`.

Each function is measured in turns with a yardstick, so that what the machine does meanwhile is in both: copying the
bytes that the function is about, or, where it touches none, calling an empty function. The times are CPU time of the
thread, so that another process on the core is in neither. What to compare between machines is the ratio.
"""

from __future__ import annotations

import datetime
import gc
import itertools
import os
import platform
import random
import re
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import msgspec
import pybase64
from websockets.speedups import apply_mask
from websockets.version import version as websockets_version

from watchout.common.bus.frames import BusFrame, decode_frame
from watchout.common.media.frames import Frame, decode_text, json_head, parse_binary
from watchout.common.media.rate import Sampler
from watchout.common.settings import Settings
from watchout.gateway import fastpath, wire
from watchout.gateway.client.frame_reader import SCRATCH_BYTES, FrameReader
from watchout.gateway.hub.outbound_queue import OutboundQueue
from watchout.gateway.hub.registry import Hub
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import Owner, StreamState
from watchout.identity import Identity

#: A picture of 33 000 bytes is 44 kB as base64.
PICTURE: Final = b"\xff\xd8\xff\xe0" + random.Random(30).randbytes(32_996)
TOKEN: Final = b'"' + pybase64.b64encode(PICTURE) + b'"'
MESSAGE: Final = b'{"type":"video-frame","streamId":"door","data":%b,"timestamp":1790000000000}' % TOKEN
MASK: Final = b"\x37\xfa\x21\x3d"
MAX_ROUNDS: Final = 1000
ROUNDS: Final = 15
SLICE_S: Final = 0.02
MAX_CALLS: Final = 10_000_000

Call = Callable[[], object]


class Row(msgspec.Struct, frozen=True):
    """One function: median, least and greatest of the rounds. Times in ns per call; `ratio` is to the yardstick."""

    name: str
    yardstick: str
    ns: tuple[float, float, float]
    yardstick_ns: tuple[float, float, float]
    ratio: tuple[float, float, float]


class Micro(msgspec.Struct, frozen=True):
    """What one run of the micro-benchmarks found."""

    machine: dict[str, str | int]
    command: str
    began: str
    rounds: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A function with its arguments, made ready by `make`; `about` are the bytes that its yardstick copies, if any."""

    name: str
    make: Callable[[], Call]
    about: bytes = b""
    #: The yardstick, where it is neither of these: the same function, with a plain frame.
    plain: Callable[[], Call] | None = None

    @property
    def yardstick(self) -> str:
        if self.plain is not None:
            return "the same, a plain frame"
        return f"copy of {len(self.about):,} bytes".replace(",", " ") if self.about else "call of an empty function"

    def make_yardstick(self) -> Call:
        if self.plain is not None:
            return self.plain()
        about = self.about
        return (lambda: bytearray(about)) if about else (lambda: None)


# ── the functions ────────────────────────────────────────────────────────────────────────────────────────────────


def _frame_reader() -> Call:
    # RFC 6455 section 5.2: a final text frame, masked, with a length of 16 bits.
    sent = struct.pack("!BBH", 0x81, 0x80 | 126, len(MESSAGE)) + MASK + apply_mask(MESSAGE, MASK)
    scratch = memoryview(bytearray(SCRATCH_BYTES))
    scratch[: len(sent)] = sent
    reader = FrameReader(scratch, max_bytes=1 << 20, piece_bytes=8192)
    reader.trusted = True
    return lambda: reader.whole(len(sent))


def _masked(message: bytes) -> bytes:
    """A text message of 126 to 65535 bytes as a client sends it."""
    return struct.pack("!BBH", 0x81, 0x80 | 126, len(message)) + MASK + apply_mask(message, MASK)


def _fastpath_take(message: bytes = MESSAGE) -> Call:
    assert fastpath.take is not None
    take, sent = fastpath.take, _masked(message)
    scratch, known = memoryview(sent), (json_head("door"), b"door", 1, 1)
    assert take(scratch, len(sent), 1 << 20, *known) is not None
    return lambda: take(scratch, len(sent), 1 << 20, *known)


#: The same frame with fields that the protocol does not name, and as `json.dumps` of Python writes it.
MORE_FIELDS: Final = b'"width":1280,"height":720,"rotation":90,"deviceId":"phone-7","location":{"lat":52.52,"lon":13.4}'
FIELDS_MESSAGE: Final = b'{"type":"video-frame","streamId":"cam-1",%b,"data":%b,"timestamp":1790000000000,"seq":9}' % (
    MORE_FIELDS, TOKEN,
)  # fmt: skip
PLAIN_MESSAGE: Final = b'{"type":"video-frame","streamId":"cam-1","data":%b,"timestamp":1790000000000}' % TOKEN
SPACED_MESSAGE: Final = b'{"type": "video-frame", "streamId": "cam-1", "data": %b, "timestamp": 1790000000000}' % TOKEN
#: The same as encoders write it that escape slashes (Swift, PHP, org.json), or plus signs (System.Text.Json); with a
#: prefix, and with base64 in lines (Base64.DEFAULT of Android).
SLASHES_MESSAGE: Final = PLAIN_MESSAGE.replace(b"/", rb"\/")
PLUS_MESSAGE: Final = PLAIN_MESSAGE.replace(b"+", rb"\u002B")
PREFIX_MESSAGE: Final = PLAIN_MESSAGE.replace(b'"data":"', b'"data":"data:image/jpeg;base64,')
LINES_MESSAGE: Final = PLAIN_MESSAGE.replace(
    TOKEN, b'"%b"' % b"".join(TOKEN[at : min(at + 76, len(TOKEN) - 1)] + rb"\n" for at in range(1, len(TOKEN) - 1, 76))
)


def _taken(message: bytes) -> Callable[[], Call]:
    """All that a frame costs from the bytes of its socket to one viewer."""

    def make() -> Call:
        assert fastpath.take is not None
        take, sent = fastpath.take, _masked(message)
        hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None)
        publication = hub.publish(
            "cam-1",
            Owner("ann", frozenset()),
            _Viewer(),
            term=1,
            first_frame_id=1,
            producing=True,
            wants_alerts=False,
            now=0.0,
            now_ms=1,
        )
        scratch, moments = memoryview(sent), itertools.count(1)

        def call() -> None:
            moment = next(moments)
            taken = take(
                scratch, len(sent), 1 << 20, publication.json_head, publication.name, publication.next_frame_id, moment
            )
            assert taken is not None
            made, begin, end, timestamp, codec, _, more = taken
            hub.delivery.on_plain_frame(publication, made, begin, end, timestamp, codec, more, moment / 100, moment)

        return call

    return make


def _parse_binary() -> Call:
    sent = _picture_frame().to_binary()
    return lambda: parse_binary(sent)


def _text_frame() -> Frame:
    return Frame("door", 7, 1_790_000_000_000, text=TOKEN)


def _picture_frame() -> Frame:
    return Frame("door", 7, 1_790_000_000_000, picture=PICTURE)


def _to_json() -> Call:
    return _text_frame().to_json


def _to_binary() -> Call:
    return _picture_frame().to_binary


def _message(make: Callable[[], Frame], format: wire.Format) -> Callable[[], Call]:
    # A new frame for each call: a frame keeps what was made of it.
    return lambda: lambda: wire.frame_message(make(), format)


def _message_again() -> Call:
    frame = _text_frame()
    wire.frame_message(frame, "json")
    return lambda: wire.frame_message(frame, "json")


def _nowhere(_: bytes | memoryview) -> None:
    """A transport that takes everything."""


class _Viewer:
    """A viewer with real queue, whose socket takes everything and writes nowhere: after its first frame it flows."""

    __slots__ = ("hub", "queue")

    def __init__(self, hub: Hub | None = None) -> None:
        self.hub = hub
        self.queue = OutboundQueue(
            Settings(), lambda subscription, frame: wire.frame_message(frame, subscription.format)
        )

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        if self.queue.offer_frame(subscription, frame, now):
            wire.frame_message(frame, subscription.format)
            if self.hub is not None:
                self.hub.delivery.start_direct_writes(subscription, _nowhere)

    def send_message(self, message: bytes) -> None:
        self.queue.offer_message(message)

    def send_alert(self, subscription: Subscription, message: bytes) -> None:  # noqa: ARG002 - as a viewer
        self.queue.offer_message(message)

    def send_ping(self, data: bytes) -> None:
        """It answers nothing."""

    def on_permission_lost(self, stream: str) -> None:
        """It is never lost here."""

    def on_taken_over(self, stream: str) -> None:
        """Nobody takes it over here."""


_ANN: Final = Identity("ann", "session", 0.0)


def _subscription(max_fps: float | None = None) -> Subscription:
    return Subscription("door", _ANN, video=True, alerts=True, max_fps=max_fps)


def _outbound_queue(max_fps: float | None) -> Callable[[], Call]:
    def make() -> Call:
        queue, subscription, frame, moments = _Viewer().queue, _subscription(max_fps), _text_frame(), itertools.count(1)

        def call() -> bool:
            moment = next(moments)
            frame.frame_id = moment
            return queue.offer_frame(subscription, frame, moment / 100)

        return call

    return make


def _blocked() -> Call:
    queue, subscription, frame, moments = _Viewer().queue, _subscription(), _text_frame(), itertools.count(1)
    queue.blocked = True

    def call() -> bool:
        frame.frame_id = next(moments)
        return queue.offer_frame(subscription, frame, 0.0)

    return call


def _hub(viewers: int) -> Callable[[], Call]:
    def make() -> Call:
        hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None)
        publication = hub.publish(
            "door", Owner("ann", frozenset()), _Viewer(),
            term=1, first_frame_id=1, producing=True, wants_alerts=False, now=0.0, now_ms=0,
        )  # fmt: skip
        for _ in range(viewers):
            hub.subscribe(_subscription(), _Viewer(hub), StreamState("streaming", Owner("ann", frozenset()), 1), 0.0, 0)
        moments = itertools.count(1)

        def call() -> None:
            moment = next(moments)
            hub.delivery.on_frame(
                publication, text=TOKEN, picture=None, codec=None, timestamp=moment, now=moment / 100, now_ms=moment,
            )  # fmt: skip

        return call

    return make


def _sampler() -> Call:
    sampler, moments = Sampler(15.0), itertools.count(1)
    return lambda: sampler.take(next(moments) / 30)


def _bus_encode() -> Call:
    return BusFrame("door", 1, 7, 1_790_000_000_000, 0, 0, TOKEN).encode


def _bus_decode() -> Call:
    sent = _text_frame().to_bus()
    return lambda: decode_frame(sent)


CASES: Final = (
    Case("apply_mask, 44 kB", lambda: lambda: apply_mask(MESSAGE, MASK), MESSAGE),
    Case("FrameReader.whole, a masked message of 44 kB", _frame_reader, MESSAGE),
    *([Case("fastpath.take, a masked frame of 44 kB", _fastpath_take, MESSAGE)] if fastpath.take is not None else []),
    *(
        [
            Case(
                f"fastpath.take and Delivery.on_plain_frame, {what}",
                _taken(message),
                plain=_taken(PLAIN_MESSAGE),
            )
            for what, message in (
                ("with other fields", FIELDS_MESSAGE),
                ("with spaces", SPACED_MESSAGE),
                ("with a prefix", PREFIX_MESSAGE),
                ("with escaped slashes", SLASHES_MESSAGE),
                ("with escaped plus signs", PLUS_MESSAGE),
                ("in lines", LINES_MESSAGE),
            )
        ]
        if fastpath.take is not None
        else []
    ),
    Case("wire.parse_text, a frame of 44 kB", lambda: lambda: wire.parse_text(MESSAGE), MESSAGE),
    Case("frames.parse_binary, 33 kB", _parse_binary, PICTURE),
    Case("frames.decode_text, 44 kB", lambda: lambda: decode_text(TOKEN), TOKEN),
    Case("Frame.to_json", _to_json, TOKEN),
    Case("Frame.to_binary", _to_binary, PICTURE),
    Case("wire.frame_message, JSON as JSON", _message(_text_frame, "json"), TOKEN),
    Case("wire.frame_message, binary as binary", _message(_picture_frame, "binary"), PICTURE),
    Case("wire.frame_message, JSON as binary", _message(_text_frame, "binary"), PICTURE),
    Case("wire.frame_message, binary as JSON", _message(_picture_frame, "json"), TOKEN),
    Case("wire.frame_message, the second time", _message_again),
    Case("BusFrame.encode", _bus_encode, TOKEN),
    Case("bus.frames.decode_frame", _bus_decode, TOKEN),
    Case("Sampler.take", _sampler),
    Case("OutboundQueue.offer_frame, the socket takes it", _outbound_queue(None)),
    Case("OutboundQueue.offer_frame, with maxFps", _outbound_queue(10.0)),
    Case("OutboundQueue.offer_frame, the socket is full", _blocked),
    Case("Delivery.on_frame, 1 viewer", _hub(1), TOKEN),
    Case("Delivery.on_frame, 50 viewers", _hub(50), TOKEN),
)


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────


def _spin(call: Call, calls: int) -> int:
    """CPU time of so many calls, in ns."""
    turns = itertools.repeat(None, calls)
    began = time.thread_time_ns()
    for _ in turns:
        call()
    return time.thread_time_ns() - began


def _enough(call: Call, slice_ns: int) -> int:
    """How many calls take about `slice_ns`."""
    calls = 1
    while calls < MAX_CALLS:
        took = _spin(call, calls)
        if took * 4 >= slice_ns:
            return max(1, min(MAX_CALLS, calls * slice_ns // max(1, took)))
        calls *= 4
    return MAX_CALLS


def _three(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def measure(case: Case, rounds: int, slice_s: float) -> Row:
    """One function and its yardstick in turns, each for about `slice_s` in every round; who begins changes too."""
    pair = (case.make(), case.make_yardstick())
    calls = [_enough(call, int(slice_s * 1e9)) for call in pair]
    took: tuple[list[float], list[float]] = ([], [])
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                took[which].append(_spin(pair[which], calls[which]) / calls[which])
    finally:
        if was_on:
            gc.enable()
    # A clock that stands still gives 0, and no ratio.
    ratios = [own / max(yard, 1e-3) for own, yard in zip(*took, strict=True)]
    return Row(case.name, case.yardstick, _three(took[0]), _three(took[1]), _three(ratios))


def machine() -> dict[str, str | int]:
    """What the figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "msgspec": msgspec.__version__,
        "pybase64": pybase64.__version__,
        "websockets": websockets_version,
    }


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def run(cases: tuple[Case, ...], rounds: int, slice_s: float, command: str) -> Iterator[Row | Micro]:
    """Each row when it is there, and the whole at the end."""
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    rows = []
    for case in cases:
        row = measure(case, rounds, slice_s)
        rows.append(row)
        yield row
    yield Micro(machine(), command, began, rounds, tuple(rows))


# ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────


def duration(ns: float) -> str:
    """A time in ns or µs, with three digits that count."""
    value, unit = (ns, "ns") if ns < 1000 else (ns / 1000, "µs")
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def line(row: Row) -> str:
    """One row as text."""
    low, high = row.ratio[1], row.ratio[2]
    return f"{row.name:<40} {duration(row.ns[0]):>9}  {row.ratio[0]:>6.2f} × {row.yardstick} ({low:.2f}–{high:.2f})"


def render_markdown(micro: Micro) -> str:
    """The rows as a table for docs/performance.md."""
    lines = [
        f"Command: `{micro.command}`, begun {micro.began}, {micro.rounds} rounds: median, least and greatest.",
        "",
        "| function | per call | of its yardstick | yardstick | |",
        "| --- | ---: | ---: | --- | ---: |",
    ]
    lines += [
        f"| `{row.name.partition(', ')[0]}`{_rest(row.name)} | {duration(row.ns[0])} | {row.ratio[0]:.2f}"
        f" ({row.ratio[1]:.2f}–{row.ratio[2]:.2f}) | {row.yardstick} | {duration(row.yardstick_ns[0])} |"
        for row in micro.rows
    ]
    return "\n".join(lines)


def _rest(name: str) -> str:
    _, comma, rest = name.partition(", ")
    return f"{comma}{rest}"


@click.command()
@click.option("--rounds", type=click.IntRange(1, MAX_ROUNDS), default=ROUNDS, show_default=True)
@click.option("--slice", "slice_s", type=click.FloatRange(1e-4, 10), default=SLICE_S, show_default=True,
              help="Seconds for one function in one round.")  # fmt: skip
@click.option("--only", multiple=True, help="Only functions whose name contains this; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, not text.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write JSON to this file too.")
def main(rounds: int, slice_s: float, only: tuple[str, ...], as_json: bool, out: Path | None) -> None:
    """Measure the hot pure functions against copying bytes and empty calls."""
    chosen = tuple(case for case in CASES if not only or any(part in case.name for part in only))
    if not chosen:
        names = ", ".join(case.name for case in CASES)
        raise click.BadParameter(f"no function is called so; there are: {names}", param_hint="--only")
    command = " ".join(("python -m benchmarks.micro", *(f"--only '{part}'" for part in only)))
    whole: Micro | None = None
    for step in run(chosen, rounds, slice_s, command):
        if isinstance(step, Micro):
            whole = step
        elif not as_json:
            click.echo(line(step))
    assert whole is not None
    encoded = msgspec.json.format(msgspec.json.encode(whole), indent=2)
    if as_json:
        click.echo(encoded)
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(encoded + b"\n")
        except OSError as fault:
            raise click.ClickException(f"{out}: {fault.strerror or fault}") from None


if __name__ == "__main__":
    main()
