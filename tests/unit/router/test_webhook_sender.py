"""Alerts to a real HTTP server: signed, once more after a failure, and to nobody inside."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from watchout.common.alerts.model import Alert
from watchout.common.bus.reply_records import WebhookStats
from watchout.common.errors import SettingsError
from watchout.common.metric_names import DECLARED
from watchout.common.metrics import Metrics
from watchout.common.settings import Settings, load
from watchout.gateway.http.webhook_requests import read_headers
from watchout.router.webhook.deliveries import LONGEST_RETRY_AFTER_S
from watchout.router.webhook.events import alert_event
from watchout.router.webhook.sender import WebhookSender

SECRET, OTHER = b"s" * 24, b"t" * 24
COMES_S = 60.0


def alert(name: str = "a1") -> Alert:
    return Alert(id=name, stream_id="cam-1", severity="high", message="fire", timestamp=5, metadata={"x": [1]})


class Receiver:
    """A webhook's server: keeps what came, and answers with the next of `answers`, 204 when there is none."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.hang = False
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.elsewhere = 0
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/hook", self._hook)
        app.router.add_route("*", "/{path:.*}", self._other)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.came]

    async def _hook(self, request: web.Request) -> web.Response:
        self.came.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        if self.hang:
            await asyncio.sleep(3600)
        status, headers = self.answers.pop(0) if self.answers else (204, {})
        return web.Response(status=status, headers=headers)

    async def _other(self, _: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    await found.start()
    yield found
    await found.stop()


Make = Callable[..., Any]


@pytest.fixture
async def outlet(receiver: Receiver) -> AsyncIterator[Make]:
    opened: list[WebhookSender] = []

    async def make(resolver: AbstractResolver | None = None, **changes: Any) -> WebhookSender:
        values: dict[str, Any] = {
            "home": Path("unused"),
            "alert_webhook_url": f"http://127.0.0.1:{receiver.port}/hook",
            "alert_webhook_secrets": (SECRET,),
            "alert_webhook_allow_private": True,
        }
        found = WebhookSender(Settings(**(values | changes)), Metrics(), resolver=resolver)
        await found.open()
        opened.append(found)
        return found

    yield make
    for each in opened:
        await each.close()


async def reason_of_a_try(found: WebhookSender, *reasons: str) -> str:
    """Why alerts are given up: for one of `reasons`. On a machine that pauses the time of one may be over untried."""
    dead = ""
    for number in range(1, 20):
        found.offer(alert_event(alert(f"a{number}")))
        await until(lambda number=number: found.report().dead >= number)
        dead = found.report().last_dead[-1].reason
        if any(reason in dead for reason in reasons):
            return dead
    raise AssertionError(f"expected {reasons}, got {dead}")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(COMES_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_alert_arrives_signed_under_its_own_id(outlet: Make, receiver: Receiver) -> None:
    (await outlet(alert_webhook_secrets=(SECRET, OTHER))).offer(alert_event(alert()))
    await until(lambda: receiver.came)
    ((headers, body),) = receiver.came
    assert headers["webhook-id"] == "a1"
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "type": "alert", "id": "a1", "streamId": "cam-1", "severity": "high", "message": "fire", "timestamp": 5,
        "metadata": {"x": [1]},
    }  # fmt: skip
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    for secret in (SECRET, OTHER):
        read_headers(*([headers[name]] for name in names), now_s=time.time()).verify(body, [secret])


async def test_what_was_not_taken_comes_again_under_the_same_id_and_is_taken(outlet: Make, receiver: Receiver) -> None:
    receiver.answers = [(500, {}), (302, {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"})]
    found = await outlet()
    found.offer(alert_event(alert()))
    await until(lambda: found.report().sent == 1)
    assert receiver.ids == ["a1"] * 3
    assert receiver.elsewhere == 0, "a redirect is a failure and is not followed"
    report = found.report()
    assert report == WebhookStats(service=report.service, sent=1, retries=2)


async def test_an_answer_that_does_not_come_is_a_failure(outlet: Make, receiver: Receiver) -> None:
    receiver.hang = True
    found = await outlet(alert_webhook_timeout_s=0.2)
    found.offer(alert_event(alert()))
    await until(lambda: found.report().retries)
    receiver.hang = False
    await until(lambda: found.report().sent == 1)


async def test_410_disables_the_webhook_and_what_waits_is_counted_and_listed(outlet: Make, receiver: Receiver) -> None:
    receiver.answers = [(410, {})]
    found = await outlet()
    found.offer(alert_event(alert()))
    await until(lambda: found.report().disabled)
    found.offer(alert_event(alert("a2")))
    report = found.report()
    assert [(each.alert_id, each.reason) for each in report.last_dead] == [
        ("a1", "it answered with status 410"),
        ("a2", "the webhook is disabled"),
    ]
    assert receiver.ids == ["a1"]


async def test_a_retry_after_holds_all_alerts_back(outlet: Make, receiver: Receiver) -> None:
    receiver.answers = [(429, {"Retry-After": "2"})]
    found = await outlet()
    began = time.monotonic()
    found.offer(alert_event(alert()))
    await until(lambda: found.report().retries)
    found.offer(alert_event(alert("a2")))
    await until(lambda: found.report().sent == 2)
    assert time.monotonic() - began >= 2


async def test_a_retry_after_is_obeyed_for_ten_minutes_at_most(outlet: Make, receiver: Receiver) -> None:
    receiver.answers = [(503, {"Retry-After": "1000000"})]
    found = await outlet()
    found.offer(alert_event(alert()))
    await until(lambda: found.report().retries)
    next_at = found._deliveries.next_at()
    assert next_at is not None
    assert LONGEST_RETRY_AFTER_S - 60 < next_at - time.monotonic() <= LONGEST_RETRY_AFTER_S


async def test_what_is_never_taken_is_given_up_and_visible(outlet: Make, receiver: Receiver) -> None:
    receiver.answers = [(500, {})] * 1000
    found = await outlet(alert_webhook_give_up_s=1)
    await reason_of_a_try(found, "it answered with status 500")
    report = found.report()
    dead = report.last_dead[-1]
    assert (dead.alert_id, dead.stream_id, dead.reason) == (f"a{report.dead}", "cam-1", "it answered with status 500")
    assert report.sent == 0
    metrics = found._metrics.values
    assert metrics["alert_webhook_dead_total"] == report.dead
    assert set(metrics) <= set(DECLARED)


async def test_an_id_with_a_full_stop_becomes_one_that_can_be_signed(outlet: Make, receiver: Receiver) -> None:
    (await outlet()).offer(alert_event(alert("batch.1")))
    await until(lambda: receiver.came)
    ((headers, body),) = receiver.came
    assert headers["webhook-id"].startswith("alert_")
    assert json.loads(body)["id"] == "batch.1"


async def test_a_drain_gives_what_waits_its_time(outlet: Make, receiver: Receiver) -> None:
    found = await outlet()
    for number in range(50):
        found.offer(alert_event(alert(f"a{number}")))
    await found.drain(COMES_S)
    assert sorted(receiver.ids) == sorted(f"a{number}" for number in range(50))


class Names(AbstractResolver):
    """Answers each look-up with the next of its addresses, the last one for ever."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked += 1
        address = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:10.0.0.1"])
async def test_a_name_that_leads_inside_is_refused_before_a_connection_is_made(
    outlet: Make, receiver: Receiver, address: str
) -> None:
    names = Names(address)
    url = f"https://hook.example:{receiver.port}/hook"
    found = await outlet(names, alert_webhook_url=url, alert_webhook_allow_private=False, alert_webhook_give_up_s=1)
    await reason_of_a_try(found, "not public")
    assert names.asked
    assert not receiver.came


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "[::1]", "127.1", "2130706433", "localhost"]
)
async def test_an_address_in_the_url_is_refused_as_well_in_any_notation(
    outlet: Make, receiver: Receiver, host: str
) -> None:
    url = f"https://{host}:{receiver.port}/hook"
    found = await outlet(alert_webhook_url=url, alert_webhook_allow_private=False, alert_webhook_give_up_s=1)
    await reason_of_a_try(found, "not public", "its URL")  # some notations are none for the client itself
    assert not receiver.came


async def test_a_name_is_looked_up_and_checked_anew_for_each_connection(outlet: Make, receiver: Receiver) -> None:
    """A rebinding name: outside at the first look-up, inside at the next."""
    names = Names("192.0.2.1", "127.0.0.1")  # the first is TEST-NET, which is refused as well: nothing is called
    url = f"https://hook.example:{receiver.port}/hook"
    found = await outlet(names, alert_webhook_url=url, alert_webhook_allow_private=False)
    found.offer(alert_event(alert()))
    await until(lambda: found.report().retries >= 2)
    assert names.asked >= 2
    assert not receiver.came


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.com/x", "https://example.com:22/", "https://user:x@example.com/", "x",
            "https:///x", "https://example.com/#x", "https://example.com:99999/"],
)  # fmt: skip
def test_a_url_of_another_scheme_or_port_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError, match="ALERT_WEBHOOK_URL"):
        load({"ALERT_WEBHOOK_URL": url, "ALERT_WEBHOOK_SECRETS": "whsec_" + "c" * 32})


def test_a_webhook_wants_secrets_and_https_unless_it_may_be_private() -> None:
    secret = "whsec_" + "c" * 32
    with pytest.raises(SettingsError, match="ALERT_WEBHOOK_SECRETS"):
        load({"ALERT_WEBHOOK_URL": "https://example.com/x"})
    with pytest.raises(SettingsError, match="ALERT_WEBHOOK_ALLOW_PRIVATE"):
        load({"ALERT_WEBHOOK_URL": "http://example.com/x", "ALERT_WEBHOOK_SECRETS": secret})
    both = {"ALERT_WEBHOOK_URL": "http://example.com/x", "ALERT_WEBHOOK_SECRETS": secret}
    assert load({**both, "ALERT_WEBHOOK_ALLOW_PRIVATE": "true"}).alert_webhook_url == "http://example.com/x"
