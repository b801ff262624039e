"""The report of a soak: what grows, what cannot be told, and what did not work."""

from __future__ import annotations

import pytest

from watchout.ctl.rehearse.growth import Growth, growth_of
from watchout.ctl.rehearse.objectives import Verdict
from watchout.ctl.rehearse.soak_result import Soak, grown, soak_lines, soak_verdict


def growth(per_hour: float, seconds: int = 7200) -> Growth:
    samples = [(float(at), 50 + per_hour * at / 3600) for at in range(0, seconds, 10)]
    return growth_of(process="gateway-2", pid=9, quantity="memory", unit="MB", limit=1.0, samples=samples)


STILL, LEAKS, SHORT = growth(0.0), growth(3.0), growth(0.0, 60)


def soak(*found: Growth, faults: dict[str, int] | None = None) -> Soak:
    return Soak(growth=list(found), acts={"SIGHUP": 2, "POST /alerts": 60}, faults=faults or {})


@pytest.mark.parametrize(
    ("of_load", "found", "verdict"),
    [
        (Verdict.PASSED, soak(STILL), Verdict.PASSED),
        (Verdict.PASSED, soak(STILL, SHORT), Verdict.UNDECIDED),
        (Verdict.UNDECIDED, soak(STILL), Verdict.UNDECIDED),
        (Verdict.UNDECIDED, soak(LEAKS), Verdict.FAILED),
        (Verdict.FAILED, soak(STILL, SHORT), Verdict.FAILED),
        (Verdict.PASSED, soak(STILL, faults={"GET /metrics: status 500, expected 200": 1}), Verdict.FAILED),
    ],
)  # fmt: skip
def test_the_verdict_is_that_of_the_load_and_of_all_growth(of_load: Verdict, found: Soak, verdict: Verdict) -> None:
    assert soak_verdict(of_load, found) is verdict


def test_the_text_has_growth_with_its_error_and_what_went_wrong() -> None:
    found = soak(STILL, LEAKS, SHORT, faults={"SIGHUP: late": 3})
    text = "\n".join(soak_lines(found))
    for part in ("SIGHUP 2, POST /alerts 60", "3 × SIGHUP: late", "gateway-2 (9)", "+3.00 ± 0.00 MB, at most 1 MB",
                 "too few samples, at most 1 MB"):  # fmt: skip
        assert part in text
    assert [line[:6].strip() for line in text.splitlines()[4:]] == ["ok", "GROWS", "?"]
    assert grown(found) == [LEAKS]
