"""Where `publish` takes pictures from: iterators of encoded JPEGs that may block, and the thread that runs one.

A paced source says how many pictures a second it has; a live one (camera, RTSP) brings them when it has them.
PyAV and Pillow are imported only by the sources that need them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import io
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from common.frames import Codec, sniff
from common.pacing import Sampler
from ctl.environment import Failure

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
OPEN_TIMEOUT_S: Final = 10.0
REOPEN_AFTER_S: Final = 2.0
#: Pictures that the thread makes ahead of the loop.
AHEAD: Final = 3

MEDIA_HINT: Final = (
    "pictures cannot be decoded or drawn here, install: pip install 'watchout[media]', in a clone "
    "pip install -e '.[media]'"
)


@dataclass(frozen=True, slots=True)
class Source:
    """`pictures` makes the iterator, to be run in a thread; `fps` None: live."""

    name: str
    fps: float | None
    pictures: Callable[[], Generator[bytes, None, None]]


def open_source(text: str, *, fps: float | None = None, loop: bool = False, quality: int = 75) -> Source:
    """The source that `text` names. Raises `Failure` when it cannot be used."""
    if text == "test":
        _need("PIL")
        rate = fps or SCENE_FPS
        return Source("the drawn scene", rate, lambda: _scene(rate, quality))
    if text.lower().startswith(("rtsp://", "rtsps://")):
        _need("av", "PIL")
        return Source(_without_password(text), None, lambda: _live(text, None, fps, loop, quality))
    path = Path(text).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if _is_jpeg(p))
        if not files:
            raise Failure(f"{text} holds no JPEG (*.jpg, *.jpeg)")
        return Source(f"{text} ({len(files)} JPEGs)", fps or FOLDER_FPS, lambda: _files(files, loop))
    if path.is_char_device():
        _need("av", "PIL")
        return Source(text, None, lambda: _live(str(path), "v4l2", fps, loop, quality))
    if not path.is_file():
        raise Failure(f"{text} is no file, folder or camera here, and no rtsp:// address")
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


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _scene(fps: float, quality: int) -> Generator[bytes, None, None]:
    from ctl.scene import Scene

    scene = Scene()
    number = 0
    while True:
        yield _jpeg(scene.draw(number / fps, number), quality)
        number += 1


def _files(files: list[Path], loop: bool) -> Generator[bytes, None, None]:
    while True:
        for path in files:
            try:
                picture = path.read_bytes()
            except OSError as exc:
                raise Failure(f"{path} cannot be read: {exc.strerror}") from None
            if sniff(picture) is not Codec.JPEG:
                raise Failure(f"{path} is no JPEG")
            yield picture
        if not loop:
            return


def _rate_of(path: Path) -> float:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise Failure(f"{path} holds no video")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 0)
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise Failure(f"{path} is no video that can be read: {exc}") from None
    return rate if 0 < rate <= BELIEVED_FPS else UNKNOWN_FPS


def _video(path: Path, fps: float, loop: bool, quality: int) -> Generator[bytes, None, None]:
    import av

    while True:
        shown: Any = None
        picture = b""
        try:
            with av.open(str(path)) as container:
                container.streams.video[0].thread_type = "AUTO"
                for frame in resample(_timed(container.decode(video=0)), fps):
                    if frame is not shown:
                        shown, picture = frame, _encode(frame, quality)
                    yield picture
        except (av.FFmpegError, OSError, ValueError) as exc:
            raise Failure(f"{path} cannot be decoded: {exc}") from None
        if shown is None:
            raise Failure(f"{path} holds no picture")
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


def _live(
    address: str, format: str | None, fps: float | None, loop: bool, quality: int
) -> Generator[bytes, None, None]:
    import av

    name = _without_password(address) if "://" in address else address
    options = {"rtsp_transport": "tcp"} if format is None else {}
    sampler = Sampler(fps)
    while True:
        try:
            with av.open(address, format=format, options=options, timeout=OPEN_TIMEOUT_S) as container:
                for frame in container.decode(video=0):
                    if sampler.take(time.monotonic()):
                        yield _encode(frame, quality)
        except (av.FFmpegError, OSError, ValueError, IndexError) as exc:
            if not loop:
                reason = getattr(exc, "strerror", None) or type(exc).__name__
                raise Failure(f"{name} cannot be read: {reason}") from None
        if not loop:
            return
        time.sleep(REOPEN_AFTER_S)


def _encode(frame: Any, quality: int) -> bytes:
    return _jpeg(frame.to_image(), quality)


def _jpeg(image: Any, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


class Pump:
    """Runs an iterator in a thread of its own and hands its items to the loop; at most `AHEAD` wait."""

    def __init__(self, make: Callable[[], Generator[bytes, None, None]]) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)  # what bounds the queue
        self._stopped = threading.Event()
        # A daemon, because a camera that hangs cannot be interrupted and must not hold the process.
        self._thread = threading.Thread(target=self._work, name="source", daemon=True)
        self._thread.start()

    async def get(self) -> bytes | None:
        """The next picture, None at the end. Raises what the source raised."""
        item = await self._items.get()
        self._room.release()
        if isinstance(item, Exception):
            raise item
        return item

    def stop(self) -> None:
        """Let the thread end; what waits is thrown away."""
        self._stopped.set()
        self._room.release()

    def _work(self) -> None:
        last: Exception | None = None
        pictures = self._make()
        try:
            for picture in pictures:
                if not self._hand(picture):
                    return
        except Exception as exc:  # told to the loop, which raises it
            last = exc
        finally:
            pictures.close()
        self._hand(last)

    def _hand(self, item: bytes | Exception | None) -> bool:
        self._room.acquire()
        if self._stopped.is_set():
            return False
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:  # the loop is closed
            return False
        return True
