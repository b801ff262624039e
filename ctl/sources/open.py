"""Opens the source of `publish` and `ml replay`: an iterator of encoded pictures that may block.

`ctl.sources.pump` runs it in a thread. A paced source has a number of pictures per second; a live one (a camera) yields
them as they arrive. PyAV and Pillow are imported only by the sources that need them.
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

#: Frames per second of a folder and of the drawn scene, without `--fps`.
FOLDER_FPS: Final = 10.0
SCENE_FPS: Final = 10.0
#: Highest plausible rate of a container; `UNKNOWN_FPS` replaces a higher one.
BELIEVED_FPS: Final = 120.0
UNKNOWN_FPS: Final = 25.0
#: Seconds by which a timestamp may be late because it is rounded, mostly to ms, without a frame being repeated for it.
ROUNDING_S: Final = 0.002
#: Longest gap in a file's timestamps, in seconds; a longer one is cut out.
MAX_HOLE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Source:
    """A source of pictures, made by `open_source`.

    Attributes:
        name: for output, without secrets.
        fps: pictures per second; None: live.
        pictures: returns the iterator of pictures, which `Pump` runs in a thread.
    """

    name: str
    fps: float | None
    pictures: Callable[[], Pictures]


def open_source(
    text: str, *, fps: float | None = None, loop: bool = False, once: bool = False, quality: int = 75
) -> Source:
    """Return the source that `text` names. Raises `Failure` if it cannot be used.

    Args:
        text: ``test``, the URL of a camera, a device, a video file, a JPEG or a folder of JPEGs.
        fps: Frames per second, instead of the source's own.
        loop: Start again when a file or folder ends.
        once: End a live source at its first interruption, instead of reconnecting.
        quality: JPEG quality (1 to 95) of pictures that are encoded here.
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
        shown = "the source" if "@" in text else text  # an address without // may hold a password
        raise Failure(f"{shown} is not a file, folder or camera here, and not an address such as rtsp://… or http://…")
    if _is_jpeg(path):
        return Source(text, fps or FOLDER_FPS, lambda: _files([path], loop))
    _need("av", "PIL")
    rate = fps or _rate_of(path)
    return Source(text, rate, lambda: _video(path, rate, loop, quality))


def _need(*modules: str) -> None:
    """Raise `Failure` with the command to install missing packages."""
    if any(importlib.util.find_spec(name) is None for name in modules):
        raise Failure(MEDIA_HINT)


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg") and path.is_file()


def _scene(fps: float, quality: int) -> Pictures:
    """Yield the drawn scene, without end."""
    from watchout.ctl.sources.scene import Scene

    scene = Scene()
    number = 0
    while True:
        yield jpeg(scene.draw(number / fps, number), quality)
        number += 1


def _files(files: list[Path], loop: bool) -> Pictures:
    """Yield JPEG files; a file that cannot be used is a `Notice`, once."""
    reported: set[Path] = set()
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
                    fault = f"{path} is not a JPEG"
            if fault:
                if path not in reported:
                    reported.add(path)
                    yield Notice(f"{fault}; it is skipped", skipped=1)
                continue
            good += 1
            yield picture
        if not good:
            raise Failure(f"none of {len(files)} files is a JPEG that can be read")
        if not loop:
            return


def _rate_of(path: Path) -> float:
    """Return the frame rate of a video file. Raises `Failure` if it cannot be played."""
    import av

    try:
        with av.open(str(path)) as container:
            rate = Video(container).rate
    except (av.FFmpegError, OSError, ValueError, VideoFault) as exc:
        raise Failure(f"{path} cannot be played: {fault_of(exc)}") from None
    return rate if 0 < rate <= BELIEVED_FPS else UNKNOWN_FPS


def _video(path: Path, fps: float, loop: bool, quality: int) -> Pictures:
    """Yield the pictures of a video file at `fps`, as JPEGs."""
    import av

    reported = False
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
            raise Failure(f"{path} has no picture")
        if video.damaged and not reported:
            reported = True
            yield Notice(f"{path}: {video.damaged} damaged packets were skipped")
        if not loop:
            return


def _timed(frames: Iterable[Any]) -> Iterator[tuple[float, Any]]:
    """Yield (time in seconds, frame); a frame without a timestamp gets one at `UNKNOWN_FPS`."""
    for number, frame in enumerate(frames):
        yield (number / UNKNOWN_FPS if frame.time is None else frame.time), frame


def resample(frames: Iterable[tuple[float, T]], fps: float) -> Iterator[T]:
    """Yield `fps` frames per second of a recording at its own speed; frames are dropped or repeated for that."""
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
