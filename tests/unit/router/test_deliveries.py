"""What waits for the webhook: every alert is taken or counted as dead, and all is bounded."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from watchout.router.webhook.deliveries import (
    AT_ONCE,
    LONGEST_PAUSE_S,
    LONGEST_RETRY_AFTER_S,
    MAX_LISTED,
    SPARE,
    Deliveries,
    WebhookDelivery,
)


def new(number: int = 0, now: float = 0.0, size: int = 10) -> WebhookDelivery:
    return WebhookDelivery(f"a{number}", f"a{number}", "cam-1", bytes(size), now)


def make(give_up_s: float = 3600.0, chance: float = 1.0, **bounds: int) -> Deliveries:
    return Deliveries(give_up_s=give_up_s, chance=lambda: chance, **bounds)


def test_alerts_are_tried_in_their_order_and_so_many_at_once() -> None:
    found = make()
    for number in range(AT_ONCE + 2):
        found.offer(new(number), 0)
    first = found.due(0, 0)
    assert [each.alert_id for each in first] == [f"a{number}" for number in range(AT_ONCE)]
    assert (found.due(0, 0), found.next_at(), found.waiting, found.under_way) == ([], None, 2, AT_ONCE)
    found.accepted(first[0])
    assert [each.alert_id for each in found.due(0, 0)] == [f"a{AT_ONCE}"]
    assert found.sent == 1


def pauses(found: Deliveries, most: int) -> list[float]:
    """Fail one delivery again and again; the pauses between its tries."""
    now, seen = 0.0, []
    found.offer(new(), 0)
    for _ in range(most):
        (delivery,) = found.due(now, 0)
        found.failed(delivery, "no", now, 0)
        at = found.next_at()
        if at is None:
            break
        seen.append(at - now)
        assert found.due(at - 0.01, 0) == []
        now = at
    return seen


def test_the_pause_doubles_up_to_its_longest_and_jitter_shortens_it_by_half_at_most() -> None:
    assert pauses(make(), 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pauses(make(chance=0), 4) == [0.5, 1, 2, 4]


def test_past_its_time_an_alert_is_given_up_counted_and_listed() -> None:
    found = make(give_up_s=10)
    assert pauses(found, 9) == [1, 2, 4]
    assert (found.dead, found.idle, found.bytes) == (1, True, 0)
    (dead,) = found.listed
    assert (dead.alert_id, dead.stream_id, dead.attempts, dead.reason, dead.at) == ("a0", "cam-1", 4, "no", 0)


def test_one_that_waited_for_its_turn_too_long_is_not_tried_any_more() -> None:
    found = make(give_up_s=10)
    found.offer(new(1, now=0), 0)
    found.offer(new(2, now=5), 0)
    assert [each.alert_id for each in found.due(11, 0)] == ["a2"]
    assert [(each.alert_id, each.attempts) for each in found.listed] == [("a1", 0)]


def test_while_it_fails_one_request_is_under_way_and_after_a_success_all_may_be() -> None:
    found = make()
    for number in range(20):
        found.offer(new(number), 0)
    for delivery in found.due(0, 0):
        found.failed(delivery, "down", 0, 0)
    (probe,) = found.due(0, 0)
    assert found.due(0, 0) == []
    found.accepted(probe)
    assert len(found.due(0, 0)) == AT_ONCE


def test_a_retry_after_is_obeyed_for_all_alerts() -> None:
    found = make()
    found.offer(new(1), 0)
    found.offer(new(2), 0)
    first, second = found.due(0, 0)
    found.failed(first, "429", 0, 0, retry_after_s=30)
    found.accepted(second)
    found.offer(new(3), 0)
    assert found.due(29.9, 0) == []
    assert found.next_at() == 30
    assert len(found.due(30, 0)) == 2


def test_a_receiver_that_is_gone_gets_nothing_any_more() -> None:
    found = make()
    for number in range(AT_ONCE + 3):
        found.offer(new(number), 0)
    first, second, *others = found.due(0, 0)
    found.gone(first, "410", 7)
    assert found.disabled
    assert (found.waiting, found.bytes, found.dead, found.next_at()) == (0, 0, 4, None)
    found.failed(second, "no", 0, 0)
    for other in others:
        found.accepted(other)
    found.offer(new(99), 0)
    assert found.due(1e6, 0) == []
    assert (found.dead, found.sent, found.idle) == (6, AT_ONCE - 2, True)


def test_past_its_bounds_the_oldest_is_given_up() -> None:
    few, small = make(max_waiting=2), make(max_bytes=25)
    for found in (few, small):
        for number in range(4):
            found.offer(new(number), 0)
        assert [each.alert_id for each in found.due(0, 0)] == ["a2", "a3"]
        assert found.dead == 2
    large = make(max_bytes=25)
    large.offer(new(1, size=500), 0)
    assert len(large.due(0, 0)) == 1


def test_the_list_of_the_dead_is_short_and_has_the_newest() -> None:
    found = make(max_waiting=1)
    for number in range(100):
        found.offer(new(number), 0)
    assert [each.alert_id for each in found.listed] == [f"a{number}" for number in range(99 - MAX_LISTED, 99)]
    assert found.dead == 99


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["offer", "taken", "failed", "busy", "later", "gone"]), max_size=120),
    st.floats(0, 1),
)
def test_every_alert_is_sent_or_dead_or_waits_whatever_happens(steps: list[str], chance: float) -> None:
    found = make(give_up_s=200, chance=chance, max_waiting=10, max_bytes=150)
    now, offered = 0.0, 0
    under_way: list[WebhookDelivery] = []
    for step in steps:
        if step == "offer":
            found.offer(new(offered, now), 0)
            offered += 1
        elif step == "later":
            at = found.next_at()
            now = now + 1 if at is None else max(now, at)
        elif under_way:
            delivery = under_way.pop(0)
            if step == "taken":
                found.accepted(delivery)
            elif step == "gone" and chance > 0.9:
                found.gone(delivery, "410", 0)
            else:
                found.failed(delivery, "no", now, 0, retry_after_s=40 if step == "busy" else None)
        under_way += found.due(now, 0)
        assert offered == found.sent + found.dead + found.waiting + found.under_way
        assert found.under_way == len(under_way) <= AT_ONCE
        assert found.waiting <= 10
        assert found.bytes == 10 * found.waiting
        assert found.next_at() is not None or found.under_way or not found.waiting
    for delivery in under_way:
        found.accepted(delivery)
    for _ in range(50):
        at = found.next_at()
        if at is None:
            break
        now = max(now, at)
        for delivery in found.due(now, 0):
            found.accepted(delivery)
    assert found.idle
    assert offered == found.sent + found.dead
    assert LONGEST_PAUSE_S < 200


def test_while_the_receiver_wants_nothing_for_long_those_that_were_given_up_are_let_go_of() -> None:
    found = make(max_waiting=100)
    found.offer(new(), 0)
    (first,) = found.due(0, 0)
    found.failed(first, "503", 0, 0, retry_after_s=LONGEST_RETRY_AFTER_S)
    offered = [new(number, size=1000) for number in range(1, 5000)]
    for number, delivery in enumerate(offered):
        found.offer(delivery, 0)
        assert found.due(1, 0) == []
        assert len(found._ready) + len(found._later) <= 2 * (2 * 100 + SPARE), number
    assert (found.waiting, found.bytes) == (100, 100_000)
    assert sum(len(each.body) for each in offered) == 100_000
    assert found.dead == 4900
    tried = found.due(LONGEST_RETRY_AFTER_S + 1, 0)
    while tried:
        for each in tried:
            assert each.body
            found.accepted(each)
        tried = found.due(LONGEST_RETRY_AFTER_S + 1, 0)
    assert found.sent == 100
    assert found.idle


def test_a_retry_that_gave_way_does_not_stay_until_its_time() -> None:
    found = make(max_waiting=10)
    for number in range(2000):
        found.offer(new(number), 0)
        for delivery in found.due(0, 0):
            found.failed(delivery, "no", 0, 0)
    assert len(found._later) + len(found._ready) <= 2 * (2 * 10 + SPARE)
    assert found.waiting == 10
