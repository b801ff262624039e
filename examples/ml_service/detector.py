"""Finds motion against a still background: the part to replace with your model.

One `Detector` a stream. `look` gets the decoded picture (height × width × 3, BGR) and gives an alert, or None.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

WIDTH = 320  # pictures are made this wide before they are looked at
LEAST_SHARE = 0.004  # of the picture that must move; below it is noise
LIGHT_SHARE = 0.6  # when more than this changes at once, it is the light or the camera
LIGHT_STEP = 60  # so is a change of most of the picture by so many of 255 levels: too much to be fitted
COOLDOWN_S = 5.0  # between two alerts of a stream


class Detector:
    """Finds motion against a still background in one stream. A second frame must confirm the first one."""

    def __init__(self) -> None:
        self.seen_at = 0.0
        self._alerted_at = float("-inf")
        self._frames = self._moving = 0
        self._shape: tuple[int, ...] = ()

    def look(self, picture: np.ndarray, now: float) -> dict[str, Any] | None:
        """Return an alert, or None. `now` is the time of the frame in seconds, also for recorded footage."""
        self.seen_at = now
        height = max(1, round(picture.shape[0] * WIDTH / picture.shape[1]))
        small = cv2.resize(picture, (WIDTH, min(height, 4 * WIDTH)), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (5, 5), 0)
        if small.shape != self._shape:  # the first frame, or the phone was turned
            self._shape, self._frames, self._moving = small.shape, 0, 0
            self._background = cv2.createBackgroundSubtractorMOG2(history=60, varThreshold=25, detectShadows=False)
            self._background.setNMixtures(3)
        new_light = False
        if self._frames:
            background = self._background.getBackgroundImage()
            new_light = float(np.median(cv2.absdiff(small, background))) > LIGHT_STEP
            small = small if new_light else same_light(small, background)
        moved = cv2.morphologyEx(self._background.apply(small), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        moved = cv2.morphologyEx(moved, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
        self._frames += 1
        if self._frames == 1:
            return None
        if new_light or np.count_nonzero(moved) > LIGHT_SHARE * moved.size:
            self._background.apply(small, None, 1.0)  # begin anew with this picture
            self._moving = 0
            return None
        _, _, boxes, centres = cv2.connectedComponentsWithStats(moved)
        biggest = 1 + int(np.argmax(boxes[1:, cv2.CC_STAT_AREA])) if len(boxes) > 1 else 0
        share = float(boxes[biggest, cv2.CC_STAT_AREA]) / moved.size if biggest else 0.0
        self._moving = self._moving + 1 if share >= LEAST_SHARE else 0
        if self._moving < 2 or abs(now - self._alerted_at) < COOLDOWN_S:
            return None
        self._alerted_at = now
        upright = boxes[biggest, cv2.CC_STAT_HEIGHT] > 1.2 * boxes[biggest, cv2.CC_STAT_WIDTH]
        x, y = (float(c) / size for c, size in zip(centres[biggest], moved.shape[::-1], strict=True))
        return {
            "severity": "medium" if upright else "low",
            "message": "A person walks through the picture" if upright else "Something moves in the picture",
            "metadata": {
                "confidence": round(min(0.99, 0.5 + 10 * share), 2),
                "location": {"x": round(x, 3), "y": round(y, 3)},
                "objectType": "person" if upright else "object",
            },
        }


def same_light(picture: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return the picture with the light of the background: a gain and offset for each colour, fitted to most pixels."""
    colours = []
    for now, before in zip(cv2.split(picture), cv2.split(background), strict=True):
        x, y = (channel[::4, ::4].astype(np.float32).ravel() for channel in (before, now))
        near = np.full(x.shape, True)
        for _ in range(3):
            gain = np.cov(x[near], y[near])[0, 1] / x[near].var() if x[near].std() > 2 else 1.0
            gain = float(np.clip(gain, 0.5, 2.0))
            offset = float(np.median(y - gain * x))
            off = np.abs(y - gain * x - offset)
            near = off <= max(4.0, 2 * float(np.median(off)))
        colours.append(np.clip((now.astype(np.float32) - offset) / gain, 0, 255).astype(np.uint8))
    return cv2.merge(colours)
