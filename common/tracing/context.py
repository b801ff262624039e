"""Ids of traces and spans, and the header ``traceparent`` that carries them. Pure.

The ids of a frame follow from its stream, term and number, those of an alert's spans from its trace and id. So every
process knows them without being told, and no message of the bus carries them: an alert has its context in its JSON.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

#: The field of an alert and of a result, and the header, that hold a context (W3C Trace Context).
TRACEPARENT: Final = "traceparent"

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MAX_CHARACTERS: Final = 512


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of a trace, as others refer to it. Made by `frame_context`, `child` and `parse`."""

    trace_id: int
    span_id: int
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        """The context as the value of the header ``traceparent``."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    def child(self, name: str, key: str = "") -> TraceContext:
        """Return the span of this name below this one; `key` tells several of one name apart."""
        return TraceContext(self.trace_id, _span_id(f"{self.trace_id:x}/{self.span_id:x}/{name}/{key}"), self.sampled)


def frame_trace(stream: str, term: int, frame_id: int) -> int:
    """Return the id of the trace of a frame, sampled or not: `TraceSampler` decides."""
    name = f"{stream}/{term}/{frame_id}"
    digest = hashlib.blake2b(name.encode(), digest_size=16, person=b"watchout-trace").digest()
    return int.from_bytes(digest, "big") or 1


def frame_context(stream: str, term: int, frame_id: int) -> TraceContext:
    """Return the span with which the trace of a frame begins."""
    trace_id = frame_trace(stream, term, frame_id)
    return TraceContext(trace_id, _span_id(f"{trace_id:x}"))


def parse(value: object) -> TraceContext | None:
    """Return the context of a ``traceparent``; None: it is none. Fields of later versions are ignored."""
    if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
        return None
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & 1))


def _span_id(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"watchout-span").digest()
    return int.from_bytes(digest, "big") or 1
