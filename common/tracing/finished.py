"""A span that is over, as it waits to be sent. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from watchout.common.tracing.context import TraceContext


@dataclass(frozen=True, slots=True)
class FinishedSpan:
    """A span that is over. Times in ns since the epoch; `fault` says why it failed, empty: it did not."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    start_ns: int
    end_ns: int
    kind: Literal["internal", "server", "client", "producer", "consumer"] = "internal"
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    fault: str = ""


#: Sends spans, and blocks meanwhile; returns why it could not, empty: it could.
Export = Callable[[Sequence[FinishedSpan]], str]
