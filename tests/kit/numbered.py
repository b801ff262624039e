"""Pictures that carry a number which survives JPEG and scaling, so that a canvas says which frame it shows."""

from __future__ import annotations

import io
import random
from typing import Final

from PIL import Image, ImageDraw

BITS: Final = 16


def numbered(number: int, width: int = 640, height: int = 480, quality: int = 70, noise: int = 400) -> bytes:
    """A JPEG that shows the 16 bits of the number as black and white fields, under `noise` small lines."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for bit in range(BITS):
        x, y = bit % 4 * width // 4, bit // 4 * height // 4
        fill = (255, 255, 255) if number >> (BITS - 1 - bit) & 1 else (0, 0, 0)
        draw.rectangle((x, y, x + width // 4, y + height // 4), fill=fill)
    for _ in range(noise):  # at the fields' edges, where no bit is read
        x = random.randrange(4) * width // 4 + random.randrange(width // 24)
        y = random.randrange(height)
        colour = (random.randrange(256), random.randrange(256), random.randrange(256))
        draw.line((x, y, x + width // 20, y + random.randrange(-9, 9)), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
