"""Metrics: only declared names are counted, and a renamed one keeps its former name beside the new one."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from watchout.common import metric_names
from watchout.common.metric_names import DECLARED, CounterName, counter, gauge
from watchout.common.metrics import LABEL_SEPARATOR, Metrics, with_former_names
from watchout.common.process import memory


def test_a_counter_rises_and_a_gauge_is_set() -> None:
    metrics = Metrics()
    metrics.count(metric_names.FRAMES_IN)
    metrics.count(metric_names.FRAMES_IN, 2)
    metrics.values[metric_names.FRAMES_OUT] += 1
    metrics.set(metric_names.STREAMS, 7)
    read = metrics.read()
    assert (read["frames_in_total"], read["frames_out_total"], read["streams"]) == (3, 1, 7)


async def test_tasks_of_the_event_loop_are_counted_now_and_then() -> None:
    metrics = Metrics()
    before = metrics.read()["asyncio_tasks"]
    more = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(3)]
    assert Metrics().read()["asyncio_tasks"] == before + 3
    assert metrics.read()["asyncio_tasks"] == before, "they were counted just now"
    for task in more:
        task.cancel()


async def test_a_memory_limit_that_is_raised_while_the_process_runs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, looks = iter([1000, 2000]), []
    monkeypatch.setattr(memory, "limit_bytes", lambda: looks.append(1) or next(limits))
    metrics = Metrics()
    assert [metrics.read()["memory_limit_bytes"] for _ in range(3)] == [1000] * 3
    assert len(looks) == 1, "it is not read at each heartbeat"
    metrics._look_at = 0.0
    assert metrics.read()["memory_limit_bytes"] == 2000


def test_a_name_that_is_not_declared_is_refused() -> None:
    metrics, typo = Metrics(), CounterName("frames_inn_total")
    with pytest.raises(KeyError, match="frames_inn_total"):
        metrics.count(typo)
    with pytest.raises(KeyError, match="frames_inn_total"):
        metrics.set(typo, 1)
    with pytest.raises(KeyError, match="frames_inn_total"):
        metrics.values[typo] += 1
    assert "frames_inn_total" not in metrics.read()


def test_an_increment_is_that_of_a_plain_dictionary_item() -> None:
    """The path of a frame counts this way: nothing of Python runs once the name was counted."""
    assert not {"__getitem__", "__setitem__", "get"} & set(vars(type(Metrics().values)))
    assert type(metric_names.FRAMES_IN) is str


@pytest.mark.parametrize("declare", [lambda: counter("frames", ""), lambda: gauge("frames_total", ""),
                                     lambda: gauge("streams", ""), lambda: gauge("cameras", ""),
                                     lambda: gauge("new", "", formerly="streams")])  # fmt: skip
def test_a_name_of_the_wrong_form_or_that_is_taken_cannot_be_declared(declare: object) -> None:
    before = dict(DECLARED)
    with pytest.raises(ValueError, match=r"declared twice|expected a name"):
        declare()  # type: ignore[operator]
    assert before == DECLARED


def test_all_that_a_process_reports_is_declared() -> None:
    names = {name.partition(LABEL_SEPARATOR)[0] for name in Metrics().read()}
    assert names <= set(DECLARED)


def test_a_renamed_metric_keeps_its_former_name_beside_the_new_one() -> None:
    assert with_former_names({"publishers": 3, "streams": 1}) == {"publishers": 3, "streams": 1, "cameras": 3}
    assert with_former_names({"cameras": 3}) == {"publishers": 3, "cameras": 3}, "of a member of the former release"


def test_every_metric_that_the_operations_page_names_is_declared() -> None:
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    named = set(re.findall(r"`([a-z][a-z0-9_]*_total)`", page))
    assert named - set(DECLARED) == set()
    assert len(named) > 40
