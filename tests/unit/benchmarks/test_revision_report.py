"""What is said of the working tree beside a former revision, and where it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import figures, report, revision_report
from benchmarks.figures import Figure
from tests.unit.benchmarks.made_up import idle, raw, run

ROOT = Path(__file__).parents[3]
#: Two rounds: the first cheaper than before by a tenth, the second dearer by a tenth; memory grew in both.
ROUNDS = (
    run(number=1, cpu_us=9.0, memory=66 * 2**20),
    run(system="former", number=1, cpu_us=10.0),
    run(number=2, cpu_us=11.0, memory=66 * 2**20),
    run(system="former", number=2, cpu_us=10.0),
    idle(number=1, kb=6.0),
    idle("former", number=1, kb=8.0),
    idle(number=2, kb=6.0),
    idle("former", number=2, kb=8.0),
)


def rendered(*runs: dict[str, object]) -> str:
    return revision_report.render(figures.read(raw(*runs)))


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        (None, "not measured"),
        ((1.5,), "one round shows nothing"),
        ((0.9, 1.1), "as before"),
        ((1.0, 1.0), "as before"),
        ((1.0, 1.2), "as before"),
        ((0.8, 0.99), "less in every round"),
        ((1.01, 1.3), "more in every round"),
    ],
)
def test_a_change_counts_only_where_every_round_shows_it(ratios: tuple[float, ...] | None, said: str) -> None:
    assert revision_report.verdict(None if ratios is None else Figure(ratios)) == said


def test_each_quantity_has_its_table_with_both_revisions_and_their_ratio() -> None:
    page = rendered(*ROUNDS)
    assert "| JSON, 1 → 50 | 10 (9 to 11) | 10 | 1.00 (0.90 to 1.10) | as before | 10 000, 100 % |  |" in page
    assert "| JSON, 1 → 50 | 66 | 60 | 1.10 | more in every round | 10 000, 100 % |  |" in page
    assert "| idle connections | 6 | 8 | 0.75 | less in every round | – |  |" in page
    for title, *_ in revision_report.TABLES:
        assert f"### {title}\n" in page


def test_a_ratio_is_made_of_runs_of_one_round() -> None:
    runs = (run(number=1, cpu_us=1.0), run(system="former", number=2, cpu_us=2.0))
    assert "| JSON, 1 → 50 | 1 | 2 | – | not measured |" in rendered(*runs)


def test_wrong_and_dropped_frames_are_remarked_with_the_revision_that_had_them() -> None:
    page = rendered(run(number=1, corrupt=1), run(system="former", number=1, delivered=4000))
    assert "now: INVALID: 1 corrupt and 0 reordered frames in 1 round" in page
    assert "before: drops 20 % of the frames: CPU not comparable" in page


def test_other_results_than_the_committed_ones_leave_the_docs_alone(tmp_path: Path) -> None:
    before = report.PAGE.read_bytes()
    look = tmp_path / "revision.json"
    look.write_bytes(raw(*ROUNDS))
    result = CliRunner().invoke(revision_report.main, [str(look)])
    assert result.exit_code == 0
    assert "](revision.json)" in (tmp_path / "revision.md").read_text()
    assert report.PAGE.read_bytes() == before


def test_the_committed_results_make_their_part_of_the_page_and_leave_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "performance.md"
    page.write_bytes(report.PAGE.read_bytes())
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(revision_report, "RAW", tmp_path / "revision.json")
    (tmp_path / "revision.json").write_bytes(raw(*ROUNDS))
    path, text = revision_report.page(tmp_path / "revision.json")
    assert path == page
    assert "](../benchmarks/results/revision.json)" in text
    for mark in (revision_report.BEGIN, report.BEGIN):
        assert text.count(mark) == 1
    assert text.partition(revision_report.BEGIN)[0] == page.read_text().partition(revision_report.BEGIN)[0]
    assert text.partition(revision_report.END)[2] == page.read_text().partition(revision_report.END)[2]


@pytest.mark.parametrize("data", [None, b"", b"{}"])
def test_results_that_cannot_be_read_are_a_sentence(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "x.json").write_bytes(data)
    result = CliRunner().invoke(revision_report.main, [str(tmp_path / "x.json")])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path / 'x.json'}: ")


def test_the_part_of_the_page_is_that_of_the_committed_results() -> None:
    page = report.PAGE.read_text()
    assert page.count(revision_report.BEGIN) == page.count(revision_report.END) == 1
    if revision_report.RAW.exists():
        path, text = revision_report.page()
        assert path.read_text() == text, "docs/performance.md is old: python -m benchmarks.revision_report"
    else:
        part = page.partition(revision_report.BEGIN)[2].partition(revision_report.END)[0]
        assert part.strip() == "Not measured yet."
