from __future__ import annotations

import asyncio
import itertools
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.ctl_command import TINY_JPEG
from tests.kit.fake_gateway import until
from watchout.ctl.environment import Failure
from watchout.ctl.sources import live
from watchout.ctl.sources.open import open_source, resample
from watchout.ctl.sources.pump import AHEAD, Pump


def test_a_folder_is_sorted_and_only_its_jpegs_are_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # as without watchout[media]
    (folder / "notes.txt").write_text("no picture")
    (folder / "10.JPEG").write_bytes(TINY_JPEG + b"\x0a")
    source = open_source(str(folder))
    assert source.fps == 10
    assert [picture[-1] for picture in source.pictures()] == [0, 1, 10, 2, 3, 4]


def test_a_folder_in_a_loop_begins_again(folder: Path) -> None:
    source = open_source(str(folder), fps=3, loop=True)
    assert source.fps == 3
    assert [p[-1] for p in itertools.islice(source.pictures(), 7)] == [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("text", ["test", "rtsp://127.0.0.1/cam", "film.mp4"])
def test_without_the_media_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "film.mp4").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Failure, match=r"pip install 'watchout\[media\]'"):
        open_source(text)


@pytest.mark.parametrize("name", ["empty", "nowhere.mp4", "text.mp4"])
def test_a_source_that_cannot_be_used_is_a_sentence(tmp_path: Path, name: str) -> None:
    pytest.importorskip("av")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("this is no film")
    with pytest.raises(Failure, match=name.replace(".", r"\.")):
        open_source(str(tmp_path / name))


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_source_is_not_the_current_directory(text: str) -> None:
    with pytest.raises(Failure, match="the source is empty"):
        open_source(text)


@pytest.mark.parametrize("once", [False, True])
def test_a_device_that_is_no_camera_is_called_so_at_once(*, once: bool) -> None:
    pytest.importorskip("av")
    with pytest.raises(Failure, match="/dev/null cannot be read: it is not a camera"):
        next(open_source("/dev/null", once=once).pictures())


@pytest.mark.parametrize(
    ("times", "fps", "taken"),
    [
        ([0, 0.1, 0.2, 0.3], 10, [0, 1, 2, 3]),
        ([0, 0.1, 0.2, 0.3], 20, [0, 0, 1, 1, 2, 2, 3]),
        ([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 5, [0, 2, 4, 6]),
        ([7, 7.1, 7.2], 10, [0, 1, 2]),
        ([0, 0.1, 3600, 3600.1], 10, [0, 1, 2, 3]),
        ([0, 0.1, 0.05, 0.2], 10, [0, 2, 3]),
        ([], 10, []),
        ([5], 10, [0]),
    ],
)
def test_a_recording_keeps_its_own_speed_at_any_rate(times: list[float], fps: float, taken: list[int]) -> None:
    assert list(resample(((at, number) for number, at in enumerate(times)), fps)) == taken


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 200))
def test_a_recording_of_any_rate_gives_the_wanted_rate(own: int, fps: int, count: int) -> None:
    taken = list(resample(((number / own, number) for number in range(count)), fps))
    assert taken == sorted(taken)
    assert taken[0] == 0
    assert abs(len(taken) - count / own * fps) <= fps / own + 1


@pytest.fixture
def film(tmp_path: Path) -> Path:
    av = pytest.importorskip("av")
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(24):
            picture = av.VideoFrame.from_image(image.new("RGB", (64, 48), (number * 10, 0, 0)))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def test_a_film_is_played_at_its_own_rate_or_the_one_that_is_asked_for(film: Path) -> None:
    own = open_source(str(film))
    assert own.fps == 12
    pictures = list(own.pictures())
    assert len(pictures) == 24
    assert all(p.startswith(b"\xff\xd8\xff") for p in pictures)
    assert len(list(open_source(str(film), fps=4).pictures())) == 8
    twice = itertools.islice(open_source(str(film), fps=24, loop=True).pictures(), 100)
    assert len(list(twice)) == 100


def test_a_password_in_an_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchout.ctl.sources.open._need", lambda *_: None)
    assert open_source("rtsp://user:secret@cam.example:554/a").name == "rtsp://cam.example:554/…"


def test_a_camera_that_is_not_there_is_a_sentence_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.setattr(live, "SILENT_S", 2.0)
    with pytest.raises(Failure) as raised:
        list(open_source("rtsp://user:secret@127.0.0.1:9/cam", once=True).pictures())
    assert "127.0.0.1:9" in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_the_thread_runs_ahead_by_no_more_than_its_bound_and_ends_when_told() -> None:
    made = 0
    closed = threading.Event()

    def endless():
        nonlocal made
        try:
            while True:
                made += 1
                yield b"%d" % made
        finally:
            closed.set()

    pump = Pump(endless)
    await until(lambda: made == AHEAD + 1)
    await asyncio.sleep(0.05)
    assert made == AHEAD + 1
    assert [await pump.get() for _ in range(5)] == [b"1", b"2", b"3", b"4", b"5"]
    pump.stop()
    await until(closed.is_set)


async def test_what_the_source_raises_comes_out_of_the_thread() -> None:
    def failing():
        yield b"1"
        raise Failure("broken")

    pump = Pump(failing)
    assert await pump.get() == b"1"
    with pytest.raises(Failure, match="broken"):
        await pump.get()
