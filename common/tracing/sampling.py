"""Which traces are recorded, by the environment variables of OpenTelemetry. Pure.

The decision follows from the trace's id, so all processes with the same settings decide alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_BITS: Final = 64
_RATIOS: Final = {"always_on": 1.0, "always_off": 0.0}


@dataclass(frozen=True, slots=True)
class TraceSampler:
    """Decides which traces are recorded; made by `of`.

    Attributes:
        ratio: Share of the traces, 0 to 1.
        fault: What in the environment could not be used; empty: nothing.
    """

    ratio: float
    fault: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> TraceSampler:
        """Read ``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG``; all traces are recorded without them."""
        name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
        kind = name.removeprefix("parentbased_")
        if kind in _RATIOS:
            return cls(_RATIOS[kind])
        if kind != "traceidratio":
            return cls(1.0, f"OTEL_TRACES_SAMPLER is {name!r}, expected always_on, always_off or traceidratio")
        text = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
        try:
            ratio = float(text)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            return cls(1.0, f"OTEL_TRACES_SAMPLER_ARG is {text!r}, expected a number from 0 to 1")
        return cls(ratio)

    def takes(self, trace_id: int) -> bool:
        """Return whether a trace is recorded, as the sampler ``traceidratio`` of OpenTelemetry's SDKs decides."""
        return trace_id & ((1 << _BITS) - 1) < round(self.ratio * (1 << _BITS))
