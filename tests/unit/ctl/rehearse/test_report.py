"""The report of a rehearsal: as text, as JSON, and as a page with plots that loads nothing."""

from __future__ import annotations

import html.parser
import math
import re
import xml.etree.ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.latency.rows import HopFigures
from watchout.ctl.rehearse.explained import Explanations
from watchout.ctl.rehearse.figures import Counts, Durations, Moment, RoleCounts, Series
from watchout.ctl.rehearse.growth import growth_of
from watchout.ctl.rehearse.memory import ProcessFigures
from watchout.ctl.rehearse.ml_service import MlCounts, MlProfile
from watchout.ctl.rehearse.objectives import Judged, Verdict
from watchout.ctl.rehearse.page import page
from watchout.ctl.rehearse.plan import Scenario, ViewerRole
from watchout.ctl.rehearse.result import OwnLoad, Result, Whole, measured, own_load, points_of
from watchout.ctl.rehearse.soak_result import Soak
from watchout.ctl.rehearse.svg import Curve, plot, ticks
from watchout.ctl.rehearse.text import report_lines

EVIL = "</script><b>&\"'"
SERIES = Series()
for second in range(3):
    SERIES.add(
        Moment(
            at_s=second, sent=10, received=20, missing=second, lag=Durations([40, 5], 5.0),
            glass=Durations([50, 20], 60.0) if second != 1 else Durations(),
        )
    )  # fmt: skip
RESULT = Result(
    verdict=Verdict.FAILED,
    objectives=[
        Judged(name="alert-p99", limit=500.0, measured=None, met=False),
        Judged(name="sent", limit=0.9, measured=0.95, met=True),
    ],
    scenario=Scenario(
        cameras=1, fps=10, frame_bytes=30_000, slow_fps=2, seconds=60,
        viewers={ViewerRole.STEADY: 2, ViewerRole.SLOW: 1},
    ),
    began_ms=1_700_000_000_000,
    seconds=60.0,
    interrupted=False,
    system=EVIL,
    seed=7,
    counts=Counts(
        due=600, sent=570, held=30, lost={"CONNECTION_LOST": 1}, faults={f"told {EVIL}": 2},
        roles={
            ViewerRole.STEADY: RoleCounts(viewers=2, received=1100, missing=3, alerts=4, alerts_lost=1, alerts_twice=1),
            ViewerRole.SLOW: RoleCounts(viewers=1, received=120, missing=440, replaced=2),
        },
    ),
    glass=Whole(count=1100, p50_ms=3.0, p99_ms=40.0),
    alert=Whole(count=0, p50_ms=None, p99_ms=None),
    own=OwnLoad(processes=1, lag_p99_ms=2.0, most_cores=0.1, limit_ms=100.0, replaced=0, says=""),
    ml=MlProfile(failures=1.0),
    ml_counts=MlCounts(port=1, requests=120, failed=120),
    hops=[HopFigures(hop="ml", name="ML asked → ML answered", count=9, p50_ms=50.0, p99_ms=60.0, mean_ms=51.0,
                     negative=0)],
    processes=[
        ProcessFigures(name="gateway.1", kind="gateway", pid=8, memory_mb=60.0, slope_mb_per_h=1.5, cores=0.25,
                       samples=[(0.0, 50.0), (60.0, 60.0)]),
        ProcessFigures(name="router", kind="router", pid=9, memory_mb=40.0, slope_mb_per_h=None, cores=0.0, samples=[]),
    ],
    dropped={"window": 430, "slow": 13},
    explained=Explanations(streams=1, of_streams=1, connections=4, closes={"left": 4}, received=1220, written=1222,
                           missing=443, dropped={"window": 430, "slow": 13}, unexplained=0, notes=["a note"]),
    notes=["something is not known"],
    points=points_of(SERIES),
)  # fmt: skip


def test_the_text_has_every_part() -> None:
    text = "\n".join(report_lines(RESULT))
    for part in (
        "1 camera at 10 fps of 30.0 kB; viewers: 2 steady, 1 slow; 60 s",
        "ML service of the rehearsal: 50 ms, 100 % fail; 120 requests, 120 failed, 0 alerts",
        "570 of 600 frames sent (9.5 per second), 30 left out",
        "2 steady       1100 frames (18.3 per second), 3 dropped, 4 alerts, 1 alerts lost, 1 alerts twice",
        "440 dropped, 2 replaced in the viewer, 0 alerts",
        "drops by reason   window 430, slow 13",
        "connections lost  CONNECTION_LOST 1",
        "+1.5 MB/h    25 %",
        "too short",
        "connections 4, ends explained 4 (left 4)",
        "frames missing 443, drops explained 443 (window 430, slow 13)",
        "  a note",
        "note: something is not known",
        "own load: 1 process, 2.0ms late (p99), the busiest 10 % of a core",
        "MISSED alert-p99         ≤ 500 ms      not measured",
        "ok     sent              ≥ 90 %        95 %",
        "FAILED: alert-p99",
    ):
        assert part in text, f"{part!r} is not in\n{text}"


@pytest.mark.parametrize(
    ("verdict", "says", "last"),
    [
        (Verdict.PASSED, "", "PASSED"),
        (Verdict.UNDECIDED, "it was late", "UNDECIDED: the load itself was the limit: it was late"),
    ],
)
def test_the_last_line_is_the_verdict(verdict: Verdict, says: str, last: str) -> None:
    own = msgspec.structs.replace(RESULT.own, says=says)
    result = msgspec.structs.replace(RESULT, verdict=verdict, own=own, interrupted=True, seconds=12.0)
    lines = list(report_lines(result))
    assert lines[-1] == last
    assert "ended early, after 12 s" in lines
    assert says in page(result)


def test_a_soak_is_in_the_text_and_on_the_page() -> None:
    leaks, short = (
        growth_of(process="gateway-2", pid=9, quantity=quantity, unit="MB", limit=1.0,
                  samples=[(float(at), 50 + at / 1200) for at in range(0, seconds, 10)])
        for quantity, seconds in (("memory", 7200), ("tasks", 60))
    )  # fmt: skip
    result = msgspec.structs.replace(RESULT, soak=Soak(growth=[leaks, short], acts={"SIGHUP": 2}, faults={EVIL: 1}))
    assert list(report_lines(result))[-1] == "FAILED: alert-p99, memory of gateway-2, something that a soak does"
    shown = page(result)
    for part in ("Growth an hour", "+3.00 ± 0.00 MB, at most 1 MB", "Memory over the soak", "Tasks over the soak"):
        assert part in shown
    assert EVIL not in shown
    assert shown.count("<svg") == page(RESULT).count("<svg") + 2
    undecided = msgspec.structs.replace(result, verdict=Verdict.UNDECIDED)
    assert list(report_lines(undecided))[-1].endswith("take longer")
    assert "take longer" in page(undecided)
    assert msgspec.json.decode(msgspec.json.encode(result), type=Result) == result


def test_the_json_is_read_back_as_it_was() -> None:
    assert msgspec.json.decode(msgspec.json.encode(RESULT), type=Result) == RESULT


class Elements(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_loads_and_runs_nothing_and_shows_foreign_text_as_text() -> None:
    document = page(RESULT)
    elements = Elements()
    elements.feed(document)
    assert not {"script", "link", "img", "iframe", "object", "b"} & set(elements.tags)
    assert not {"src", "href", "srcset", "xlink:href"} & {name for name, _ in elements.attributes}
    assert not re.search(r"https?:|url\(|@import|\bon\w+=", document)
    assert "default-src 'none'" in document
    assert elements.tags.count("svg") == 4
    assert "nothing was measured" in document  # of the alerts
    assert 'class="missed"' in document
    for drawing in re.findall(r"<svg.*?</svg>", document):
        ET.fromstring(drawing)


def test_a_gap_parts_a_line_and_a_single_point_is_a_dot() -> None:
    drawn = plot([Curve("a", [(0, 1.0), (1, 2.0), (2, None), (3, 4.0), (4, math.nan), (5, 1.0), (6, 1.0)])], unit="ms")
    assert (drawn.count("<polyline"), drawn.count("<circle")) == (2, 1)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.none() | st.floats(-1e9, 1e9)), max_size=30),
    st.none() | st.floats(0, 1e9),
)
def test_every_plot_is_well_formed_and_within_its_frame(
    points: list[tuple[float, float | None]], limit: float | None
) -> None:
    drawn = plot([Curve("<&>", sorted(points, key=lambda point: point[0]))], unit="ms", limit=limit)
    ET.fromstring(f"<div>{drawn}</div>")
    assert "nan" not in drawn
    assert "inf" not in drawn
    for name, most in (("x1", 720), ("cx", 720), ("y1", 190), ("cy", 190)):
        assert all(0 <= float(found) <= most for found in re.findall(rf' {name}="([^"]*)"', drawn))


@given(st.floats(1e-9, 1e12))
def test_ticks_are_few_round_and_reach_the_largest_value(most: float) -> None:
    found = ticks(most)
    assert found[0] == 0
    assert found[-1] >= most * 0.999
    assert 2 <= len(found) <= 6


def test_the_load_itself_is_the_limit_when_it_is_late_busy_or_silent() -> None:
    late = Series()
    late.add(Moment(at_s=0, lag=Durations([240, 100], 1.0)))
    assert own_load(SERIES, [0.2], Counts(), 100.0).says == ""
    assert "over 100 ms" in own_load(late, [0.2], Counts(), 100.0).says
    assert "used 95 % of a core" in own_load(SERIES, [0.2, 0.95], Counts(), 100.0).says
    assert "counted nothing" in own_load(Series(), [], Counts(), 100.0).says


def test_what_is_measured_of_each_objective() -> None:
    def found(counts: Counts, *, numbered: bool = True) -> dict[str, float | None]:
        return measured(
            counts, RESULT.glass, RESULT.alert, numbered=numbered, explained=RESULT.explained, ml_failures=0.25,
            processes=RESULT.processes,
        )  # fmt: skip

    values = found(RESULT.counts)
    assert values == {
        "alert-p99": None, "glass-p99": 40.0, "sent": 0.95, "delivered": pytest.approx(1100 / 1103), "alerts-lost": 1.0,
        "lost-connections": 1.0, "unexplained": 0.0, "ml-failures": 0.25, "memory-slope": 1.5,
    }  # fmt: skip
    nothing = found(Counts())
    assert [nothing[name] for name in ("sent", "delivered", "alerts-lost")] == [None, None, None]
    assert found(RESULT.counts, numbered=False)["alerts-lost"] is None
