"""Where `publish` and `ml replay` take pictures from: iterators of encoded JPEGs that may block (`ctl.sources.pump`
runs them).

A paced source says how many pictures a second it has; a live one (a camera) brings them when it has them.
PyAV and Pillow are imported only by the sources that need them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from watchout.common.media.codecs import Codec, sniff
from watchout.ctl.environment import Failure
from watchout.ctl.sources import addresses
from watchout.ctl.sources.addresses import AddressFault
from watchout.ctl.sources.decoding import MEDIA_HINT, Video, VideoFault, encode, fault_of, jpeg
from watchout.ctl.sources.pump import Notice, Pictures

T = TypeVar("T")

FOLDER_FPS: Final = 10.0
SCENE_FPS: Final = 10.0
#: A rate that a container claims and no camera has is not believed.
BELIEVED_FPS: Final = 120.0
UNKNOWN_FPS: Final = 25.0
#: Timestamps of files are rounded, mostly to ms: what is so little late must not repeat one frame and lose the next.
ROUNDING_S: Final = 0.002
#: A hole in a file's timestamps that is longer is cut out.
MAX_HOLE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Source:
    """`pictures` makes the iterator, to be run in a thread; `fps` None: live."""

    name: str
    fps: float | None
    pictures: Callable[[], Pictures]


def open_source(
    text: str, *, fps: float | None = None, loop: bool = False, once: bool = False, quality: int = 75
) -> Source:
    """The source that `text` names. Raises `Failure` when it cannot be used.

    Args:
        text: ``test``, the URL of a camera, a device, a video file, a JPEG or a folder of JPEGs.
        fps: Frames per second, instead of the source's own.
        loop: Begin again when a file or folder ends.
        once: End a live source at its first interruption, instead of connecting again.
        quality: JPEG quality (1 to 95), where pictures are encoded here.
    """
    if not text.strip():
        raise Failure("the source is empty, expected a file, a folder, a camera's address, a device or test")
    if text == "test":
        _need("PIL")
        rate = fps or SCENE_FPS
        return Source("the drawn scene", rate, lambda: _scene(rate, quality))
    if addresses.scheme_of(text) is not None:
        try:
            address = addresses.parse_camera(text)
        except AddressFault as fault:
            raise Failure(f"the source cannot be used: {fault}") from None
        _need("av", "PIL")
        from watchout.ctl.sources.live import Camera, live

        camera = Camera.at(address)
        return Source(camera.shown, None, lambda: live(camera, fps=fps, once=once, quality=quality))
    path = Path(text).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if _is_jpeg(p))
        if not files:
            raise Failure(f"{text} holds no JPEG (*.jpg, *.jpeg)")
        return Source(f"{text} ({len(files)} JPEGs)", fps or FOLDER_FPS, lambda: _files(files, loop))
    if path.is_char_device():
        _need("av", "PIL")
        from watchout.ctl.sources.live import Camera, live

        device = Camera(text, str(path), device="v4l2")
        return Source(text, None, lambda: live(device, fps=fps, once=once, quality=quality))
    if not path.is_file():
        shown = "the source" if "@" in text else text  # an address without its // may hold a password
        raise Failure(f"{shown} is no file, folder or camera here, and no address such as rtsp://… or http://…")
    if _is_jpeg(path):
        return Source(text, fps or FOLDER_FPS, lambda: _files([path], loop))
    _need("av", "PIL")
    rate = fps or _rate_of(path)
    return Source(text, rate, lambda: _video(path, rate, loop, quality))


def _need(*modules: str) -> None:
    if any(importlib.util.find_spec(name) is None for name in modules):
        raise Failure(MEDIA_HINT)


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg") and path.is_file()


def _scene(fps: float, quality: int) -> Pictures:
    from watchout.ctl.sources.scene import Scene

    scene = Scene()
    number = 0
    while True:
        yield jpeg(scene.draw(number / fps, number), quality)
        number += 1


def _files(files: list[Path], loop: bool) -> Pictures:
    told: set[Path] = set()
    while True:
        good = 0
        for path in files:
            fault = ""
            try:
                picture = path.read_bytes()
            except OSError as exc:
                fault = f"{path} cannot be read: {exc.strerror}"
            else:
                if sniff(picture) is not Codec.JPEG:
                    fault = f"{path} is no JPEG"
            if fault:
                if path not in told:
                    told.add(path)
                    yield Notice(f"{fault}; it is passed over", passed_over=1)
                continue
            good += 1
            yield picture
        if not good:
            raise Failure(f"none of {len(files)} files is a JPEG that can be read")
        if not loop:
            return


def _rate_of(path: Path) -> float:
    import av

    try:
        with av.open(str(path)) as container:
            rate = Video(container).rate
    except (av.FFmpegError, OSError, ValueError, VideoFault) as exc:
        raise Failure(f"{path} cannot be played: {fault_of(exc)}") from None
    return rate if 0 < rate <= BELIEVED_FPS else UNKNOWN_FPS


def _video(path: Path, fps: float, loop: bool, quality: int) -> Pictures:
    import av

    told = False
    while True:
        shown: Any = None
        picture = b""
        try:
            with av.open(str(path)) as container:
                video = Video(container)
                for frame in resample(_timed(video.frames()), fps):
                    if frame is not shown:
                        shown, picture = frame, encode(frame, quality)
                    yield picture
        except (av.FFmpegError, OSError, ValueError, VideoFault) as exc:
            raise Failure(f"{path} cannot be decoded to its end: {fault_of(exc)}") from None
        if shown is None:
            raise Failure(f"{path} holds no picture")
        if video.damaged and not told:
            told = True
            yield Notice(f"{path}: {video.damaged} damaged packets were passed over")
        if not loop:
            return


def _timed(frames: Iterable[Any]) -> Iterator[tuple[float, Any]]:
    for number, frame in enumerate(frames):
        yield (number / UNKNOWN_FPS if frame.time is None else frame.time), frame


def resample(frames: Iterable[tuple[float, T]], fps: float) -> Iterator[T]:
    """`fps` frames per second of a recording, at its own speed: left out or repeated as its timestamps ask."""
    interval = 1 / fps
    slack = min(interval / 4, ROUNDING_S)
    start = last_at = 0.0
    ticks = 0
    shown: T | None = None
    for at, frame in frames:
        if shown is None:
            start = at
        elif at - last_at > MAX_HOLE_S:
            start += at - last_at - interval
        while shown is not None and ticks * interval + slack < at - start:
            yield shown
            ticks += 1
        shown, last_at = frame, at
    if shown is not None and ticks * interval <= last_at - start + slack:
        yield shown
