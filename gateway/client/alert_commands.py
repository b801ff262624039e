"""Carries out the commands of one client that are about alerts: to raise one, or to acknowledge one."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from watchout.common import metric_names
from watchout.common.alerts import model
from watchout.common.clock import now_ms
from watchout.common.errors import RouterUnavailable
from watchout.gateway.client.acknowledgements import Acknowledgements
from watchout.gateway.client.commands import AcknowledgeAlert, Command, SubmitAlert
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.context import Context
from watchout.gateway.wire import Subject


class AlertCommands:
    """The alerts that one client raises and acknowledges; made by its `ClientHandler` at the first one.

    Args:
        context: What the gateway's connections share.
        protocol: The client's protocol.
        run: Carries out the protocol's commands.
    """

    __slots__ = ("_acknowledgements", "_context", "_loop", "_protocol", "_run")

    def __init__(self, context: Context, protocol: ClientProtocol, run: Callable[[list[Command]], None]) -> None:
        self._context = context
        self._protocol = protocol
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._acknowledgements: Acknowledgements | None = None

    def handle(self, command: SubmitAlert | AcknowledgeAlert) -> None:
        """Begin to carry out a command; its result goes to the protocol."""
        if isinstance(command, SubmitAlert):
            self._raise_alert(command)
            return
        if self._acknowledgements is None:  # most clients never send one
            self._acknowledgements = Acknowledgements(self._context, self._protocol, self._run)
        self._acknowledgements.add(command)

    def cancel(self) -> None:
        """Forget the acknowledgements that wait, because the connection is lost."""
        if self._acknowledgements is not None:
            self._acknowledgements.cancel()
            self._acknowledgements = None

    def _raise_alert(self, command: SubmitAlert) -> None:
        now, identity = self._loop.time(), self._protocol.identity
        if identity is not None and self._context.alert_rates.take(identity.user_id, now):
            self._context.tasks.start(self._send_alert(command), "camera alert")
        else:
            self._context.metrics.count(metric_names.ALERTS_OVER_RATE)
            subject = Subject(command.request_id, command.stream)
            self._run(self._protocol.on_alert_rate_exceeded(now, now_ms(), subject))

    async def _send_alert(self, command: SubmitAlert) -> None:
        try:
            alert = model.complete(
                command.draft, alert_id=uuid.uuid4().hex, timestamp=now_ms(), stream_id=command.stream
            )
            reply = await self._context.router.alert_requests.raise_alert(alert)
        except RouterUnavailable:
            text = "the alert was not sent: the router did not answer in time, try again"
            self._report_failure(text, Subject(command.request_id, command.stream))
        else:
            self._run(self._protocol.on_alert_accepted(command, reply.id, now_ms()))

    def _report_failure(self, message: str, subject: Subject) -> None:
        self._run(self._protocol.on_alert_failed(message, self._loop.time(), now_ms(), subject))
