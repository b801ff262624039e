"""The tables of ``watchout-ctl latency``, and its sentences."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from watchout.common.bus.messages import BurnRow, ClockRow, HopRow, LatencyRow
from watchout.common.bus.reply_records import LatencyReply
from watchout.common.latency.histogram import bucket_of
from watchout.common.latency.hops import Hop
from watchout.common.latency.rows import figures_of, milliseconds, page_of
from watchout.ctl.latency.view import render, render_stream


def row(stream: str, *, alert_ms: float, negative: int = 0, clock: ClockRow | None = None) -> LatencyRow:
    hops = [
        HopRow(int(Hop.ML), 200.0, negative, [bucket_of(200.0), 4]),
        HopRow(int(Hop.GLASS_TO_ALERT), alert_ms, 0, [bucket_of(alert_ms), 40]),
    ]
    return LatencyRow(stream, hops, [BurnRow(int(Hop.GLASS_TO_ALERT), 500.0, 40, 1, 400, 2)], 7, clock)


def printed(drawn: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(drawn)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_streams_then_the_slowest_first() -> None:
    reply = LatencyReply(
        total=row("", alert_ms=300.0, negative=3),
        streams=[row("slow", alert_ms=900.0), row("quick\x1b[2J", alert_ms=80.0)],
        more=12,
        clocks_ms=40,
    )
    said = printed(render(page_of(reply), width=100, rows=10))
    assert "glass to alert" in said
    assert "250%" in said, "one of forty is late, one of a hundred may be"
    assert "50%" in said
    assert said.index("slow") < said.index("quick")
    assert "\x1b[2J" not in said, "a stream's name draws nothing"
    assert "and 12 more" in said
    for note in ("7 frames and alerts are in no glass-to", "3 durations were negative", "up to 40 ms apart"):
        assert note in " ".join(said.split())


def test_a_narrow_terminal_keeps_the_p99() -> None:
    said = printed(render(page_of(LatencyReply(total=row("", alert_ms=300.0))), width=40, rows=10), width=40)
    head = said.splitlines()[0]
    assert "p99" in head
    assert "measured" not in head


def test_nothing_is_a_sentence() -> None:
    assert "no camera sends frames" in printed(render(page_of(LatencyReply()), width=80, rows=5))


def test_what_is_known_of_a_cameras_clock_is_a_sentence() -> None:
    def of(clock: ClockRow | None) -> str:
        said = printed(
            render_stream(figures_of(row("cam", alert_ms=9.0, clock=clock)), width=200, host_clocks_ms=0), 200
        )
        return " ".join(said.split())

    assert "the camera's clock is 180s ahead of" not in of(ClockRow(180_000.0, 4.5))
    assert "the camera's clock is 180.0s ahead of the gateway's, within 4.5ms" in of(ClockRow(180_000.0, 4.5))
    full = of(ClockRow(-12.5, 120.0, 35.2, 60.4, 2))
    assert "12.5ms behind the gateway's, within 120ms; it runs +35 ppm, within 60 ppm; it was set 2 times" in full
    assert "not known, so neither is the time of capture: no pong" in of(ClockRow(unknown="no pong"))
    assert "no camera is connected" in of(None)


def test_durations_have_three_digits() -> None:
    assert [milliseconds(each) for each in (None, 0.314, 4.24, 180.4, 12_500.0)] == [
        "–", "0.31ms", "4.2ms", "180ms", "12.5s",
    ]  # fmt: skip
