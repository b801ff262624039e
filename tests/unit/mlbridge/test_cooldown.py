"""What is told of what a service says again and again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import Alert
from watchout.mlbridge.cooldown import IDS_KNOWN_S, Cooldown, kind_of

SEVERITIES = ("low", "medium", "high", "critical")


class Service:
    """Says alerts with ids of their own to one cooldown."""

    def __init__(self, pause_s: float = 5.0, **bounds: int) -> None:
        self.cooldown = Cooldown(pause_s, **bounds)
        self._number = 0

    def says(self, now: float, message: str = "a person", **fields: Any) -> Alert | None:
        self._number += 1
        values = {"id": f"a{self._number}", "stream_id": "s", "severity": "medium", "timestamp": 1, **fields}
        return self.cooldown.take(Alert(message=message, **values), now)


def test_an_alert_is_told_and_its_like_only_after_the_pause() -> None:
    service = Service()
    assert [service.says(now) is not None for now in (0, 1, 4.9, 5.0, 5.1, 10.1)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_the_next_one_says_how_many_were_not_told() -> None:
    service = Service()
    first = service.says(0)
    assert first is not None
    assert first.metadata is None
    for now in (1, 2, 3):
        service.says(now)
    after = service.says(6, metadata={"confidence": 0.5})
    assert after is not None
    assert after.metadata == {"confidence": 0.5, "suppressed": 3}
    assert service.cooldown.suppressed == 3
    later = service.says(12)
    assert later is not None
    assert later.metadata is None


def test_a_higher_severity_does_not_wait_and_begins_a_pause_of_its_own() -> None:
    service = Service()
    service.says(0)
    service.says(1)
    higher = service.says(2, severity="critical")
    assert higher is not None
    assert higher.metadata == {"suppressed": 1}
    assert service.says(3, severity="high") is None
    assert service.says(6.9, severity="critical") is None
    assert service.says(7, severity="low") is not None


@pytest.mark.parametrize("other", [{"stream_id": "t"}, {"message": "a car"}, {"metadata": {"objectType": "car"}}])
def test_another_stream_or_kind_has_a_pause_of_its_own(other: dict[str, Any]) -> None:
    service = Service()
    service.says(0)
    assert service.says(1, **other) is not None


def test_the_kind_is_the_type_of_object_whatever_the_message_says() -> None:
    service = Service()
    service.says(0, "a person at the door", metadata={"objectType": "person"})
    assert service.says(1, "a person in the garden", metadata={"objectType": "person", "confidence": 0.4}) is None


@pytest.mark.parametrize("value", [None, "", 7, ["person"], {"a": 1}])
def test_a_type_of_object_that_is_no_text_is_none(value: object) -> None:
    alert = Alert(id="a", stream_id="s", severity="low", message="m", timestamp=1, metadata={"objectType": value})
    assert kind_of(alert) == "message m"


@pytest.mark.parametrize(
    ("one", "same"),
    [("person 0.87", "person 0.9"), ("3 cars", "12 cars"), ("x=1,5 y=2", "x=2 y=19"), ("motion", "motion")],
)
def test_messages_that_differ_in_numbers_are_of_one_kind(one: str, same: str) -> None:
    service = Service()
    service.says(0, one)
    assert service.says(1, same) is None


def test_with_no_pause_every_alert_is_told_but_none_twice() -> None:
    service = Service(0)
    assert all(service.says(0) is not None for _ in range(10))
    assert service.says(0, id="again") is not None
    assert service.says(0, id="again") is None
    assert (service.cooldown.repeated, service.cooldown.suppressed) == (1, 0)


def test_an_id_may_stand_for_another_alert_after_a_quarter_of_an_hour() -> None:
    service = Service(0)
    assert [service.says(now, id="x") is not None for now in (0, IDS_KNOWN_S, IDS_KNOWN_S + 1, IDS_KNOWN_S + 2)] == [
        True, False, True, False,
    ]  # fmt: skip


def test_ids_are_forgotten_after_a_quarter_of_an_hour_so_that_memory_does_not_grow_up_to_their_bound() -> None:
    service = Service()
    for now in range(3 * int(IDS_KNOWN_S)):
        service.says(now)
        assert service.cooldown.known_ids <= IDS_KNOWN_S + 1
    service.says(5 * IDS_KNOWN_S)
    assert service.cooldown.known_ids == 1


def test_what_is_said_twice_is_not_counted_as_held_back() -> None:
    service = Service()
    service.says(0, id="x")
    service.says(1, id="x")
    after = service.says(6)
    assert after is not None
    assert after.metadata is None


def test_kinds_and_ids_are_bounded_and_the_oldest_is_forgotten() -> None:
    service = Service(max_kinds=2, max_ids=2)
    for name in ("a b", "c d", "e f"):
        service.says(0, name)
    assert len(service.cooldown) == 2
    assert service.says(1, "a b") is not None
    assert service.says(1, "e f") is None


@given(
    st.lists(
        st.tuples(st.floats(0, 4), st.sampled_from("st"), st.sampled_from(["car", "dog"]), st.sampled_from(SEVERITIES)),
        max_size=60,
    )
)
def test_every_alert_is_told_or_counted_and_none_of_a_kind_is_told_twice_in_a_pause_without_a_higher_severity(
    said: list[tuple[float, str, str, str]],
) -> None:
    service = Service(5.0)
    now, told = 0.0, 0
    last: dict[tuple[str, str], tuple[float, int]] = {}
    untold: dict[tuple[str, str], int] = {}
    for pause, stream, message, severity in said:
        now += pause
        rank, key = SEVERITIES.index(severity), (stream, message)
        alert = service.says(now, message, stream_id=stream, severity=severity)
        waits = key in last and now < last[key][0] + 5.0 and rank <= last[key][1]
        assert (alert is None) is waits
        if alert is None:
            untold[key] = untold.get(key, 0) + 1
        else:
            told += 1
            assert (alert.metadata or {}).get("suppressed", 0) == untold.pop(key, 0)
            assert alert.message == message
            last[key] = now, rank
    assert told + service.cooldown.suppressed == len(said)
