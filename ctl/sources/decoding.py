"""Decodes video with PyAV: frames without damaged ones, JPEGs unchanged from MJPEG cameras, failures as sentences.

PyAV and Pillow are imported only when something is decoded.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from typing import Any, Final

#: Damaged packets in a row after which the data is no video.
MAX_DAMAGED: Final = 300
#: Marker of a Huffman table. Some MJPEG cameras omit the tables, and browsers do not show such a JPEG.
_HUFFMAN_TABLE: Final = b"\xff\xc4"

MEDIA_HINT: Final = (
    "decoding and drawing pictures needs more packages, install: pip install 'watchout[media]', in a clone "
    "pip install -e '.[media]'"
)


class VideoFault(Exception):
    """A video that cannot be opened or decoded; the text says why, without an address. Raised by `Video` and
    `fault_of`.

    The source of a camera connects again, unless `lasting`: another attempt would fail the same way. The source of a
    file ends the command with a `Failure`.
    """

    def __init__(self, text: str, *, lasting: bool = False) -> None:
        self.lasting = lasting
        super().__init__(text)


class Video:
    """Decodes the first video stream of an open PyAV container. Made by the sources of files and cameras.

    `damaged` counts packets that could not be decoded. Raises `VideoFault` if the container has no video.
    """

    def __init__(self, container: Any) -> None:
        if not container.streams.video:
            kinds = sorted({str(stream.type) for stream in container.streams})
            holds = f"only {', '.join(kinds)}" if kinds else "nothing that FFmpeg knows"
            raise VideoFault(f"it has no video, {holds}", lasting=True)
        self.damaged = self._damaged_in_a_row = 0
        self._container = container
        self._stream = container.streams.video[0]
        self._stream.thread_type = "AUTO"

    @property
    def is_mjpeg(self) -> bool:
        """Whether it is Motion JPEG: each packet is a picture."""
        return str(self._stream.codec_context.name) == "mjpeg"

    @property
    def rate(self) -> float:
        """Frames per second by the container, 0 if it has no rate."""
        return float(self._stream.average_rate or self._stream.guessed_rate or 0)

    def frames(self) -> Iterator[Any]:
        """Yield the decoded frames; damaged packets are skipped and counted."""
        for packet in self._container.demux(self._stream):
            yield from self._decoded(packet)

    def jpegs(self, quality: int) -> Iterator[bytes]:
        """Yield each picture as a JPEG: unchanged if it is a complete one, else encoded with `quality` (1 to 95)."""
        if not self.is_mjpeg:
            for frame in self.frames():
                yield encode(frame, quality)
            return
        for packet in self._container.demux(self._stream):
            picture = trimmed(bytes(packet))
            if _HUFFMAN_TABLE in picture[:4096]:
                yield picture
            elif not picture:
                continue
            else:
                for frame in self._decoded(packet):
                    yield encode(frame, quality)

    def _decoded(self, packet: Any) -> list[Any]:
        """Return the frames of a packet, none for a damaged one. Raises `VideoFault` after `MAX_DAMAGED` in a row."""
        import av

        try:
            frames: list[Any] = packet.decode()
        except av.error.InvalidDataError:
            self.damaged += 1
            self._damaged_in_a_row += 1
            if self._damaged_in_a_row > MAX_DAMAGED:
                raise VideoFault(f"{MAX_DAMAGED} damaged packets in a row") from None
            return []
        self._damaged_in_a_row = 0
        return frames


def trimmed(packet: bytes) -> bytes:
    """Return the JPEG in a packet, empty if there is none.

    If FFmpeg does not recognise the parts of a multipart response, a packet ends with the head of the next part.
    """
    begin, end = packet.find(b"\xff\xd8\xff"), packet.rfind(b"\xff\xd9")
    return packet[begin : end + 2] if 0 <= begin < end else b""


def encode(frame: Any, quality: int) -> bytes:
    """Return a frame of PyAV as a JPEG of `quality` (1 to 95)."""
    return jpeg(frame.to_image(), quality)


def jpeg(image: Any, quality: int) -> bytes:
    """Return an image of Pillow as a JPEG of `quality` (1 to 95)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def fault_of(error: Exception, *, silent_s: float | None = None) -> VideoFault:
    """Return the fault for an exception of PyAV or the system.

    `silent_s`: it was raised after that many seconds without a byte.
    """
    import av.error

    if isinstance(error, VideoFault):
        return error
    if silent_s is not None:
        return VideoFault(f"no data for {silent_s:g} s")
    for kind, text, lasting in (
        (av.error.HTTPUnauthorizedError, "user name or password is missing or wrong (401)", True),
        (av.error.HTTPForbiddenError, "it may not be read with this user (403)", True),
        (av.error.HTTPNotFoundError, "the path does not exist (404)", True),
        (av.error.ProtocolNotFoundError, "the installed FFmpeg does not support this protocol", True),
        (av.error.InvalidDataError, "it is not a video that FFmpeg can read", True),
        (av.error.EOFError, "it ended before the first picture", False),
    ):
        if isinstance(error, kind):
            return VideoFault(text, lasting=lasting)
    if isinstance(error, OSError) and error.errno == errno.ENOTTY:
        return VideoFault("it is not a camera", lasting=True)
    if isinstance(error, OSError) and error.errno == errno.EIO:  # FFmpeg's error for most ends of a connection
        return VideoFault("the connection ended")
    if isinstance(error, av.error.HTTPError | OSError):
        return VideoFault(_sentence(error))
    return VideoFault(f"it cannot be decoded ({_sentence(error)})")


def _sentence(error: Exception) -> str:
    """Return the system's text for an error, without its number and address."""
    words = str(getattr(error, "strerror", None) or type(error).__name__)
    return words[:1].lower() + words[1:] if words[1:2].islower() else words
