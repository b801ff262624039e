"""The micro-benchmarks: what is counted, and that every function runs as it is measured. No time is judged here."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from benchmarks import micro
from benchmarks.micro import CASES, Case, Micro
from watchout.common import bus
from watchout.common.media import frames
from watchout.common.media.frames import Frame
from watchout.gateway import wire
from watchout.gateway.hub.delivery import Delivery

BRIEFLY = ["--rounds", "2", "--slice", "0.0001"]


def case(name: str) -> Case:
    (found,) = (c for c in CASES if c.name == name)
    return found


@pytest.mark.parametrize("each", CASES, ids=lambda c: c.name)
def test_each_function_runs_again_and_again(each: Case) -> None:
    call = each.make()
    for _ in range(100):
        call()
    each.make_yardstick()()


def test_no_two_functions_have_one_name() -> None:
    assert len({c.name for c in CASES}) == len(CASES)


def test_every_function_has_the_name_that_it_has_in_the_code() -> None:
    """A label begins with `module.function` or `Class.method`, or with the name of a function."""
    known = {**vars(micro), "frames": frames, "bus": bus, "Delivery": Delivery}
    for each in CASES:
        for label in each.name.partition(",")[0].partition(" the ")[0].split(" and "):
            first, *further = label.split(".")
            assert callable(functools.reduce(getattr, further, known[first])), label


def test_the_frames_that_are_measured_are_as_large_as_those_of_phones() -> None:
    assert 43_000 < len(micro.MESSAGE) < 45_000
    message = wire.parse_text(micro.MESSAGE)
    assert isinstance(message, wire.VideoFrame)
    assert Frame("door", 1, 0, text=micro.TOKEN).picture == micro.PICTURE


def test_the_spellings_of_a_frame_are_of_the_same_frame() -> None:
    for message in (
        micro.PLAIN_MESSAGE, micro.SPACED_MESSAGE, micro.FIELDS_MESSAGE, micro.PREFIX_MESSAGE, micro.SLASHES_MESSAGE,
        micro.PLUS_MESSAGE, micro.LINES_MESSAGE,
    ):  # fmt: skip
        frame = wire.parse_text(message)
        assert isinstance(frame, wire.VideoFrame)
        assert (frame.stream_id, frame.timestamp) == ("cam-1", 1_790_000_000_000)
        assert Frame("cam-1", 1, 0, text=frame.data).picture == micro.PICTURE
    assert micro.LINES_MESSAGE.count(rb"\n") > 500


def test_what_is_measured_is_what_is_said() -> None:
    assert case("OutboundQueue.offer_frame, the socket takes it").make()() is True
    assert case("FrameReader.whole, a masked message of 44 kB").make()() == (1, micro.MESSAGE)
    blocked = case("OutboundQueue.offer_frame, the socket is full").make()
    assert [blocked() for _ in range(3)] == [False] * 3
    limited = case("OutboundQueue.offer_frame, with maxFps").make()
    passed = sum(bool(limited()) for _ in range(1000))
    assert passed == pytest.approx(100, abs=3)  # 10 fps of 100
    sampled = case("Sampler.take").make()
    assert sum(bool(sampled()) for _ in range(300)) == pytest.approx(150, abs=3)  # 15 fps of 30


def test_a_yardstick_copies_the_bytes_that_the_function_is_about() -> None:
    about = Case("it", lambda: lambda: None, b"bytes")
    assert about.make_yardstick()() == b"bytes"
    assert about.yardstick == "copy of 5 bytes"
    assert Case("it", lambda: lambda: None).yardstick == "call of an empty function"


def test_a_function_and_its_yardstick_are_measured_in_turns() -> None:
    order: list[str] = []

    class Traced(Case):
        __slots__ = ()

        def make_yardstick(self) -> micro.Call:
            return lambda: order.append("yardstick")

    row = micro.measure(Traced("own", lambda: lambda: order.append("own")), rounds=4, slice_s=1e-6)
    turns = [name for at, name in enumerate(order) if at == 0 or order[at - 1] != name]
    # Two to find out how many calls are enough; then each round has both, and who ended a round begins the next.
    assert turns == ["own", "yardstick", "own", "yardstick", "own", "yardstick", "own"]
    assert row.name == "own"
    assert row.ratio[1] <= row.ratio[0] <= row.ratio[2]


def test_text_names_each_function_with_its_ratio() -> None:
    result = CliRunner().invoke(micro.main, [*BRIEFLY, "--only", "Sampler", "--only", "apply_mask"])
    assert result.exit_code == 0
    first, second = result.output.splitlines()
    assert first.startswith("apply_mask, 44 kB")
    assert second.startswith("Sampler.take")
    assert "× call of an empty function" in second


def test_json_is_what_the_page_reads(tmp_path: Path) -> None:
    out = tmp_path / "results" / "micro.json"
    result = CliRunner().invoke(micro.main, [*BRIEFLY, "--only", "Frame.to_", "--json", "--out", str(out)])
    assert result.exit_code == 0
    told = msgspec.json.decode(result.output, type=Micro)
    assert told == msgspec.json.decode(out.read_bytes(), type=Micro)
    assert [row.name for row in told.rows] == ["Frame.to_json", "Frame.to_binary"]
    assert told.rounds == 2
    assert all(row.ns[0] > 0 and row.ratio[0] > 0 for row in told.rows)
    assert json.loads(out.read_bytes())["machine"]["cores"] > 0
    assert len(micro.render_markdown(told).splitlines()) == 4 + 2


def test_a_name_that_no_function_has_is_a_sentence() -> None:
    result = CliRunner().invoke(micro.main, ["--only", "warp"])
    assert result.exit_code == 2
    assert "no function is called so; there are: apply_mask" in " ".join(result.stderr.split())


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(micro.main, [*BRIEFLY, "--only", "Sampler", "--out", str(tmp_path / "file" / "x.json")])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    ("ns", "written"),
    [(4.567, "4.57 ns"), (45.67, "45.7 ns"), (456.7, "457 ns"), (4567, "4.57 µs"), (456_700, "457 µs")],
)
def test_a_time_has_three_digits(ns: float, written: str) -> None:
    assert micro.duration(ns) == written
