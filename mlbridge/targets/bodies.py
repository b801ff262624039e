"""Frames as the bytes that an ML service receives (docs/protocol.md, "The ML side").

While traces are recorded, each frame of a trace has its ``traceparent`` besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from watchout.common.media.frames import Frame
from watchout.common.tracing import spans, tracer
from watchout.common.tracing.context import TRACEPARENT

_packer: Final = msgspec.msgpack.Encoder()


def json_parts(frame: Frame) -> tuple[bytes, bytes | memoryview, bytes]:
    """Return one frame as a JSON object, its picture in base64: three parts, which in sequence are the object.

    The base64 is that of the publisher where it is usable, and is not copied.

    Raises:
        watchout.common.media.frames.FrameFault: the frame holds no picture.
    """
    # A stream id has no character that JSON would escape.
    trace = traceparent_of(frame)
    end = b',"traceparent":"%b"}' % trace.encode("ascii") if trace else b"}"
    return (
        b'{"streamId":"%b","frame":"' % frame.stream_id.encode("ascii"),
        frame.base64,
        b'","timestamp":%d,"frameId":%d%b' % (frame.timestamp, frame.frame_id, end),
    )


def json_body(frame: Frame) -> bytes:
    """Return `json_parts` as one text. Raises as it does."""
    return b"".join(json_parts(frame))


def json_batch(frames: Sequence[Frame]) -> bytes:
    """Return several frames as JSON: ``{"frames":[…]}``, each as `json_body` has it.

    Raises:
        watchout.common.media.frames.FrameFault: a frame holds no picture.
    """
    return b'{"frames":[' + b",".join(map(json_body, frames)) + b"]}"


def packed_body(frame: Frame) -> bytes:
    """Return one frame as a MessagePack map, its picture as `bin`.

    Raises:
        watchout.common.media.frames.FrameFault: the frame holds no picture.
    """
    return _packer.encode(
        {
            "streamId": frame.stream_id,
            "frame": frame.picture,
            "timestamp": frame.timestamp,
            "frameId": frame.frame_id,
            **trace_headers(frame),
        }
    )


def frame_headers(frame: Frame) -> dict[str, str]:
    """Return the HTTP headers that identify a frame whose body is the picture itself; the time is in ms."""
    return {
        "X-Stream-Id": frame.stream_id,
        "X-Frame-Id": str(frame.frame_id),
        "X-Frame-Time": str(frame.timestamp),
        **trace_headers(frame),
    }


def content_type_line(content_type: str) -> bytes:
    """Return the HTTP header line that names the type of a body."""
    return f"Content-Type: {content_type}\r\n".encode("ascii")


def frame_lines(frame: Frame) -> bytes:
    """Return `frame_headers` and the content type of the picture as HTTP header lines."""
    return (
        b"X-Stream-Id: %b\r\nX-Frame-Id: %d\r\nX-Frame-Time: %d\r\nContent-Type: %b\r\n"
        % (frame.stream_id.encode("ascii"), frame.frame_id, frame.timestamp, frame.codec.content_type.encode("ascii"))
    ) + trace_lines(frame)


def trace_lines(frame: Frame) -> bytes:
    """Return `trace_headers` as an HTTP header line; empty: the request is not recorded."""
    trace = traceparent_of(frame)
    return f"{TRACEPARENT}: {trace}\r\n".encode("ascii") if trace else b""


def traceparent_of(frame: Frame) -> str:
    """Return the ``traceparent`` of the request about a frame (W3C Trace Context); empty: it is not recorded."""
    tracing = tracer.active()
    context = None if tracing is None else spans.ml_context(tracing, frame)
    return "" if context is None else context.traceparent


def trace_headers(frame: Frame) -> dict[str, str]:
    """Return the header or field ``traceparent`` of the request about a frame; empty: it is not recorded."""
    trace = traceparent_of(frame)
    return {TRACEPARENT: trace} if trace else {}


def multipart_batch(frames: Sequence[Frame], boundary: str) -> bytes:
    """Return several pictures as ``multipart/form-data`` (RFC 7578).

    Args:
        frames: the frames. Each becomes a part named ``frames`` with `frame_headers`.
        boundary: separates the parts; must not occur in a picture.

    Raises:
        watchout.common.media.frames.FrameFault: a frame holds no picture.
    """
    parts: list[bytes] = []
    for number, frame in enumerate(frames):
        head = [
            f"--{boundary}",
            f'Content-Disposition: form-data; name="frames"; filename="{number}"',
            f"Content-Type: {frame.codec.content_type}",
            *(f"{name}: {value}" for name, value in frame_headers(frame).items()),
            "",
            "",
        ]
        parts += ["\r\n".join(head).encode("ascii"), frame.picture, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode("ascii"))
    return b"".join(parts)
