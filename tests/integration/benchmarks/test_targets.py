"""The benchmark of the ML targets shows the same frames to target and loop, and says what it found."""

from __future__ import annotations

import pytest

from benchmarks import targets
from watchout.common.settings import load
from watchout.mlbridge.targets import open_target

ROW = targets.Row("NATS", "nats-py", (900.0, 800.0, 950.0), (1000.0, 900.0, 1100.0), (0.9, 0.8, 1.0))


@pytest.mark.parametrize("kind", targets.KINDS, ids=lambda kind: kind.name)
async def test_each_kind_is_measured_beside_its_loop(kind: targets.Kind) -> None:
    row = await targets.measure(kind, 1, 0.05)
    assert row.name == kind.name
    assert min(row.target_fps[1], row.bare_fps[1], row.ratio[1]) > 0


@pytest.mark.parametrize("kind", targets.KINDS, ids=lambda kind: kind.name)
def test_each_kind_names_a_target(kind: targets.Kind) -> None:
    assert open_target(load({"ML_SERVICE_URL": f"{kind.scheme}://127.0.0.1:9", **dict(kind.settings)})) is not None


def test_the_page_says_of_each_kind_whether_it_reached_its_goal() -> None:
    slow = targets.Row("ZeroMQ", "pyzmq", (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5))
    page = targets.page([ROW, slow], "command", 2.0, 5)
    assert "| NATS | nats-py | 900 | 1000 | 0.90 (0.80 to 1.00) | ≥ 0.8: reached |" in page
    assert "0.50 (0.50 to 0.50) | ≥ 0.8: **not reached** |" in page


def test_the_page_keeps_what_is_not_of_the_benchmark() -> None:
    page = targets.PAGE.read_text()
    again = targets.with_benchmark(page, "new rows")
    assert again.split(targets.BEGIN)[0] == page.split(targets.BEGIN)[0]
    assert "new rows" in again
    assert targets.with_benchmark(again, targets.page([ROW], "command", 2.0, 5)).count("| NATS |") == 2


def test_an_answer_names_its_frame() -> None:
    text = b'{"streamId":"cam","frame":"AA","timestamp":1,"frameId":7}'
    assert targets.answer_to(text) == targets.answer_to(text.decode()) == '{"streamId":"cam","frameId":7,"alerts":[]}'
