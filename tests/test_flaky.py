from __future__ import annotations

import pytest

from tests.kit.flaky import listed, verdict


@pytest.mark.parametrize(
    ("failed", "still", "known", "passed"),
    [
        (["a"], ["a"], [], False),
        (["a"], ["a"], ["a"], False),
        (["a"], [], [], False),
        (["a"], [], ["a"], True),
        (["a", "b"], [], ["a"], False),
        (["a", "b"], ["b"], ["a", "b"], False),
    ],
)
def test_a_run_with_failures_passes_only_when_all_of_them_are_known_flaky_ones(
    failed: list[str], still: list[str], known: list[str], passed: bool
) -> None:
    lines, verdict_passed = verdict(failed, still, known)
    assert verdict_passed is passed
    assert len(lines) == len(failed)


def test_the_list_holds_node_ids_and_comments() -> None:
    assert listed("# a comment\n\ntests/a.py::test_b\n  tests/c.py::test_d[x]\n") == {
        "tests/a.py::test_b",
        "tests/c.py::test_d[x]",
    }
