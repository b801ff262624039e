"""One picture in many file formats and kinds of JPEG, as cameras and phones send it."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageCms, ImageDraw


def painted(width: int = 96, height: int = 64) -> Image.Image:
    """A picture that looks different whichever way it is turned."""
    image = Image.new("RGB", (width, height), (40, 60, 200))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 3, height // 2), fill=(220, 30, 30))
    draw.rectangle((width // 2, height // 2, width, height), fill=(240, 220, 90))
    draw.ellipse((width // 2, 2, width - 4, height // 2 - 2), fill=(20, 180, 60))
    return image


def written(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of its file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    """A JPEG whose Exif says how it is to be turned, as phones write it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return written(painted(), exif=exif)


def plain_jpegs() -> dict[str, bytes]:
    """Small JPEGs whose look no other part of the file changes."""
    return {
        "4:2:0": written(painted()),
        "4:4:4": written(painted(), subsampling=0),
        "4:2:2": written(painted(), subsampling=1),
        "progressive": written(painted(), progressive=True),
        "grey": written(painted().convert("L")),
        "odd size": written(painted(75, 41)),
        "640 × 480": written(painted(640, 480)),
        "with a comment": written(painted(), comment=b"of a camera"),
        "restart markers": written(painted(), restart_marker_rows=1),
    }


def other_pictures() -> dict[str, bytes]:
    """Files that need more: turned, with colours of their own, large, or no JPEG."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        **{f"turned {each}": turned(each) for each in range(1, 9)},
        "with a colour profile": written(painted(), icc_profile=profile),
        "641 × 480": written(painted(641, 480)),
        "CMYK": written(painted().convert("CMYK")),
        "PNG": written(painted(), "PNG"),
        "WebP": written(painted(), "WEBP"),
        "GIF": written(painted(), "GIF"),
    }


def broken_pictures() -> dict[str, bytes]:
    """What begins as a JPEG and is none."""
    whole = written(painted())
    pixels = whole.index(b"\xff\xda")
    return {
        "half of the pixels": whole[: (pixels + len(whole)) // 2],
        "no pixels": whole[: pixels + 14],
        "only the head": whole[:pixels],
        "noise": whole[:pixels] + bytes(range(256)) * 4,
        "an endless segment": whole[:4] + b"\xff\xff" + whole[6:],
    }
