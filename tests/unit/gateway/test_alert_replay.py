"""Replays of recent alerts: their order with live ones, their limits, and subscriptions that end meanwhile."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.bus.reply_records import RecentAlertRow, RecentAlertsReply
from watchout.common.service import Tasks
from watchout.common.settings import Settings
from watchout.gateway.authorization import Authorization
from watchout.gateway.client import alert_replay
from watchout.gateway.client.alert_replay import MAX_REPLAYS, REPEATED_MS, AlertReplays, replay_of
from watchout.gateway.hub.delivery import acknowledged_key
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import Owner
from watchout.gateway.wire import Subject
from watchout.identity import Identity


class Talk:
    """The replays of one viewer, and a router that replies when the test sets `answer`."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[list[RecentAlertRow]] = asyncio.get_running_loop().create_future()
        self.sent: list[bytes] = []
        self.errors: list[str] = []
        self.slow = 0
        self.fetches = 0
        self.reads = True
        self.missing_before: int | None = None
        #: What was confirmed: the stream, the oldest alert that is kept, and how much was sent before.
        self.confirmed: list[tuple[str, int | None, int]] = []
        self.wanted: list[Subscription] = []
        self.tasks = Tasks()
        self.of_user = asyncio.Semaphore(4)
        context = SimpleNamespace(
            router=SimpleNamespace(
                queries=SimpleNamespace(alerts_since=self._alerts, meant_here=lambda _, since: since)
            ),
            authorization=Authorization(Settings()),
            hub=SimpleNamespace(last_known_owner=lambda _: Owner("ann")),
            replays=asyncio.Semaphore(32),
            replays_of=lambda _: self.of_user,
            tasks=self.tasks,
        )
        socket = SimpleNamespace(
            closing=False,
            send_message=self.sent.append,
            wait_until_written=self._wait_until_written,
            close_slow=self._close_slow,
        )
        protocol = SimpleNamespace(subscriptions=lambda: self.wanted)
        self.replays = AlertReplays(
            context,  # type: ignore[arg-type]
            socket,  # type: ignore[arg-type]
            protocol,  # type: ignore[arg-type]
            confirm=self._confirm,
            report_failure=self._report,
        )

    def _confirm(self, subscription: Subscription, missing_before: int | None) -> None:
        self.confirmed.append((subscription.stream, missing_before, len(self.sent)))

    def _report(self, text: str, subject: Subject) -> None:
        assert subject.stream_id is not None
        assert subject.stream_id in text
        self.errors.append(text)

    async def _alerts(self, stream: str, since_ms: int) -> RecentAlertsReply:
        self.fetches += 1
        alerts = await asyncio.shield(self.answer)
        return RecentAlertsReply(alerts=alerts, missing_before=self.missing_before)

    async def _wait_until_written(self) -> None:
        if not self.reads:
            await asyncio.Event().wait()

    def _close_slow(self, reason: str) -> None:
        self.slow += 1

    def subscribe(self, stream: str = "door") -> Subscription:
        subscription = Subscription(stream, Identity("ann", "s"), video=False, alerts=True)
        subscription.held_alerts = {}
        self.wanted.append(subscription)
        self.replays.begin(subscription, 7)
        return subscription


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_alert_that_came_during_the_replay_follows_it() -> None:
    talk = Talk()
    subscription = talk.subscribe()
    await settle()
    assert subscription.held_alerts is not None
    subscription.held_alerts |= {"a2": b"live", "a1": b"the same again"}
    talk.answer.set_result([RecentAlertRow("a1", "ann", b"{}"), RecentAlertRow("a0", "eve", b"{}")])
    await settle()
    assert talk.sent == [b"\x81\x02{}", b"live"]
    assert subscription.held_alerts is None


async def test_what_may_seem_later_than_the_subscription_when_it_is_repeated_is_not_told_twice() -> None:
    talk = Talk()
    subscription = talk.subscribe()
    subscription.subscribed_ms = 100_000
    ages = {"after": 0, "just before": REPEATED_MS, "long before": REPEATED_MS + 1}
    talk.answer.set_result([RecentAlertRow(name, "ann", b"{}", 100_000 - age) for name, age in ages.items()])
    await settle()
    assert subscription.replayed == {"after", "just before"}


async def test_who_lost_the_stream_during_the_replay_gets_nothing_of_it() -> None:
    talk = Talk()
    subscription = talk.subscribe()
    await settle()
    talk.wanted.clear()
    talk.replays.cancel(subscription)
    talk.answer.set_result([RecentAlertRow("a1", "ann", b"{}")])
    await settle()
    assert talk.sent == []


async def test_one_socket_replays_one_stream_after_another_and_not_without_end() -> None:
    talk = Talk()
    subscriptions = [talk.subscribe(f"s{number}") for number in range(MAX_REPLAYS + 1)]
    await settle()
    assert talk.fetches == 1
    assert len(talk.errors) == 1
    assert subscriptions[-1].held_alerts is None  # it has the live ones at least
    for subscription in subscriptions:
        talk.replays.cancel(subscription)
    await settle()
    assert talk.subscribe("again").held_alerts == {}
    await talk.tasks.close()


async def test_subscribing_again_and_again_keeps_one_replay() -> None:
    talk = Talk()
    for _ in range(50):
        subscription = talk.subscribe()
        await settle()
        talk.replays.cancel(subscription)
        await settle()
    assert talk.errors == []
    assert talk.replays._tasks == {}


async def test_a_viewer_that_takes_none_of_them_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_replay, "REPLAY_S", 0.05)
    talk = Talk()
    talk.reads = False
    talk.subscribe()
    talk.answer.set_result([RecentAlertRow("a1", "ann", b"{}")])
    async with asyncio.timeout(30):
        while not talk.slow:
            await asyncio.sleep(0.01)
    assert talk.sent == []
    await talk.tasks.close()


async def test_who_has_no_turn_in_time_goes_on_with_the_live_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_replay, "REPLAY_TURN_S", 0.05)
    talk = Talk()
    talk.of_user = asyncio.Semaphore(0)
    subscription = talk.subscribe()
    assert subscription.held_alerts is not None
    subscription.held_alerts["a1"] = b"live"
    async with asyncio.timeout(30):
        while subscription.held_alerts is not None:
            await asyncio.sleep(0.01)
    assert talk.sent == [b"live"]
    assert "door" in talk.errors[0]
    assert talk.fetches == 0


async def test_where_live_alerts_came_too_fast_meanwhile_the_viewer_comes_back_for_them() -> None:
    talk = Talk()
    subscription = talk.subscribe()
    await settle()
    subscription.held_alerts_overflowed = True
    talk.answer.set_result([])
    await settle()
    assert (talk.slow, talk.sent) == (1, [])


def row(name: str, at: int, acknowledged_at: int | None = None) -> RecentAlertRow:
    alert = Alert(id=name, stream_id="door", severity="low", message="m", timestamp=1)
    given = None if acknowledged_at is None else Acknowledgement(user="bob", at=acknowledged_at)
    return RecentAlertRow(name, "ann", alert.json, at, (), given)


def test_a_replay_has_alerts_and_acknowledgements_in_the_order_in_which_they_happened() -> None:
    rows = [row("old", 10, 60), row("a", 50, 65), row("b", 62), row("c", 70, 80)]
    messages = [json.loads(each.json()) for each in replay_of(rows, "door", 50)]
    assert [(m["type"], m.get("id") or m.get("alertId"), "acknowledged" in m) for m in messages] == [
        ("alert", "a", True),
        ("alert-acknowledged", "old", False),
        ("alert", "b", False),
        ("alert-acknowledged", "a", False),
        ("alert", "c", True),
        ("alert-acknowledged", "c", False),
    ]
    assert all(m["streamId"] == "door" for m in messages)


async def test_an_acknowledgement_that_the_replay_had_is_not_sent_again_as_a_live_one() -> None:
    talk = Talk()
    subscription = talk.subscribe()
    await settle()
    assert subscription.held_alerts is not None
    subscription.held_alerts |= {acknowledged_key("a"): b"the same", acknowledged_key("b"): b"live"}
    talk.answer.set_result([row("a", 50, 60), row("b", 50)])
    await settle()
    assert len(talk.sent) == 4
    assert talk.sent[-1] == b"live"


async def test_the_subscription_is_confirmed_once_before_the_first_alert_and_says_what_is_missing() -> None:
    for missing_before in (None, 5):
        talk = Talk()
        talk.missing_before = missing_before
        subscription = talk.subscribe()
        await settle()
        assert talk.confirmed == []
        assert subscription.held_alerts is not None
        talk.answer.set_result([row("a", 50)])
        await settle()
        assert talk.confirmed == [("door", missing_before, 0)]
        assert len(talk.sent) == 1


async def test_what_is_not_available_is_missing_up_to_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_replay, "REPLAY_TURN_S", 0.01)
    monkeypatch.setattr(alert_replay, "now_ms", lambda: 77)
    talk = Talk()
    talk.of_user = asyncio.Semaphore(0)
    talk.subscribe()
    async with asyncio.timeout(30):
        while not talk.errors:
            await asyncio.sleep(0.01)
    assert talk.confirmed == [("door", 77, 0)]
