"""Pictures as numpy arrays, for the SDKs: OpenCV is imported on first use, and comes with ``watchout[opencv]``."""

from __future__ import annotations

import threading
from typing import Any

from watchout.common.errors import WatchoutError


class MissingExtra(WatchoutError, ImportError):
    """A package is needed that comes with an extra of watchout; the text has the command to install it.

    Raised by the functions of this module; the program installs it, or uses the encoded pictures.
    """


class PictureFault(ValueError):
    """What should be a picture cannot be decoded or encoded; the text says why. Raised by `decode` and `encode`.

    The caller leaves the picture out.
    """


_imported: list[Any] = []
_lock = threading.Lock()


def opencv() -> Any:
    """Return the modules (cv2, numpy).

    Raises:
        MissingExtra: they are not installed.
    """
    with _lock:
        if not _imported:
            try:
                import cv2
                import numpy as np
            except ImportError as exc:
                raise MissingExtra(
                    f"pictures as numpy arrays need OpenCV and numpy ({exc}): pip install 'watchout[opencv]'; or use "
                    "the encoded pictures, `Frame.picture`"
                ) from exc
            _imported.append((cv2, np))
    return _imported[0]


def decode(picture: bytes) -> Any:
    """Return an encoded picture as an array (height × width × 3, BGR).

    Raises:
        MissingExtra: OpenCV is not installed.
        PictureFault: it cannot be decoded.
    """
    cv2, np = opencv()
    try:
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as exc:
        raise PictureFault(f"a picture of {len(picture)} bytes cannot be decoded: {exc}") from None
    if image is None:
        raise PictureFault(f"a picture of {len(picture)} bytes cannot be decoded")
    return image


def encode(image: Any, quality: int) -> bytes:
    """Return an array as a JPEG.

    Args:
        image: the array, BGR or grey, 8 bits.
        quality: of the JPEG, 1 to 100.

    Raises:
        MissingExtra: OpenCV is not installed.
        PictureFault: it is no picture.
    """
    cv2, _ = opencv()
    try:
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except (cv2.error, TypeError) as exc:
        raise PictureFault(f"not a picture: {_described(image)}: {str(exc).strip()[:200]}") from None
    if not done:
        raise PictureFault(f"cannot be encoded as JPEG: {_described(image)}")
    return bytes(data.tobytes())


def _described(image: Any) -> str:
    shape = getattr(image, "shape", None)
    return type(image).__name__ if shape is None else f"array of {'×'.join(map(str, shape))}, {image.dtype}"
