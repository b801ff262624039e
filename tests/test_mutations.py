"""Mutations fit the code: each can be made, changes something, names tests that exist. `make mutants` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation import page
from tests.mutation.model import Mutation, faults
from tests.mutation.mutations import MUTATIONS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_a_mutation_fits_the_code_and_its_tests(mutation: Mutation) -> None:
    assert faults(mutation, ROOT) == []


def test_names_are_unique() -> None:
    assert len({each.name for each in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"file": "nowhere.py"}, "does not exist"),
        ({"before": "this is nowhere in the file"}, "occurs 0 times"),
        ({"after": "def ("}, "no Python"),
        ({"after": MUTATIONS[0].before}, "changes nothing"),
        ({"unit": ()}, "no unit test"),
        ({"e2e": ("tests/test_mutations.py::test_that_is_not_there",)}, "there is no test"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], says: str) -> None:
    good = MUTATIONS[0]
    fields = {name: getattr(good, name) for name in ("name", "rule", "file", "before", "after", "unit", "e2e")}
    assert any(says in fault for fault in faults(Mutation(**{**fields, **change}), ROOT))


def test_the_page_has_every_mutation_as_it_is_and_no_other() -> None:
    text = (ROOT / "docs/mutations.md").read_text()
    results = page.results_of(text)
    assert set(results) == {each.name for each in MUTATIONS}
    assert page.render(MUTATIONS, results) == text
    assert [name for name, result in results.items() if not page.is_caught(result)] == []


def test_a_row_of_the_page_is_renewed_without_the_others() -> None:
    first, second, third = MUTATIONS[:3]
    former = page.render((first, second), {first.name: ("caught", "caught"), second.name: ("NOT CAUGHT", "caught")})
    assert "1 of 2 caught by both kinds of tests" in former
    results = page.results_of(former) | {second.name: ("caught", "caught (hung)")}
    renewed = page.render((first, second, third), results)
    assert page.results_of(renewed) == {
        first.name: ("caught", "caught"),
        second.name: ("caught", "caught (hung)"),
        third.name: ("not run", "not run"),
    }
    assert "2 of 3 caught by both kinds of tests" in renewed
