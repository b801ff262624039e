from __future__ import annotations

import io

import pytest

pytest.importorskip("PIL")

from watchout.ctl.sources.scene import CYCLE_S, EMPTY_S, HEIGHT, WIDTH, Scene


def jpeg(at_s: float, number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Scene().draw(at_s, number).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def test_the_same_time_gives_the_same_picture() -> None:
    assert Scene().draw(3.7, 37).tobytes() == Scene().draw(3.7, 37).tobytes()
    assert Scene(1).draw(3.7, 37).tobytes() != Scene(2).draw(3.7, 37).tobytes()


def test_each_picture_differs_from_the_one_before_also_in_an_empty_room() -> None:
    assert len({jpeg(number / 10, number) for number in range(20)}) == 20


def test_its_size_and_bytes_are_those_of_a_camera() -> None:
    assert Scene().draw(4).size == (WIDTH, HEIGHT) == (640, 480)
    assert 10_000 < len(jpeg(4)) < 60_000


def test_a_background_subtraction_finds_every_walker_and_nothing_else() -> None:
    cv2 = pytest.importorskip("cv2")
    np = pytest.importorskip("numpy")
    detector = cv2.createBackgroundSubtractorMOG2(history=200, varThreshold=25, detectShadows=False)
    fps, cycles = 2, 6
    found: list[tuple[float, int]] = []
    for number in range(int(cycles * CYCLE_S * fps)):
        picture = cv2.imdecode(np.frombuffer(jpeg(number / fps, number), np.uint8), cv2.IMREAD_COLOR)
        mask = detector.apply(cv2.GaussianBlur(picture, (5, 5), 0))
        largest = max((cv2.contourArea(c) for c in cv2.findContours(mask, 0, 2)[0]), default=0)
        found.append((number / fps % CYCLE_S, int(largest)))
    found = found[int(CYCLE_S * fps) :]  # the first round is for learning the room
    empty = [area for into, area in found if into < EMPTY_S and into >= 0.5]
    inside = [area for into, area in found if EMPTY_S + 1 <= into <= CYCLE_S - 1]
    assert max(empty) < 600, empty
    assert min(inside) > 4000, inside
