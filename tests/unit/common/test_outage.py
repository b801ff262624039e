"""Which failures of an outage are logged."""

from __future__ import annotations

from watchout.common.toolbox.outage import QUIET_S, OutageLog


def test_an_outage_is_told_once_and_not_more_often_than_every_ten_seconds() -> None:
    outage = OutageLog()
    assert not outage.recovered()
    assert outage.failed("a", 0.0)
    assert not outage.failed("a", 100.0)
    assert outage.failed("b", 100.0)
    assert outage.recovered()
    assert not outage.recovered()
    assert not outage.failed("b", 100.0 + QUIET_S - 0.1)
    assert not outage.recovered()
    assert outage.failed("b", 100.0 + QUIET_S)
