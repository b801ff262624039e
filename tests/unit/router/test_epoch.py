from __future__ import annotations

from pathlib import Path

import pytest

from watchout.common.bus.messages.fields import EXCEEDABLE_EPOCH
from watchout.common.home_files import EPOCH_FILE
from watchout.router.epoch import next_epoch

NOW_MS = 1_700_000_000_000


def test_the_first_router_takes_the_clock_and_knows_that_it_is_the_first(tmp_path: Path) -> None:
    assert next_epoch(tmp_path, NOW_MS) == (NOW_MS, False)


def test_the_next_one_is_above_it_also_when_the_clock_went_back(tmp_path: Path) -> None:
    next_epoch(tmp_path, NOW_MS)
    assert next_epoch(tmp_path, NOW_MS + 5) == (NOW_MS + 5, True)
    assert next_epoch(tmp_path, NOW_MS - 1000) == (NOW_MS + 6, True)
    assert [path.name for path in tmp_path.iterdir()] == [EPOCH_FILE]


@pytest.mark.parametrize(
    "text", ["", "x", "-5", "0", "1.5", "9" * 30, "9" * 10_000, str(EXCEEDABLE_EPOCH), "\u0663", "12\n\n13"]
)
def test_a_file_that_holds_no_epoch_is_passed_over_with_a_word(
    text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / EPOCH_FILE).write_text(text)
    assert next_epoch(tmp_path, NOW_MS) == (NOW_MS, True)
    assert str(tmp_path / EPOCH_FILE) in capfd.readouterr().out
    assert next_epoch(tmp_path, NOW_MS) == (NOW_MS + 1, True)


def test_a_clock_that_is_far_in_the_future_makes_no_epoch(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    next_epoch(tmp_path, NOW_MS)
    assert next_epoch(tmp_path, EXCEEDABLE_EPOCH) == (NOW_MS + 1, True)
    assert "clock" in capfd.readouterr().out
    assert next_epoch(tmp_path, EXCEEDABLE_EPOCH - 2) == (EXCEEDABLE_EPOCH - 2, True)


def test_where_it_cannot_be_written_the_clock_decides_and_the_file_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / EPOCH_FILE).mkdir()
    assert next_epoch(tmp_path, NOW_MS) == (NOW_MS, True)
    said = capfd.readouterr().out
    assert said.count(str(tmp_path / EPOCH_FILE)) >= 2
    assert "clock" in said


def test_where_nothing_could_ever_be_written_there_may_have_been_a_router(tmp_path: Path) -> None:
    """It waits for what gateways of a former life tell, although no file says that there was one."""
    home = tmp_path / "gone"
    assert next_epoch(home, NOW_MS) == (NOW_MS, True)


def test_a_link_in_the_place_of_the_new_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / f"{EPOCH_FILE}.new").symlink_to(target)
    assert next_epoch(tmp_path, NOW_MS) == (NOW_MS, False)
    assert target.read_text() == "precious"
