"""The figures of the capacity model are those that the benchmark recorded, and the model fits what it did not use."""

from __future__ import annotations

import functools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from watchout.ctl.capacity.figures import Figure, derive, recorded

ROOT = Path(__file__).parents[4]
FIGURES = recorded()
POINTS = {"router-idle": "json-1x50", "mlbridge-idle": "json-1x50", "memory-base": "json-1x50",
          "message-json": "json-1x50", "message-bin": "bin-1x50", "memory-connection": "idle"}  # fmt: skip
#: Figures that are the difference of two points in each round: those with and without.
DIFFERENCES = {"ml": ("ml-on", "ml-off")}


@functools.cache
def results(source: str) -> Any:
    return json.loads((ROOT / source).read_text())


def point_of(name: str) -> str:
    return POINTS.get(name) or name.partition("-")[2]


def recorded_values(name: str, figure: Figure) -> list[float]:
    """What each round recorded, in the unit of the figure."""
    if (points := DIFFERENCES.get(point_of(name))) is None:
        return list(recorded_at(point_of(name), name, figure).values())
    more, less = (recorded_at(point, name, figure) for point in points)
    return [more[number] - less[number] for number in more.keys() & less.keys()]


def recorded_at(point: str, name: str, figure: Figure) -> dict[int, float]:
    """What each round recorded at one point, by the number of the round."""
    kind, found = name.partition("-")[0], {}
    for run in results(figure.source)["runs"]:
        if run["system"] != "watchout" or run["point"] != point:
            continue
        number = run["round"]
        if kind == "memory":
            found[number] = run["bytes_per_connection"] if name == "memory-connection" else run["pss_bytes"]
        elif kind == "message":
            found[number] = run["load"]["message_bytes"]
        else:
            cpu_s = sum(p["cpu_s"] for p in run["processes"] if p["name"] == f"watchout-{kind}"[:15])
            per_frame = figure.unit == "µs"
            found[number] = (
                cpu_s * 1e6 / run["load"]["delivered"] if per_frame else cpu_s * 1e3 / run["load"]["measured_s"]
            )
    return found


@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if figure.source.endswith(".json")])
def test_a_figure_is_what_the_benchmark_recorded(name: str) -> None:
    figure = FIGURES[name]
    rounds = recorded_values(name, figure)
    assert statistics.median(rounds) == pytest.approx(figure.value, rel=1e-3)
    assert (min(rounds), max(rounds)) == pytest.approx((figure.least, figure.greatest), rel=1e-3)
    assert results(figure.source)["command"] == figure.command
    assert results(figure.source)["began"].startswith(str(figure.date))


@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if not figure.source.endswith(".json")])
def test_a_figure_without_recorded_rounds_is_on_the_page_that_it_names(name: str) -> None:
    figure = FIGURES[name]
    if name == "picture":
        sizes = [path.stat().st_size for path in (ROOT / figure.source).glob("*.jpg")]
        said = [figure.value, figure.least, figure.greatest]
        assert said == pytest.approx([statistics.mean(sizes), min(sizes), max(sizes)], abs=1)
        return
    page = (ROOT / figure.source).read_text()
    for value in (figure.value, figure.least, figure.greatest):
        assert f"{value:g}" in page


def test_every_figure_says_what_was_measured_and_its_median_is_between_its_ends() -> None:
    for name, figure in FIGURES.items():
        assert figure.what, name
        assert figure.least <= figure.value <= figure.greatest, name
        assert figure.least > 0 or point_of(name) in DIFFERENCES, name


@pytest.mark.parametrize("form", ["json", "binary"])
def test_the_point_with_ten_viewers_is_what_follows_from_one_and_fifty(form: str) -> None:
    costs = derive(FIGURES).formats[form]
    measured = FIGURES[f"gateway-{'json' if form == 'json' else 'bin'}-1x10"]
    assert costs.frame_out_s + costs.frame_in_s / 10 == pytest.approx(measured.value / 1e6, rel=0.1)


def test_all_costs_are_above_nothing() -> None:
    costs = derive(FIGURES)
    for name in costs.__slots__:
        value = getattr(costs, name)
        if name != "formats":
            assert value > 0, name
    for each in costs.formats.values():
        assert min(each.frame_in_s, each.frame_out_s, each.further_bytes) > 0
