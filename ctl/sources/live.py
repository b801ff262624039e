"""Live sources: a camera of the network or of this machine, with a reconnect after each interruption."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from watchout.common.media.rate import Sampler
from watchout.common.toolbox.retry import backoff_s
from watchout.ctl.environment import Failure
from watchout.ctl.sources.addresses import CameraAddress
from watchout.ctl.sources.decoding import Video, VideoFault, encode, fault_of
from watchout.ctl.sources.pump import Notice, Pictures

#: First and longest pause before a camera is tried again, in seconds.
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MOST_S: Final = 10.0
#: Seconds after which a connection counts as stable: the back-off starts from the beginning.
STEADY_S: Final = 5.0
#: Seconds without data after which a camera is disconnected and tried again.
SILENT_S: Final = 10.0
#: Requests per second to a camera that returns one picture for each, without `--fps`.
STILL_FPS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Camera:
    """How to open a live source with FFmpeg: a network camera (made by `at`) or a local device (made by `open_source`).

    `opened_as` is the URL or path with its secrets, `shown` the text for output without them. `device` is the FFmpeg
    input format of a local device; None: a network address.
    """

    shown: str
    opened_as: str
    host: str | None = None
    scheme: str | None = None
    device: str | None = None

    @classmethod
    def at(cls, address: CameraAddress) -> Camera:
        """Return the camera at a network address."""
        return cls(address.shown, address.opened_as, address.host, address.scheme)


def live(camera: Camera, *, fps: float | None, once: bool, quality: int) -> Pictures:
    """Yield the pictures of a camera without end; with `once` until the first interruption, which raises `Failure`.

    Each interruption is a `Notice` with its reason and the time until the next attempt. A fault that another attempt
    would not change (a wrong password, no video) raises `Failure`, unless there were pictures before: a camera that is
    just starting may report any error.
    """
    sampler, attempt, worked, away = Sampler(fps), 0, False, False
    while True:
        began, taken = time.monotonic(), 0
        fault = VideoFault("the connection ended")
        try:
            with _opened(camera) as container:
                still = _is_still(container)
                for picture in _pictures(container, quality, paced=camera.scheme in ("http", "https")):
                    if away:
                        away = False
                        yield Notice(f"{camera.shown}: reconnected")
                    taken += 1
                    if sampler.take(time.monotonic()):
                        yield picture
            if still and taken == 1:
                worked = True
                time.sleep(max(0.0, 1 / (fps or STILL_FPS) - (time.monotonic() - began)))
                continue
        except VideoFault as error:
            fault = error
        if once or (fault.lasting and not worked and not taken):
            raise Failure(f"{camera.shown} cannot be read: {fault}") from None
        if taken:
            worked = True
            if time.monotonic() - began > STEADY_S:
                attempt = 0
        delay = backoff_s(attempt, first_s=BACKOFF_FIRST_S, most_s=BACKOFF_MOST_S, chance=random.random())
        attempt += 1
        away = True
        yield Notice(f"{camera.shown}: {fault}; trying again in {delay:.1f} s")
        time.sleep(delay)


class _opened:  # noqa: N801 - used as a function
    """Context manager that opens a camera with PyAV and closes it; used by `live`.

    Every failure, inside the block too, is raised as `VideoFault`.
    """

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._container: Any = None

    def __enter__(self) -> Any:
        import av

        camera, began = self._camera, time.monotonic()
        if camera.host is not None:
            _resolve(camera.host)
        options = {"rtsp_transport": "tcp"} if camera.scheme in ("rtsp", "rtsps") else {}
        try:
            self._container = av.open(camera.opened_as, format=camera.device, options=options, timeout=SILENT_S)
        except (av.FFmpegError, OSError, ValueError) as error:
            # A silent RTSP server is reported as "invalid data".
            silent = isinstance(error, av.error.ExitError) or time.monotonic() - began >= SILENT_S
            raise fault_of(error, silent_s=SILENT_S if silent else None) from None
        return self._container

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import av

        self._container.close()
        if isinstance(error, av.FFmpegError | OSError | ValueError):
            raise fault_of(error, silent_s=SILENT_S if isinstance(error, av.error.ExitError) else None) from None


def _resolve(host: str) -> None:
    """Raise `VideoFault` for an unknown host name, which FFmpeg reports only as "Input/output error"."""
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise VideoFault(f"the host name {host} is unknown", lasting=True) from None
        raise VideoFault(f"the host name {host} cannot be resolved now") from None


def _is_still(container: Any) -> bool:
    """Whether the camera returns one picture for each request."""
    name = str(container.format.name)
    return name.endswith("_pipe") or name == "image2"


def _pictures(container: Any, quality: int, *, paced: bool) -> Iterator[bytes]:
    """Yield the pictures of a container as JPEGs; with `paced` no faster than its timestamps."""
    video = Video(container)
    if video.is_mjpeg or not paced:
        yield from video.jpegs(quality)
        return
    # A recording arrives over HTTP as fast as the network allows, and HLS in segments: its timestamps set the pace.
    begun: tuple[float, float] | None = None
    for frame in video.frames():
        if frame.time is not None:
            now = time.monotonic()
            if begun is None or abs(due := begun[0] + frame.time - begun[1] - now) > SILENT_S:
                begun = now, frame.time
            elif due > 0:
                time.sleep(due)
        yield encode(frame, quality)
