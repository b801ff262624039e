"""Draws the scene of ``publish test``: an empty room through which a person walks from time to time.

Deterministic: the same seed and time give the same picture. Only the person moves, so that a detector which compares
pictures finds the person and nothing else; the small clock makes every picture differ. Needs Pillow, and is imported
only where a scene is drawn.
"""

from __future__ import annotations

import math
import random
from typing import Final

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 640, 480
#: Seconds of a cycle, and of the empty room at its beginning; then a person walks through.
CYCLE_S: Final = 6.0
EMPTY_S: Final = 2.0

_MARGIN: Final = 70
_STRIDES_PER_S: Final = 1.6
_CLOTHES: Final = ((158, 42, 43), (30, 64, 124), (38, 110, 70), (84, 60, 120), (40, 40, 46), (190, 108, 30))
_TROUSERS: Final = ((42, 44, 58), (70, 60, 48), (28, 30, 34))
_SKIN: Final = ((224, 178, 148), (160, 110, 80), (98, 66, 50))


class Scene:
    """Draws the test video of ``watchout-ctl publish test``: a room through which a person walks from time to time.

    `draw` returns the picture at a time in seconds. The same `seed` gives the same furniture, clothes and paths.
    """

    def __init__(self, seed: int = 7) -> None:
        self._seed = seed
        self._room = _draw_room(random.Random(seed))
        self._font = ImageFont.load_default(11)

    def draw(self, at_s: float, number: int = 0) -> Image.Image:
        """Return the picture at `at_s` seconds, with `number` beside the clock."""
        picture = self._room.copy()
        pen = ImageDraw.Draw(picture)
        cycle, into = divmod(at_s, CYCLE_S)
        if into >= EMPTY_S:
            self._draw_walker(pen, int(cycle), (into - EMPTY_S) / (CYCLE_S - EMPTY_S), into)
        minutes, seconds = divmod(at_s, 60)
        # Small and pale: it differs in each picture, but too little for a motion detector.
        pen.text((8, 463), f"{int(minutes):02d}:{seconds:04.1f}  #{number}", (158, 146, 134), self._font)
        return picture

    def _draw_walker(self, pen: ImageDraw.ImageDraw, cycle: int, way: float, into: float) -> None:
        chance = random.Random(self._seed * 1_000_003 + cycle)
        height = chance.uniform(190, 240)
        feet = chance.uniform(400, 450)
        coat, trousers, skin = chance.choice(_CLOTHES), chance.choice(_TROUSERS), chance.choice(_SKIN)
        x = -_MARGIN + way * (WIDTH + 2 * _MARGIN)
        if cycle % 2:
            x = WIDTH - x
        swing = math.sin(into * _STRIDES_PER_S * 2 * math.pi)
        bob = abs(swing) * 3
        head, shoulder, hip = feet - height + bob, feet - height * 0.8 + bob, feet - height * 0.45 + bob
        limb, body = height * 0.075, height * 0.13
        pen.ellipse((x - 38, feet - 6, x + 38, feet + 8), (88, 80, 72))
        for side in (-1, 1):
            knee = (x + side * swing * height * 0.09, (hip + feet) / 2)
            foot = (x + side * swing * height * 0.17, feet - max(0.0, side * swing) * 6)
            pen.line([(x, hip), knee, foot], trousers, int(limb), joint="curve")
            hand = (x - side * swing * height * 0.14, hip + height * 0.02)
            pen.line([(x, shoulder + limb / 2), hand], coat, int(limb * 0.8))
            pen.ellipse((hand[0] - 6, hand[1] - 6, hand[0] + 6, hand[1] + 6), skin)
        pen.rounded_rectangle((x - body, shoulder, x + body, hip + limb / 2), 12, coat)
        radius = height * 0.085
        pen.ellipse((x - radius, head, x + radius, head + 2.2 * radius), skin)
        pen.pieslice((x - radius, head - 2, x + radius, head + 1.6 * radius), 180, 360, (46, 36, 30))


def _draw_room(chance: random.Random) -> Image.Image:
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(picture)
    for y in range(HEIGHT):  # wall above, floor below
        shade = y / HEIGHT
        wall = (int(206 - 26 * shade), int(200 - 28 * shade), int(186 - 26 * shade))
        floor = (int(150 - 40 * shade), int(130 - 36 * shade), int(112 - 32 * shade))
        pen.line([(0, y), (WIDTH, y)], wall if y < 330 else floor)
    for x in range(-400, 1100, 90):  # boards of the floor run to a vanishing point
        pen.line([(320 + (x - 320) * 0.55, 330), (x, HEIGHT)], (112, 96, 82))
    pen.rectangle((0, 322, WIDTH, 331), (228, 222, 210))
    pen.rectangle((60, 60, 230, 210), (238, 236, 230))
    pen.rectangle((70, 70, 220, 200), (150, 190, 216))
    pen.polygon([(70, 200), (70, 160), (120, 138), (170, 166), (220, 146), (220, 200)], (96, 134, 96))
    pen.line([(145, 70), (145, 200)], (238, 236, 230), 6)
    pen.line([(70, 135), (220, 135)], (238, 236, 230), 6)
    pen.rectangle((500, 90, 600, 330), (120, 86, 58))
    pen.rectangle((508, 98, 592, 326), (134, 98, 68))
    pen.ellipse((578, 208, 588, 218), (210, 180, 90))
    pen.rectangle((300, 110, 430, 118), (110, 80, 56))
    at = 306
    while at < 418:  # books
        width, height = chance.randint(7, 15), chance.randint(28, 46)
        colour = (chance.randint(60, 190), chance.randint(50, 150), chance.randint(50, 150))
        pen.rectangle((at, 110 - height, at + width, 109), colour)
        at += width + 1
    for _ in range(2600):  # plaster and grain, so that the room is no flat colour
        x, y = chance.randrange(WIDTH), chance.randrange(HEIGHT)
        red, green, blue = picture.getpixel((x, y))  # type: ignore[misc]
        by = chance.randint(-9, 9)
        pen.point((x, y), (int(red) + by, int(green) + by, int(blue) + by))
    return picture
