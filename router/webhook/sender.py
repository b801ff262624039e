"""Sends every accepted alert, and events about them, to the webhook, signed as Standard Webhooks specifies.

`Deliveries` decides when to attempt what; this module sends. An alert is delivered at least once, with the same
`webhook-id` on each attempt, in no promised order. Redirects are not followed. Unless the settings allow it, only
public addresses are connected to; the check is on the address of the connection itself, so it holds whatever the name
resolves to.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from typing import Any, Final

from aiohttp.abc import AbstractResolver
from yarl import URL

from watchout.common import clock, log, metric_names
from watchout.common.alerts.webhook_signature import sign
from watchout.common.bus.reply_records import WebhookStats
from watchout.common.media.rate import TokenBucket
from watchout.common.metrics import Metrics
from watchout.common.service import Tasks
from watchout.common.settings import Settings
from watchout.common.supervisor import Alarm
from watchout.common.toolbox.http_bounds import BodyTooLarge
from watchout.common.toolbox.http_client import (
    HTTP_ERRORS,
    ForbiddenAddress,
    HttpClient,
    http_reason,
    read_body,
)
from watchout.common.toolbox.retry import read_retry_after
from watchout.router.webhook.deliveries import AT_ONCE, LONGEST_RETRY_AFTER_S, Deliveries, WebhookDelivery
from watchout.router.webhook.egress import is_public
from watchout.router.webhook.events import WebhookEvent

#: Bytes of a response that are read, so that its connection can be reused; past it the connection is closed.
MAX_ANSWER_BYTES: Final = 16 << 10
#: Failures that are logged: lines at once, and lines per second after that.
LOG_BURST: Final = 5
LOG_RATE: Final = 0.2

_log = log.get("router.webhook.sender")


class WebhookSender:
    """Sends alerts to the webhook of the settings. Created by `SlotRouter`, fed by `AlertDelivery`.

    `resolver` replaces the look-up of names, for tests. Raises `ValueError` when no webhook is set.
    """

    def __init__(self, settings: Settings, metrics: Metrics, *, resolver: AbstractResolver | None = None) -> None:
        if settings.alert_webhook_url is None:
            raise ValueError("there is no webhook to send to")
        self._url = URL(settings.alert_webhook_url)
        self._settings = settings
        self._metrics = metrics
        self._resolver = resolver
        self._deliveries = Deliveries(give_up_s=settings.alert_webhook_give_up_s, chance=random.random)
        self._tasks = Tasks()
        self._client: HttpClient | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._log_allowance = TokenBucket(LOG_RATE, LOG_BURST, time.monotonic())
        self._unlogged = 0

    async def open(self) -> None:
        """Prepare the client; connections are opened when there are alerts."""
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._turn, "tries of the webhook")
        self._client = HttpClient(
            user_agent="watchout-router",
            connections=AT_ONCE,
            headers={"Content-Type": "application/json"},
            resolver=self._resolver,
            dns_cache=False,
            socket_factory=None if self._settings.alert_webhook_allow_private else _public_socket,
        )  # no deadline there: each try has its own
        _log.info("alerts are also sent to a webhook", service=self._shown_as)

    def offer(self, event: WebhookEvent) -> None:
        """Queue an alert, or an event about one, and return at once."""
        delivery = WebhookDelivery(event.webhook_id, event.alert_id, event.stream, event.body, time.monotonic())
        self._deliveries.offer(delivery, clock.now_ms())
        self._turn()

    def report(self) -> WebhookStats:
        """Return what ``stats`` shows of the webhook, without the path of its URL, which may hold a secret."""
        found = self._deliveries
        return WebhookStats(
            service=self._shown_as,
            disabled=found.disabled,
            waiting=found.waiting,
            sent=found.sent,
            retries=found.retries,
            dead=found.dead,
            last_dead=list(found.listed),
        )

    async def drain(self, timeout_s: float) -> None:
        """Wait until all alerts are delivered or given up, for `timeout_s` seconds at most."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            _log.warning("alerts did not reach the webhook", alerts=self._deliveries.waiting)

    async def close(self) -> None:
        """Cancel requests in flight and close connections."""
        self._alarm.cancel()
        await self._tasks.close()
        if self._client is not None:
            await self._client.close()

    @property
    def _shown_as(self) -> str:
        return f"{self._url.scheme}://{self._url.host}"

    def _turn(self) -> None:
        """Start the attempts that are due, set the timer for the next one, and update the metrics."""
        for delivery in self._deliveries.due(time.monotonic(), clock.now_ms()):
            self._tasks.start(self._deliver(delivery), "webhook")
        at = self._deliveries.next_at()
        self._alarm.set(None if at is None else self._loop.time() + max(0.0, at - time.monotonic()))
        if self._deliveries.idle:
            self._idle.set()
        else:
            self._idle.clear()
        self._metrics.set(metric_names.ALERT_WEBHOOK_SENT, self._deliveries.sent)
        self._metrics.set(metric_names.ALERT_WEBHOOK_RETRIES, self._deliveries.retries)
        self._metrics.set(metric_names.ALERT_WEBHOOK_DEAD, self._deliveries.dead)
        self._metrics.set(metric_names.ALERT_WEBHOOK_WAITING, self._deliveries.waiting)
        self._metrics.set(metric_names.ALERT_WEBHOOK_DISABLED, self._deliveries.disabled)

    async def _deliver(self, delivery: WebhookDelivery) -> None:
        """Make one attempt, and report its end to `Deliveries`."""
        status, retry_after, reason = 0, None, ""
        try:
            async with asyncio.timeout(self._settings.alert_webhook_timeout_s):
                status, retry_after = await self._post(delivery)
        except TimeoutError:
            reason = f"no answer within {self._settings.alert_webhook_timeout_s:g} s"
        except HTTP_ERRORS as exc:
            reason = http_reason(exc)
        else:
            reason = f"it answered with status {status}" + (", and redirects are not followed" * (status // 100 == 3))
        now, now_ms = time.monotonic(), clock.now_ms()
        if 200 <= status < 300:
            self._deliveries.accepted(delivery)
        elif status == 410:
            self._deliveries.gone(delivery, reason, now_ms)
            _log.error("the webhook is gone (410), no alerts are sent to it until a restart", service=self._shown_as)
        else:
            dead = self._deliveries.dead
            after = None
            if status in (429, 503):
                after = read_retry_after(retry_after, time.time(), most_s=LONGEST_RETRY_AFTER_S)
            self._deliveries.failed(delivery, reason, now, now_ms, retry_after_s=after)
            self._warn(delivery, reason, given_up=self._deliveries.dead > dead)
        self._turn()

    async def _post(self, delivery: WebhookDelivery) -> tuple[int, str | None]:
        """Send a delivery. Return the status and the value of `Retry-After`; raises `HTTP_ERRORS`."""
        assert self._client is not None, "open comes first"
        secrets = self._settings.alert_webhook_secrets
        headers = sign(delivery.webhook_id, int(time.time()), delivery.body, secrets)
        async with self._client.request("POST", self._url, headers=headers, body=delivery.body) as response:
            with contextlib.suppress(BodyTooLarge):
                await read_body(response, MAX_ANSWER_BYTES)
            return response.status, response.headers.get("Retry-After")

    def _warn(self, delivery: WebhookDelivery, reason: str, *, given_up: bool) -> None:
        """Log a failed attempt, within the allowance."""
        if not self._log_allowance.take(time.monotonic()):
            self._unlogged += 1
            return
        _log.warning(
            "an alert was given up" if given_up else "the webhook did not accept an alert; it is sent again",
            service=self._shown_as,
            alert=delivery.alert_id,
            attempts=delivery.attempts,
            reason=reason,
            not_logged_before=self._unlogged or None,
        )
        self._unlogged = 0


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    """Create the socket for an address of `getaddrinfo` that is about to be connected. Raises `ForbiddenAddress`."""
    family, kind, protocol, _, where = address
    if not is_public(str(where[0])):
        raise ForbiddenAddress("its address is not public; ALERT_WEBHOOK_ALLOW_PRIVATE=true would allow it")
    return socket.socket(family, kind, protocol)
