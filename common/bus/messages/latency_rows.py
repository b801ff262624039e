"""Rows of the latency ledger and stamps of alerts, as control messages carry them (docs/latency.md). Pure."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from watchout.common.alerts.model import Milliseconds
from watchout.common.bus.messages.fields import Count, Text

#: Numbers in the buckets of a hop: the buckets of `common.latency.histogram`, each with its count, and some more.
MAX_BUCKET_NUMBERS: Final = 1024
#: Hops in a row: those of `common.latency.hops`, and some of a later release.
MAX_HOPS: Final = 32
#: Streams in one `LatencyReport`.
MAX_LATENCY_ROWS: Final = 100

#: A stream id, or nothing.
ROW_ID: Final = r"^[A-Za-z0-9_.:-]{0,128}\Z"

Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class AlertStamps(msgspec.Struct, frozen=True, array_like=True):
    """When an alert and its frame passed the points of their way, in ms since 1970 by the router's clock; part of
    `RaiseAlert` and `AlertNotification`. None: not known, or not on the way of this alert.
    """

    captured: Milliseconds | None = None
    gateway_in: Milliseconds | None = None
    asked: Milliseconds | None = None
    answered: Milliseconds | None = None
    accepted: Milliseconds | None = None


class HopRow(msgspec.Struct, frozen=True, array_like=True):
    """The histogram of one hop (`common.latency.hops`); part of `LatencyRow`.

    `buckets` are numbers of buckets in use, each followed by its count. `sum_ms` is the sum of the durations;
    `negative` of them were negative, because two clocks are apart.
    """

    hop: Count
    sum_ms: Annotated[float, msgspec.Meta(ge=0)]
    negative: Number
    buckets: Annotated[list[Number], msgspec.Meta(max_length=MAX_BUCKET_NUMBERS)]


class BurnRow(msgspec.Struct, frozen=True, array_like=True):
    """What was in time and what was late for one objective, in five minutes and in an hour; part of `LatencyRow`."""

    hop: Count
    objective_ms: Annotated[float, msgspec.Meta(ge=0)]
    short: Number = 0
    short_late: Number = 0
    long: Number = 0
    long_late: Number = 0


class ClockRow(msgspec.Struct, frozen=True, array_like=True):
    """What a camera's gateway knows of the camera's clock; part of `LatencyRow`.

    `offset_ms` is the camera's clock minus the gateway's, within `error_ms`; None: it is not known, and `unknown` says
    why. `drift_ppm` is by how much it runs faster, within `drift_error_ppm`. `steps` counts how often it was set.
    """

    offset_ms: float | None = None
    error_ms: float | None = None
    drift_ppm: float | None = None
    drift_error_ppm: float | None = None
    steps: Number = 0
    unknown: Text = ""


class LatencyRow(msgspec.Struct, frozen=True, array_like=True):
    """The latencies of one stream at one process; part of `LatencyReport`. An empty stream id stands for all together.

    `unknown` is the number of frames and alerts without a known time of capture. `clock` is there at the gateway of the
    camera.
    """

    stream: Annotated[str, msgspec.Meta(pattern=ROW_ID)]
    hops: Annotated[list[HopRow], msgspec.Meta(max_length=MAX_HOPS)]
    burns: Annotated[list[BurnRow], msgspec.Meta(max_length=MAX_HOPS)] = []
    unknown: Number = 0
    clock: ClockRow | None = None
