"""A camera in Python, as for a Raspberry Pi: publishes what it sees, at the rate that somebody wants.

The picture comes from picamera2 where that is installed, else from a camera that OpenCV opens, else it is drawn:

    pip install 'watchout[opencv]'
    WATCHOUT_TOKEN=… python camera.py --url ws://gateway:3000 --stream pi-1

Nothing is encoded while nobody watches. On a slow uplink pictures are left out, and those that are sent are new.
Ctrl-C ends it. Each alert of the stream is printed.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

import watchout.client

WIDTH, HEIGHT = 1280, 720


def pictures(source: str, fps: float) -> Iterator[np.ndarray]:
    """Yield pictures (height × width × 3, BGR) of a source, at most `fps` per second."""
    if source in ("auto", "picamera2"):
        try:
            from picamera2 import Picamera2
        except ImportError:
            if source != "auto":
                raise SystemExit("picamera2 is not installed: sudo apt install python3-picamera2") from None
        else:
            yield from of_picamera(Picamera2(), fps)
            return
    if source != "pattern":
        opened = cv2.VideoCapture(0 if source == "auto" else int(source) if source.isdecimal() else source)
        if opened.isOpened():
            yield from of_opencv(opened)
            return
        if source != "auto":
            raise SystemExit(f"the camera {source} cannot be opened")
        print("there is no camera: a pattern is drawn", flush=True)
    yield from pattern(fps)


def of_picamera(camera: Any, fps: float) -> Iterator[np.ndarray]:
    config = camera.create_video_configuration({"size": (WIDTH, HEIGHT), "format": "RGB888"})  # bytes in the order BGR
    camera.configure(config)
    camera.set_controls({"FrameRate": fps})
    camera.start()
    while True:
        yield camera.capture_array()


def of_opencv(camera: cv2.VideoCapture) -> Iterator[np.ndarray]:
    camera.set(cv2.CAP_PROP_FRAME_WIDTH, WIDTH)
    camera.set(cv2.CAP_PROP_FRAME_HEIGHT, HEIGHT)
    while True:
        taken, picture = camera.read()
        if not taken:
            raise SystemExit("the camera gives no more pictures")
        yield picture


def pattern(fps: float) -> Iterator[np.ndarray]:
    """Draw a clock and a bar that moves."""
    number, due = 0, time.monotonic()
    while True:
        picture = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        x = number * 8 % WIDTH
        cv2.rectangle(picture, (x, 0), (min(x + 60, WIDTH), HEIGHT), (60, 160, 60), -1)
        cv2.putText(picture, time.strftime("%H:%M:%S"), (40, 120), cv2.FONT_HERSHEY_SIMPLEX, 3, (255, 255, 255), 4)
        yield picture
        number += 1
        due = max(due + 1 / fps, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def show(event: Any) -> None:
    if isinstance(event, watchout.client.Alert):
        print(f"alert, {event.severity}: {event.message}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="ws://127.0.0.1:3000", help="the gateway")
    parser.add_argument("--token", default=os.environ.get("WATCHOUT_TOKEN"), help="session token, or WATCHOUT_TOKEN")
    parser.add_argument("--stream", help="stream id; the gateway makes one if none is given")
    parser.add_argument("--source", default="auto", help="auto, picamera2, pattern, a number or a file of OpenCV")
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--quality", type=int, default=75, help="JPEG quality, 1 to 100")
    options = parser.parse_args()
    if not options.token:
        raise SystemExit("a session token is needed: --token or WATCHOUT_TOKEN; `watchout-ctl token` prints one")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    info = {"deviceName": platform.node(), "deviceType": "camera_python"}
    with watchout.client.Camera(
        options.stream, url=options.url, token=options.token, info=info, quality=options.quality, on_demand=True,
        on_event=show,
    ) as camera:  # fmt: skip
        print(f"publishing as stream {camera.wait_registered()}", flush=True)
        try:
            for picture in pictures(options.source, options.fps):
                camera.send(picture)
        except KeyboardInterrupt:
            pass
        except watchout.client.WatchoutClientError as error:
            raise SystemExit(f"the camera ends: {error}") from None
        finally:
            print(f"sent {camera.sent} pictures", flush=True)


if __name__ == "__main__":
    main()
