"""The order of tests: nothing is lost, parts are those of pytest-xdist, and each begins with its long files."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdist.scheduler import WorkStealingScheduling

from tests.kit.processes import REPOSITORY
from tests.kit.schedule import LIST, arranged, groups_of, listed, page, parts, pytest_collection_modifyitems

FILES = [f"f{number}" for number in range(9)]
TESTS = st.lists(st.sampled_from(FILES), max_size=60).map(sorted)
SECONDS = st.dictionaries(st.sampled_from(FILES), st.floats(0, 300))


GROUPED = st.dictionaries(st.sampled_from(FILES), st.sampled_from(["g1", "g2"]))


@given(files=TESTS, seconds=SECONDS, workers=st.integers(1, 8), groups=GROUPED)
def test_every_test_is_there_once_and_a_file_keeps_its_order(files, seconds, workers, groups):
    order = arranged(files, seconds, workers, groups)
    assert sorted(order) == list(range(len(files)))
    for file in FILES:
        its = [index for index in order if files[index] == file]
        assert its == sorted(its)


@given(count=st.integers(0, 200), workers=st.integers(1, 8))
def test_parts_are_what_xdist_gives_at_first(count, workers):
    config = MagicMock()
    config.getvalue.return_value = [f"{workers}*popen"]
    scheduling = WorkStealingScheduling(config)
    scheduling.numnodes = workers
    nodes = [MagicMock(shutting_down=False) for _ in range(workers)]
    for node in nodes:
        scheduling.add_node(node)
        scheduling.add_node_collection(node, [str(number) for number in range(count)])
    scheduling.schedule()
    assert [len(scheduling.node2pending[node]) for node in nodes] == parts(count, workers)


def test_each_part_begins_with_its_long_files_the_longest_first():
    files = [file for file in ("a", "b", "c", "d", "e", "f") for _ in range(2)]
    seconds = {"b": 90, "d": 50, "e": 45, "f": 200}
    order = [files[index] for index in arranged(files, seconds, 2)]
    assert order == ["f", "f", "a", "a", "c", "c", "b", "b", "d", "d", "e", "e"]


def test_the_files_of_a_group_stand_together_and_count_as_one_long_file():
    files = [file for file in ("a", "b", "c", "d", "e", "f") for _ in range(2)]
    order = [files[index] for index in arranged(files, {"b": 90, "d": 50, "e": 60}, 2, {"d": "g", "e": "g", "f": "g"})]
    assert order == ["d", "d", "e", "e", "f", "f", "b", "b", "a", "a", "c", "c"]


@pytest.mark.parametrize(("scope", "groups"), [("session", {"tests/test_a.py": "house"}), ("module", {})])
def test_a_file_belongs_to_a_group_by_a_fixture_of_the_session(scope, groups):
    def item(file, *names):
        definitions = {name: (SimpleNamespace(scope=scope),) for name in names}
        fixtures = SimpleNamespace(name2fixturedefs=definitions)
        return SimpleNamespace(nodeid=f"{file}::one", fixturenames=names, _fixtureinfo=fixtures)

    assert groups_of([item("tests/test_a.py", "house", "clients"), item("tests/test_b.py", "clients")]) == groups


def test_more_long_tests_than_a_part_holds():
    assert sorted(arranged(["a"] * 7 + ["b"], {"a": 9}, 4)) == list(range(8))


def test_a_worker_orders_what_it_collected_and_a_run_without_workers_does_not():
    """The option `--dist` is "no" in a worker of pytest-xdist: it must not decide."""
    (long, *_) = listed(LIST.read_text())
    names = ["tests/test_a.py::one", "tests/test_a.py::two", f"{long}::one", f"{long}::two"]
    items = [SimpleNamespace(nodeid=name) for name in names]
    pytest_collection_modifyitems(SimpleNamespace(option=SimpleNamespace(dist="worksteal")), items)
    assert [item.nodeid for item in items] == names
    pytest_collection_modifyitems(SimpleNamespace(workerinput={"workercount": 2}), items)
    assert [item.nodeid for item in items] == names[2:] + names[:2]


def test_the_list_is_written_and_read():
    rows = [("tests/a.py::one", "1.5"), ("tests/a.py::two[x::y]", "1.5"), ("tests/b.py::one", "1.9"), ("c.py::x", "40")]
    text = page([{"test": name, "wall_s": wall_s} for name, wall_s in rows])
    assert listed(text) == {"c.py": 40, "tests/a.py": 3}


@pytest.mark.parametrize("file", listed(LIST.read_text()))
def test_each_file_of_the_list_is_there(file):
    assert (REPOSITORY / file).is_file(), "take it from the list, or run make test-costs"
