"""The access log has one line per connection, and a storm cannot flood it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from watchout.gateway.why.access_log import BURST_S, REFUSED_SHARE, AccessLog


@pytest.fixture
def lines() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as found:
        yield found  # type: ignore[misc]


def test_fields_without_a_value_are_left_out_and_zeros_are_not(lines) -> None:
    assert AccessLog(50, 0.0, enabled=True).closed(0.0, {"user": None, "reason": "", "frames_in": 0, "code": 1000})
    (line,) = lines
    assert line == {
        "event": "connection closed", "log_level": "info", "module": "gateway.why.access_log", "frames_in": 0,
        "code": 1000,
    }  # fmt: skip


def test_what_is_over_the_rate_is_counted_and_the_next_line_says_how_many(lines) -> None:
    access = AccessLog(10, 0.0, enabled=True)
    most = int(10 * REFUSED_SHARE * BURST_S)
    written = [access.refused(0.0, {"address": "10.0.0.1"}) for _ in range(1000)]
    assert written == [True] * most + [False] * (1000 - most)
    assert access.refused(5.0, {"address": "10.0.0.2"})
    assert lines[-1]["left_out"] == 1000 - most
    assert access.refused(5.0, {"address": "10.0.0.3"})
    assert "left_out" not in lines[-1]


def test_refused_handshakes_take_no_lines_from_connections_that_end(lines) -> None:
    access = AccessLog(10, 0.0, enabled=True)
    for _ in range(1000):
        access.refused(0.0, {})
    assert access.closed(0.0, {"code": 1000})
    assert lines[-1]["event"] == "connection closed"


def test_it_can_be_switched_off(lines) -> None:
    access = AccessLog(10, 0.0, enabled=False)
    assert not access.closed(0.0, {"code": 1000})
    assert not access.refused(0.0, {"status": 401})
    assert lines == []
