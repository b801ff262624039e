"""The page and the plot that a run leaves: what stands in them, and that those in the docs are of the committed run."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import figures, goals, report
from benchmarks.figures import Figure
from benchmarks.micro import Micro, Row
from tests.unit.benchmarks.made_up import idle, raw, run

ROOT = Path(__file__).parents[3]
FEW = (
    run(number=1, cpu_us=5), run(number=2, cpu_us=7), run(number=3, cpu_us=6),
    run(system="bun-raw", number=1, cpu_us=10), run(system="bun-raw", number=2, cpu_us=10),
    run(system="floor-uvloop", number=1, cpu_us=4), run(system="floor-c", number=1, cpu_us=2.5),
    idle(number=1), idle("ws", 1, kb=12),
)  # fmt: skip
MICRO = Micro(
    {"cores": 2}, "python -m benchmarks.micro", "2026-01-02T03:04:05+00:00", 3,
    (Row("Hub.frame, 1 viewer", "copy of 44 002 bytes", (5310, 5000, 6000), (1500, 1400, 1600), (3.5, 3.4, 3.6)),),
)  # fmt: skip


def rendered(*runs: dict[str, Any], **raw_fields: Any) -> str:
    return report.render(figures.read(raw(*runs, **raw_fields)))


def row(page: str, *cells: str, under: str = "") -> list[str]:
    """The cells of the one row that begins so, on the page or under one heading of it."""
    if under:
        page = page.partition(f"### {under}\n")[2].partition("\n### ")[0]
    begins = "| " + " | ".join(cells) + " |"
    (found,) = (line for line in page.splitlines() if line.startswith(begins))
    return [cell.strip() for cell in found.strip("|").split("|")]


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (5.0, "5"), (0.0123, "0.012"), (0.5, "0.50"), (6.049, "6.05"), (48.26, "48.3"), (162.4, "162"),
     (18750, "18 750"), (-0.048, "−0.048"), (-2.5, "−2.50")],
)  # fmt: skip
def test_a_number_has_the_digits_that_count(value: float, written: str) -> None:
    assert report.number(value) == written


def test_a_figure_is_its_median_with_the_least_and_the_greatest_round() -> None:
    assert report.spread(None) == "–"
    assert report.spread(Figure((6.0,))) == "6"
    assert report.spread(Figure((6.0, 6.0))) == "6"
    assert report.spread(Figure((5.9, 6.1, 6.0))) == "6 (5.90 to 6.10)"
    assert report.ratio(Figure((0.9, 1.0, 0.95))) == "0.95 (0.90 to 1.00)"


def test_a_noisy_figure_is_shown_as_noisy() -> None:
    assert report.spread(Figure((4.0, 6.0, 8.0))) == "≈ 6 (4 to 8)"
    assert report.ratio(Figure((0.5, 1.0, 1.5))) == "≈ 1.00 (0.50 to 1.50)"


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_says_where_when_and_how_it_was_measured() -> None:
    page = rendered(*FEW)
    assert "Command: `python -m benchmarks`, begun 2026-01-02T03:04:05+00:00, 3 rounds." in page
    assert "| cpu | Made-up 9000 |" in page
    assert "| versions | uvloop 0.22 |" in page
    assert "quick run" not in page
    assert "quick run" in rendered(*FEW, quick=True)


def test_a_goal_stands_beside_its_bound_the_best_peer_and_both_floors() -> None:
    cells = row(rendered(*FEW), "CPU, JSON, 1 → 50")
    assert cells[1:] == ["≤ 1", "≈ 0.60 (0.50 to 0.70), of Bun publish, raw", "reached",
                         "≈ 0.60 (0.50 to 0.70), Bun publish, raw", "1.25", "2.00"]  # fmt: skip
    assert row(rendered(*FEW), "Idle connection")[1:4] == ["≤ 10 kB", "6", "reached"]
    assert row(rendered(*FEW), "Idle connections held")[1:4] == ["≥ 10 000 connections", "10 000", "reached"]


def test_every_goal_has_a_row_and_its_sentence_whatever_was_measured() -> None:
    for page in (rendered(), rendered(*FEW)):
        for goal in goals.GOALS:
            assert row(page, goal.name)
            assert f"- {goal.sentence}\n" in page


def test_a_goal_is_reached_missed_or_not_measured_and_says_why() -> None:
    peers = [run(system="bun-raw", number=n, cpu_us=10) for n in (1, 2, 3)]

    def said(*own: dict[str, Any]) -> str:
        return row(rendered(*own, *peers), "CPU, JSON, 1 → 50")[3]

    assert said() == "not measured"
    assert said(run(number=1, cpu_us=11)) == "**not reached**"
    assert said(run(number=1, cpu_us=9), run(number=2, cpu_us=9), run(number=3, cpu_us=11)) == (
        "undecided: 2 of 3 rounds reach it"
    )
    many = [*(run(number=n, cpu_us=9) for n in range(6)), run(number=6, cpu_us=11)]
    peers += [run(system="bun-raw", number=n, cpu_us=10) for n in (0, 4, 5, 6)]
    assert said(*many) == "reached, noisy: 6 of 7 rounds"
    assert said(run(number=1, cpu_us=1, delivered=4000)) == "**not reached**: drops frames"
    assert said(run(number=1, corrupt=1)) == "**not reached**: wrong frames"
    assert said(run(number=1, load_cpu_s=1.9)) == "reached; the load was at its limit"


def test_a_run_that_failed_is_named_and_counts_against_its_goals() -> None:
    results = msgspec.json.decode(raw(run(number=1), run(system="bun-raw", number=1, cpu_us=10)))
    results["failed"] = [{"point": "json-1x50", "system": "watchout", "round": 2, "why": "it\nended <here>"}]
    page = report.render(figures.read(msgspec.json.encode(results)))
    assert "- watchout at json-1x50, round 2: it ended &lt;here>\n" in page
    assert row(page, "CPU, JSON, 1 → 50")[3] == "**not reached**: a run failed"


def test_delivered_stands_beside_sent_and_is_never_rounded_up_to_all() -> None:
    page = rendered(run(number=1), run(system="bun", number=1, delivered=4999), run(system="ws", delivered=2500))
    cpu = "CPU per delivered frame"
    assert row(page, "JSON, 1 → 50", "**watchout**", under=cpu)[6:] == ["100", "5 000, 100 %", ""]
    assert row(page, "", "Bun publish", under=cpu)[6:] == ["100", "4 999, 99.98 %", ""]
    one_of_many = rendered(run(expected=1_000_000, delivered=999_999))
    assert row(one_of_many, "JSON, 1 → 50", "**watchout**", under=cpu)[7] == "999 999, 99.99 %"
    assert row(page, "", "ws on Node", under=cpu)[8] == "drops 50 % of the frames: CPU not comparable"


def test_wrong_frames_make_a_run_invalid_at_the_head_of_the_page() -> None:
    page = rendered(run(corrupt=2), run(system="bun"))
    assert "**INVALID runs, with wrong frames: watchout at json-1x50.**" in page
    assert row(page, "JSON, 1 → 50", "**watchout**", under="CPU per delivered frame")[2] == "–"


def test_a_load_at_its_limit_is_a_warning_at_the_head_of_the_page() -> None:
    late = {"p50": 1, "p99": 12.5, "p999": 20, "max": 30}
    page = rendered(run(lateness_ms=late), run(system="ws", load_cpu_s=1.7))
    assert "- watchout at json-1x50: load was late by 12.5 ms\n" in page
    assert "- ws on Node at json-1x50: load took 85 % of a core\n" in page
    assert "at its limit" not in rendered(run())


def test_who_could_not_run_is_named_with_the_reason() -> None:
    page = rendered(missing={"nchan": "no nginx here:\n apt-get install nginx", "ws": "x" * 1000})
    assert "- Nchan: no nginx here: apt-get install nginx\n" in page
    assert max(map(len, page.partition("### Not measured")[2].splitlines())) < 400


def test_points_that_are_pairs_stand_beside_each_other() -> None:
    asked = run("ml-on", number=1, cpu_us=11) | {"ml_requests": 250}
    page = rendered(run("ml-off", number=1, cpu_us=10), asked)
    assert row(page, figures.POINTS["ml-off"])[1:3] == ["10", "–"]
    assert row(page, figures.POINTS["ml-on"])[1:3] == ["11", "1.10"]
    assert row(page, figures.POINTS["ml-on"])[8] == "ML service asked 250 times a run"
    assert "against itself" not in rendered(run())


def test_the_json_of_cameras_stands_beside_compact_json() -> None:
    page = rendered(
        run("json-50x1", cpu_us=10), run("json-spaces-50x1", cpu_us=11), run("json-slashes-50x1", cpu_us=12)
    )
    under = "The JSON of cameras"
    assert row(page, "JSON, 50 × (1 → 1)", under=under)[1:3] == ["10", "–"]
    assert row(page, figures.POINTS["json-spaces-50x1"], under=under)[1:3] == ["11", "1.10"]
    assert row(page, figures.POINTS["json-fields-50x1"], under=under)[1:3] == ["–", "–"]
    assert "JSON, 1 → 50" not in page.partition(under)[2].partition("###")[0]
    assert under not in rendered(run())


def test_tls_stands_beside_that_of_bun_and_that_of_proxies() -> None:
    page = rendered(
        run("tls-1x10", cpu_us=30, p99=2.0), run("tls-1x10", "bun", cpu_us=20), run("tls-1x10", "nginx", cpu_us=60)
    )
    rows = [line for line in page.partition("### TLS\n")[2].partition("\n### ")[0].splitlines() if "|" in line]
    assert [[cell.strip() for cell in line.split("|")[1:7]] for line in rows[2:]] == [
        ["TLS, 1 → 10", "**watchout**", "30", "1.50", "–", "2"],
        ["", "Bun publish", "20", "–", "0.67", "1"],
        ["", "watchout behind nginx", "60", "3.00", "2.00", "1"],
    ]
    assert "### TLS" not in rendered(run())


def test_what_each_process_took_is_told_by_the_kernels_short_names() -> None:
    one = run(number=1)
    one["processes"] = [
        {"pid": 1, "name": "watchout-gatewa", "cpu_s": 0.005}, {"pid": 2, "name": "watchout-gatewa", "cpu_s": 0.005},
        {"pid": 3, "name": "watchout-mlbrid", "cpu_s": 0.001}, {"pid": 4, "name": "tracker", "cpu_s": 9.0},
    ]  # fmt: skip
    page = rendered(one).partition("### CPU by process")[2]
    assert row(page, "JSON, 1 → 50") == ["JSON, 1 → 50", "2", "–", "0.20"]


def test_the_micro_benchmarks_stand_on_the_page_when_they_were_run() -> None:
    results = figures.read(raw(*FEW))
    assert "Hot functions" not in report.render(results)
    page = report.render(results, MICRO)
    assert "| `Hub.frame`, 1 viewer | 5.31 µs | 3.50 (3.40–3.60) | copy of 44 002 bytes | 1.50 µs |" in page


def test_every_table_is_whole() -> None:
    page = report.render(figures.read(raw(*FEW, missing={"ws": "a | b"})), MICRO)
    columns = 0
    for line in page.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert cells in (columns, 0) or not columns, line
        columns = cells


NAMES = st.text(min_size=1, max_size=20)


@given(st.lists(st.tuples(st.sampled_from(list(figures.POINTS)) | NAMES, st.sampled_from(list(figures.SYSTEMS)) | NAMES,
                          st.integers(0, 3), st.floats(0, 1e9), st.integers(0, 10**6))))  # fmt: skip
def test_whatever_the_figures_are_there_is_a_page_and_a_plot(runs: list[tuple[str, str, int, float, int]]) -> None:
    results = figures.read(raw(*(run(p, s, n, cpu_us=us, p99=us, delivered=d) for p, s, n, us, d in runs)))
    assert report.render(results).count("\n### ") >= 4
    assert ET.fromstring(report.plot(results)).tag.endswith("svg")


# ── the plot ─────────────────────────────────────────────────────────────────────────────────────────────────────


def bars(drawn: str) -> list[ET.Element]:
    found = ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}rect")
    return [rect for rect in found if rect.get("class") in ("own", "peer", "floor") and rect.get("width") != "12"]


def test_a_bar_is_as_long_as_its_median() -> None:
    own, peer, *_ = bars(report.plot(figures.read(raw(run(cpu_us=5), run(system="bun", cpu_us=10)))))
    assert (own.get("class"), peer.get("class")) == ("own", "peer")
    assert float(own.attrib["width"]) == pytest.approx(float(peer.attrib["width"]) / 2, abs=0.1)


def test_nothing_is_drawn_outside_of_the_paper() -> None:
    wild = [run(p, s, n, cpu_us=10.0**n, p99=10.0**n) for p in figures.LOADS for s in figures.SYSTEMS for n in range(5)]
    drawn = report.plot(figures.read(raw(*wild)))
    paper = ET.fromstring(drawn)
    width, height = float(paper.attrib["width"]), float(paper.attrib["height"])
    for rect in bars(drawn):
        assert 0 <= float(rect.attrib["x"]) + float(rect.attrib["width"]) <= width
        assert 0 <= float(rect.attrib["y"]) + float(rect.attrib["height"]) <= height
    assert all(float(end) <= width for end in re.findall(r"H([\d.]+)", drawn))


def test_the_plot_is_readable_on_light_and_on_dark_paper() -> None:
    """WCAG 2.2: 4.5 to 1 between text and paper (1.4.3), 3 to 1 between paper and the bar that tells (1.4.11)."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    drawn = report.plot(figures.read(raw(*FEW)))
    by_day, _, by_night = drawn.partition("@media (prefers-color-scheme: dark)")
    for css in (by_day, by_night):
        colours = dict(re.findall(r"\.(\w+) \{ fill: (#[0-9a-f]{6})", css))
        for name, least in (("ink", 4.5), ("quiet", 4.5), ("own", 3.0)):
            a, b = sorted((light(colours["paper"]), light(colours[name])))
            assert (b + 0.05) / (a + 0.05) >= least, name


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_what_stands_between_the_marks_is_written() -> None:
    page = f"mine\n{report.BEGIN}\nold\n{report.END}\nmine too\n"
    made = report.with_figures(page, "new\n")
    assert made == f"mine\n{report.BEGIN}\n\nnew\n\n{report.END}\nmine too\n"
    assert report.with_figures(made, "new\n") == made


@pytest.mark.parametrize("page", ["", report.BEGIN, report.END, f"{report.END}{report.BEGIN}"])
def test_a_page_without_a_place_for_figures_is_left_alone(page: str) -> None:
    with pytest.raises(report.ReportFault, match="has no part between"):
        report.with_figures(page, "new")


def test_a_look_at_other_results_leaves_the_docs_alone(tmp_path: Path) -> None:
    before = report.PAGE.read_bytes()
    look = tmp_path / "quick.json"
    look.write_bytes(raw(*FEW, quick=True))
    (tmp_path / "micro.json").write_bytes(msgspec.json.encode(MICRO))
    result = CliRunner().invoke(report.main, [str(look)])
    assert result.exit_code == 0
    page = (tmp_path / "quick.md").read_text()
    assert "](quick.svg)" in page
    assert "](quick.json)" in page
    assert "Hot functions" in page
    ET.fromstring((tmp_path / "quick.svg").read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["micro.json", "quick.json", "quick.md", "quick.svg"]
    assert report.PAGE.read_bytes() == before


def test_a_run_as_make_bench_writes_it_makes_the_page_and_the_plot_of_the_docs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in (("RAW", "latest.json"), ("PAGE", "performance.md"), ("PLOT", "performance.svg")):
        monkeypatch.setattr(report, name, tmp_path / file)
    (tmp_path / "latest.json").write_bytes(raw(*FEW))
    (tmp_path / "performance.md").write_bytes((ROOT / "docs/performance.md").read_bytes())
    assert report.write(tmp_path / "latest.json") == (tmp_path / "performance.md", tmp_path / "performance.svg")
    page = (tmp_path / "performance.md").read_text()
    assert "](performance.svg)" in page
    assert "](../benchmarks/results/latest.json)" in page
    assert page.partition(report.BEGIN)[0] == (ROOT / "docs/performance.md").read_text().partition(report.BEGIN)[0]


@pytest.mark.parametrize("data", [None, b"", b"{}", b"\xff"])
def test_results_that_cannot_be_read_are_a_sentence(tmp_path: Path, data: bytes | None) -> None:
    file = tmp_path / "x.json"
    if data is not None:
        file.write_bytes(data)
    result = CliRunner().invoke(report.main, [str(file)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {file}: ")
    assert list(tmp_path.glob("*.md")) == []


def test_micro_results_that_cannot_be_read_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(raw(*FEW))
    (tmp_path / "micro.json").write_bytes(b"[]")
    result = CliRunner().invoke(report.main, [str(tmp_path / "x.json")])
    assert result.exit_code == 1
    assert "not the results of the micro-benchmarks" in result.stderr


def test_results_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_RAW_BYTES", 10)
    (tmp_path / "x.json").write_bytes(raw(*FEW))
    with pytest.raises(report.ReportFault, match="expected at most 10"):
        report.write(tmp_path / "x.json")


@pytest.mark.skipif(not report.RAW.exists(), reason="no benchmark has been committed yet: make bench")
def test_the_page_and_the_plot_in_the_docs_are_those_of_the_committed_results() -> None:
    for path, text in report.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: python -m benchmarks.report"


def test_the_page_has_its_place_for_figures() -> None:
    page = (ROOT / "docs/performance.md").read_text()
    assert page.count(report.BEGIN) == page.count(report.END) == 1
