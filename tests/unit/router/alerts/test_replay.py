"""Gateways that joined again: which alerts they get a second time, in what order, and when live ones go on."""

from __future__ import annotations

import json

from watchout.common.alerts.model import Alert
from watchout.router.alerts.log import AlertLog
from watchout.router.alerts.replay import BATCH, AlertReplay


def log_of(count: int) -> AlertLog:
    log = AlertLog()
    for number in range(1, count + 1):
        text = json.dumps(
            {"streamId": "cam", "id": f"a{number}", "timestamp": 1, "severity": "low", "message": "m"}
        ).encode()
        log.add(Alert.from_json(text), text, 1, 0.0)
    return log


def test_live_alerts_are_withheld_from_the_greeting_to_the_end_of_the_replay() -> None:
    replay = AlertReplay(log_of(3))
    assert not replay.is_behind(b"a")
    replay.begin(b"a")
    assert replay.is_behind(b"a")
    assert replay.next_batch(b"a") == []  # it has not said yet what it has
    assert replay.resume(b"a", 1)
    assert [logged.number for logged in replay.next_batch(b"a")] == [2, 3]
    assert replay.is_behind(b"a")
    assert replay.next_batch(b"a") == []
    assert not replay.is_behind(b"a")


def test_missed_alerts_come_in_batches_and_in_order() -> None:
    replay, got = AlertReplay(log_of(2 * BATCH + 5)), []
    replay.begin(b"a")
    assert replay.resume(b"a", 0)
    while batch := replay.next_batch(b"a"):
        assert len(batch) <= BATCH
        got += [logged.number for logged in batch]
    assert got == list(range(1, 2 * BATCH + 6))


def test_a_member_that_is_gone_or_never_greeted_gets_none() -> None:
    replay = AlertReplay(log_of(3))
    assert not replay.resume(b"a", 0)
    replay.begin(b"a")
    assert replay.resume(b"a", 0)
    replay.forget(b"a")
    assert replay.next_batch(b"a") == []
    assert not replay.is_behind(b"a")
