"""Reads a moving picture with OpenCV or PyAV and prints the colour of each: ``video_reader.py opencv|pyav URL``.

A program of its own, because both block, and bring libraries that do not like each other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def opencv(url: str) -> Iterator[Any]:
    import cv2

    # The camera shows its first picture when all readers have come, browsers among them.
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 300_000])
    while True:
        good, picture = capture.read()
        if not good:
            return
        yield picture[20, 20][::-1]


def pyav(url: str) -> Iterator[Any]:
    import av

    with av.open(url) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")[20, 20]


if __name__ == "__main__":
    for colour in {"opencv": opencv, "pyav": pyav}[sys.argv[1]](sys.argv[2]):
        print(*colour, flush=True)
