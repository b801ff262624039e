"""docs/faults.md names tests that exist, each fault says what happens, and no test of faults is missing."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[1]
PAGE: Final = (REPOSITORY / "docs/faults.md").read_text()
TEST: Final = re.compile(r"^ *(?:async )?def (test_\w+)\(", re.MULTILINE)
#: All tests there break something, except where processes merely work together.
OF_FAULTS: Final = ("tests/faults", *(f"tests/cluster/test_{name}.py" for name in ("faults", "mesh", "routers")))
NO_FAULTS: Final = {
    "test_honcho_start_with_two_gateways_serves_one_port",
    "test_the_procfile_starts_the_three_processes",
    "test_a_viewer_sees_a_camera_of_the_other_gateway",
    "test_a_camera_that_has_just_registered_to_produce_frames_is_streaming_on_the_other_gateway_too",
    "test_a_viewer_waits_for_a_stream_that_comes_on_the_other_gateway",
    "test_the_frame_that_comes_right_after_the_registration_reaches_who_waits_on_the_other_gateway",
    "test_the_data_crosses_gateways_unchanged_to_the_byte",
    "test_a_frame_of_16_mib_crosses_gateways",
    "test_a_camera_is_told_once_of_data_that_the_other_gateway_could_not_decode",
    "test_every_http_page_is_the_same_on_both_gateways",
    "test_another_users_stream_is_unauthorized_on_the_other_gateway_too",
    "test_alerts_reach_viewers_and_cameras_of_both_gateways_in_order",
    "test_a_take_over_across_gateways_leaves_viewers_and_frame_ids_in_order",
    "test_a_rate_that_only_the_far_viewer_wants_is_kept_across_gateways",
}


def names_in(place: str) -> list[str]:
    """The names of the tests in a file, or in all files of a folder."""
    path = REPOSITORY / place
    files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    return [name for file in files for name in TEST.findall(file.read_text())]


def test_every_row_says_what_happens_and_names_tests_that_exist() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] != "what was broken"]
    assert len(rows) > 20
    named = []
    for row in rows:
        assert len(row) == 3, row
        assert all(row), row
        assert re.fullmatch(r"(`test_\w+`(, )?)+", row[2]), row
        named += re.findall(r"`(test_\w+)`", row[2])
    assert [name for name, times in Counter(named).items() if times > 1] == [], "a test belongs to one row"
    assert set(named) - set(names_in("tests")) == set()


def test_no_test_of_a_fault_is_missing() -> None:
    found = {name for place in OF_FAULTS for name in names_in(place)}
    assert found >= NO_FAULTS
    assert found - set(re.findall(r"`(test_\w+)`", PAGE)) == NO_FAULTS
