"""The pictures that a rehearsal draws are JPEGs of the stated size."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from watchout.common.media.codecs import Codec, sniff
from watchout.ctl.rehearse.pictures import LEAST_BYTES, PICTURES, synthetic

#: Sizes at which comment segments begin and end.
SIZES = (LEAST_BYTES, LEAST_BYTES + 1, 1000, 30_000, *range(65_870, 65_900), 2 * 65_537 + 340, 1_000_000)


def test_they_have_exactly_the_size_and_differ() -> None:
    for size in {*SIZES, *range(65_537 + 200, 65_537 + 500)}:
        pictures = list(synthetic(size, random.Random(size).random))
        assert [len(picture) for picture in pictures] == [size] * PICTURES
        assert len(set(pictures)) == PICTURES
        assert all(sniff(picture) is Codec.JPEG for picture in pictures)


@pytest.mark.parametrize("size", SIZES[:4] + SIZES[-2:])
def test_a_decoder_shows_blocks_of_grey_that_move(size: int) -> None:
    shown = []
    for picture in synthetic(size, random.Random(1).random):
        with Image.open(io.BytesIO(picture)) as image:
            image.load()
            assert (image.size, image.mode) == ((64, 64), "L")
            shown.append(image.tobytes())
            # 96 below the middle grey is 32; each block to the right is 16 lighter.
            first, second = image.getpixel((3, 3)), image.getpixel((11, 3))
            assert isinstance(first, int)
            assert isinstance(second, int)
            assert (second - first) % 192 == 16
    assert len(set(shown)) == PICTURES


def test_a_size_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="399 bytes is too small, expected 400"):
        list(synthetic(399, random.Random(1).random))
