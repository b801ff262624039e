"""Video through PyAV: frames without the damaged ones, JPEGs as they came from cameras that send them, faults in words.

PyAV and Pillow are imported only when something is decoded.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from typing import Any, Final

#: So many damaged packets in a row are no disturbance any more: what comes is no video.
MAX_DAMAGED: Final = 300
#: Marker of a Huffman table. Motion JPEG of some cameras leaves the tables out, and no browser shows it then.
_HUFFMAN_TABLE: Final = b"\xff\xc4"

MEDIA_HINT: Final = (
    "pictures cannot be decoded or drawn here, install: pip install 'watchout[media]', in a clone "
    "pip install -e '.[media]'"
)


class VideoFault(Exception):
    """A video cannot be had; the text says why, without an address. With `lasting` the next try would end as this."""

    def __init__(self, text: str, *, lasting: bool = False) -> None:
        self.lasting = lasting
        super().__init__(text)


class Video:
    """The video of an open PyAV container. `damaged` counts packets that could not be decoded."""

    def __init__(self, container: Any) -> None:
        if not container.streams.video:
            kinds = sorted({str(stream.type) for stream in container.streams})
            holds = f"only {', '.join(kinds)}" if kinds else "nothing that FFmpeg knows"
            raise VideoFault(f"it holds no video, {holds}", lasting=True)
        self.damaged = self._damaged_in_a_row = 0
        self._container = container
        self._stream = container.streams.video[0]
        self._stream.thread_type = "AUTO"

    @property
    def is_mjpeg(self) -> bool:
        """Whether it comes as JPEGs, one by one, as the camera takes them."""
        return str(self._stream.codec_context.name) == "mjpeg"

    @property
    def rate(self) -> float:
        """Frames per second as the container says, 0 when it says nothing."""
        return float(self._stream.average_rate or self._stream.guessed_rate or 0)

    def frames(self) -> Iterator[Any]:
        """Decoded frames; damaged packets are passed over and counted."""
        for packet in self._container.demux(self._stream):
            yield from self._decoded(packet)

    def jpegs(self, quality: int) -> Iterator[bytes]:
        """Each picture as a JPEG: as it came where it is a whole one, else encoded with `quality` (1 to 95)."""
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
        import av

        try:
            frames: list[Any] = packet.decode()
        except av.error.InvalidDataError:
            self.damaged += 1
            self._damaged_in_a_row += 1
            if self._damaged_in_a_row > MAX_DAMAGED:
                raise VideoFault(f"{MAX_DAMAGED} damaged packets came in a row") from None
            return []
        self._damaged_in_a_row = 0
        return frames


def trimmed(packet: bytes) -> bytes:
    """The JPEG in a packet, empty when there is none.

    Where FFmpeg does not see the parts of a multipart answer, a packet ends with the head of the next part.
    """
    begin, end = packet.find(b"\xff\xd8\xff"), packet.rfind(b"\xff\xd9")
    return packet[begin : end + 2] if 0 <= begin < end else b""


def encode(frame: Any, quality: int) -> bytes:
    """A frame of PyAV as a JPEG of `quality` (1 to 95)."""
    return jpeg(frame.to_image(), quality)


def jpeg(image: Any, quality: int) -> bytes:
    """An image of Pillow as a JPEG of `quality` (1 to 95)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def fault_of(error: Exception, *, silent_s: float | None = None) -> VideoFault:
    """What PyAV or the system raised, as a sentence. `silent_s`: it was given up after so long without a byte."""
    import av.error

    if isinstance(error, VideoFault):
        return error
    if silent_s is not None:
        return VideoFault(f"nothing came for {silent_s:g} s")
    for kind, text, lasting in (
        (av.error.HTTPUnauthorizedError, "user name or password is missing or wrong (401)", True),
        (av.error.HTTPForbiddenError, "it may not be read with this user (403)", True),
        (av.error.HTTPNotFoundError, "there is nothing at this path (404)", True),
        (av.error.ProtocolNotFoundError, "the installed FFmpeg does not speak this protocol", True),
        (av.error.InvalidDataError, "it is no video that FFmpeg can read", True),
        (av.error.EOFError, "it ended before a picture came", False),
    ):
        if isinstance(error, kind):
            return VideoFault(text, lasting=lasting)
    if isinstance(error, OSError) and error.errno == errno.ENOTTY:
        return VideoFault("it is no camera", lasting=True)
    if isinstance(error, OSError) and error.errno == errno.EIO:  # what FFmpeg says of most that ends a connection
        return VideoFault("the connection ended")
    if isinstance(error, av.error.HTTPError | OSError):
        return VideoFault(_sentence(error))
    return VideoFault(f"it cannot be decoded ({_sentence(error)})")


def _sentence(error: Exception) -> str:
    """The system's words without the number and the address."""
    words = str(getattr(error, "strerror", None) or type(error).__name__)
    return words[:1].lower() + words[1:] if words[1:2].islower() else words
