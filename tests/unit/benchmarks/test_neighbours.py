"""The benchmark of what one costs others measures what it says."""

from __future__ import annotations

import json

from benchmarks import neighbours
from watchout.common.alerts.model import MAX_METADATA_BYTES, check_draft


def test_the_metadata_are_as_nasty_as_is_allowed_and_no_nastier() -> None:
    metadata = neighbours.nasty_metadata()
    check_draft({"severity": "low", "message": "x", "metadata": metadata})
    assert len(json.dumps(metadata, separators=(",", ":"))) == MAX_METADATA_BYTES


def test_a_registration_is_measured_in_the_steady_state() -> None:
    call = neighbours._registrations(5)
    for _ in range(10):
        call()


def test_a_percentile_is_of_all_values_together() -> None:
    assert neighbours._percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 3.0
    assert neighbours._percentile([float(n) for n in range(100)], 0.99) == 99.0
