"""Adds the rows of several processes, and reads from them what is shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from watchout.common.bus.messages import BurnRow, ClockRow, HopRow, LatencyRow
from watchout.common.bus.reply_records import LatencyReply
from watchout.common.latency.histogram import Histogram
from watchout.common.latency.hops import HOP_NUMBERS, Hop
from watchout.common.latency.objectives import Burn


def histogram_of(row: HopRow) -> Histogram:
    """Return the histogram that crossed the bus as a row."""
    return Histogram.of_pairs(row.buckets, sum_ms=row.sum_ms, negative=row.negative)


def histograms_of(rows: Iterable[HopRow]) -> dict[Hop, Histogram]:
    """Return histograms by hop, those of one hop added; hops of a later release are left out."""
    found: dict[Hop, Histogram] = {}
    for row in rows:
        if row.hop in HOP_NUMBERS:
            found.setdefault(Hop(row.hop), Histogram()).merge(histogram_of(row))
    return dict(sorted(found.items()))


def merge_hops(rows: Iterable[HopRow]) -> list[HopRow]:
    """Add histograms of the same hop."""
    return [
        HopRow(int(hop), round(found.sum_ms, 3), found.negative, found.pairs())
        for hop, found in histograms_of(rows).items()
    ]


def merge_rows(rows: Sequence[LatencyRow]) -> LatencyRow:
    """Add what several processes measured of one stream, or of all together.

    Args:
        rows: of the same stream; at least one. The first with a known clock says what that is, and of objectives that
            differ the strictest is shown.
    """
    if len(rows) == 1:
        return rows[0]
    burns: dict[int, BurnRow] = {}
    for burn in (burn for row in rows for burn in row.burns):
        known = burns.get(burn.hop)
        burns[burn.hop] = burn if known is None else BurnRow(
            burn.hop, min(known.objective_ms, burn.objective_ms), known.short + burn.short,
            known.short_late + burn.short_late, known.long + burn.long, known.long_late + burn.long_late,
        )  # fmt: skip
    clocks = [row.clock for row in rows if row.clock is not None]
    return LatencyRow(
        rows[0].stream,
        merge_hops(hop for row in rows for hop in row.hops),
        [burns[hop] for hop in sorted(burns)],
        sum(row.unknown for row in rows),
        next((clock for clock in clocks if clock.offset_ms is not None), clocks[0] if clocks else None),
    )


def merge_replies(replies: Sequence[LatencyReply], limit: int) -> LatencyReply:
    """Merge the replies of the routers of several slots. A stream is of one slot; all together are told to one router.

    Args:
        replies: one for each slot that answered.
        limit: most streams.
    """
    if len(replies) == 1:
        return replies[0]
    totals = [reply.total for reply in replies if reply.total is not None]
    by_stream: dict[str, list[LatencyRow]] = {}
    for row in (row for reply in replies for row in reply.streams):
        by_stream.setdefault(row.stream, []).append(row)
    rows = latest_first([merge_rows(each) for each in by_stream.values()])
    return LatencyReply(
        total=merge_rows(totals) if totals else None,
        streams=rows[:limit],
        more=sum(reply.more for reply in replies) + max(0, len(rows) - limit),
        clocks_ms=max((reply.clocks_ms for reply in replies), default=0),
    )


def latest_first(rows: Iterable[LatencyRow]) -> list[LatencyRow]:
    """Return rows, those with the slowest alerts first, after these those with the slowest frames."""

    def key(row: LatencyRow) -> tuple[float, float, str]:
        found = histograms_of(hop for hop in row.hops if hop.hop in (Hop.GLASS_TO_ALERT, Hop.GLASS_TO_GLASS))
        alert, glass = found.get(Hop.GLASS_TO_ALERT), found.get(Hop.GLASS_TO_GLASS)
        slowest = (alert and alert.quantile_ms(0.99)) or 0.0, (glass and glass.quantile_ms(0.99)) or 0.0
        return -slowest[0], -slowest[1], row.stream

    return sorted(rows, key=key)


class HopFigures(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One hop in the JSON of ``watchout-ctl latency --json`` and ``GET /latency``, with its `name` for people."""

    hop: str
    name: str
    count: int
    p50_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    negative: int


class BurnFigures(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One objective in the JSON: `burn` is the share of the error budget that is used, None: there was nothing."""

    hop: str
    name: str
    objective_ms: float
    burn5m: float | None
    burn1h: float | None
    count1h: int
    late1h: int


class ClockFigures(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is known of a camera's clock, as in `ClockRow`; `offset_ms` is the camera's clock minus the gateway's.

    `says` is all of it as a sentence.
    """

    offset_ms: float | None
    error_ms: float | None
    drift_ppm: float | None
    drift_error_ppm: float | None
    steps: int
    unknown: str
    says: str


class StreamFigures(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One stream in the JSON, or all together, whose `stream_id` is None.

    `unknown` is the number of frames and alerts without a known time of capture: they are in no whole way.
    """

    stream_id: str | None
    hops: list[HopFigures]
    objectives: list[BurnFigures]
    unknown: int
    clock: ClockFigures | None


class LatencyPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The JSON of ``watchout-ctl latency --json`` and of ``GET /latency``.

    `total` is all streams together, None when nothing was measured. `more` streams are not among `streams`.
    `host_clocks_ms` is how far the clock of a host was seen from that of a router: durations between hosts may be wrong
    by up to twice as much.
    """

    total: StreamFigures | None
    streams: list[StreamFigures]
    more: int
    host_clocks_ms: int


def page_of(reply: LatencyReply) -> LatencyPage:
    """Return what is shown of a reply."""
    return LatencyPage(
        total=None if reply.total is None else figures_of(reply.total),
        streams=[figures_of(row) for row in reply.streams],
        more=reply.more,
        host_clocks_ms=reply.clocks_ms,
    )


def nothing_of(stream: str) -> StreamFigures:
    """Return what is shown of a stream of which nothing was measured."""
    return StreamFigures(stream_id=stream, hops=[], objectives=[], unknown=0, clock=None)


def figures_of(row: LatencyRow) -> StreamFigures:
    """Return what is shown of a row."""
    hops = [
        HopFigures(
            hop=hop.word, name=hop.says, count=found.count, p50_ms=_rounded(found.quantile_ms(0.5)),
            p99_ms=_rounded(found.quantile_ms(0.99)), mean_ms=_rounded(found.mean_ms), negative=found.negative,
        )
        for hop, found in histograms_of(row.hops).items()
    ]  # fmt: skip
    burns = [
        BurnFigures(
            hop=Hop(burn.hop).word, name=Hop(burn.hop).says, objective_ms=burn.objective_ms,
            burn5m=_rounded(Burn(burn.short, burn.short_late).share),
            burn1h=_rounded(Burn(burn.long, burn.long_late).share), count1h=burn.long, late1h=burn.long_late,
        )
        for burn in row.burns
        if burn.hop in HOP_NUMBERS
    ]  # fmt: skip
    clock = (
        None if row.clock is None else ClockFigures(**msgspec.structs.asdict(row.clock), says=clock_sentence(row.clock))
    )
    return StreamFigures(stream_id=row.stream or None, hops=hops, objectives=burns, unknown=row.unknown, clock=clock)


def milliseconds(value: float | None) -> str:
    """Show a duration in ms with three digits: 0.31ms, 4.2ms, 180ms, 12.5s."""
    if value is None:
        return "–"
    if value >= 10_000:
        return f"{value / 1000:.1f}s"
    return f"{value:.0f}ms" if value >= 100 else f"{value:.1f}ms" if value >= 1 else f"{value:.2f}ms"


def clock_sentence(clock: ClockRow) -> str:
    """Say what is known of a camera's clock."""
    if clock.offset_ms is None or clock.error_ms is None:
        return f"the camera's clock is not known, so neither is the time of capture: {clock.unknown}"
    ahead = "ahead of" if clock.offset_ms >= 0 else "behind"
    apart, error = milliseconds(abs(clock.offset_ms)), milliseconds(clock.error_ms)
    sentence = f"the camera's clock is {apart} {ahead} the gateway's, within {error}"
    if clock.drift_ppm is not None and clock.drift_error_ppm is not None:
        sentence += f"; it runs {clock.drift_ppm:+.0f} ppm, within {clock.drift_error_ppm:.0f} ppm"
    if clock.steps:
        sentence += f"; it was set {clock.steps} times"
    return sentence


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
