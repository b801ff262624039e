"""How a client's protocol answers alerts and acknowledgements, once the router has answered. Pure."""

from __future__ import annotations

from watchout.common.alerts.acknowledgement import FIELD, Acknowledgement
from watchout.common.errors import ErrorCode
from watchout.gateway import wire
from watchout.gateway.client.commands import AcknowledgeAlert, Command, Reply, SubmitAlert
from watchout.gateway.client.error_replies import ErrorReplies
from watchout.gateway.wire import Subject


class AlertReplies(ErrorReplies):
    """The part of a client's protocol that answers alerts; base class of `ClientProtocol`.

    Every method takes the time: `now` in seconds of the loop's clock, `now_ms` in ms since the epoch.
    """

    __slots__ = ()

    def on_alert_accepted(self, command: SubmitAlert, alert_id: str, now_ms: int) -> list[Command]:
        """Report that the router accepted an alert, to a client that gave its message a `requestId`.

        Args:
            command: The command that asked for it.
            alert_id: The id that the alert got.
            now_ms: See the class.
        """
        if self._closed or command.request_id is None:
            return []
        subject = Subject(command.request_id, command.stream)
        return [Reply(wire.success("Alert accepted", "alert-accepted", now_ms, subject, alertId=alert_id))]

    def on_acknowledged(self, command: AcknowledgeAlert, given: Acknowledgement, now_ms: int) -> list[Command]:
        """Report that an alert is acknowledged.

        Args:
            command: The command that asked for it.
            given: By whom and when: this user now, or somebody before.
            now_ms: See the class.
        """
        if self._closed:
            return []
        subject = Subject(command.request_id, command.stream)
        more = {"alertId": command.alert_id, FIELD: given.fields()}
        return [Reply(wire.success("Acknowledgement successful", "acknowledged", now_ms, subject, **more))]

    def on_acknowledge_refused(
        self, command: AcknowledgeAlert, code: ErrorCode, message: str, now: float, now_ms: int
    ) -> list[Command]:
        """Report an alert that cannot be acknowledged. An unknown one is no fault of the client, and no strike.

        Args:
            command: The command that asked for it.
            code: Why not, for programs.
            message: Why not, for people.
            now: See the class.
            now_ms: See the class.
        """
        subject = Subject(command.request_id, command.stream)
        return self._error(code, message, now, now_ms, subject, strike=False)

    def on_alert_failed(self, message: str, now: float, now_ms: int, subject: Subject = wire.NOTHING) -> list[Command]:
        """Report an alert that did not reach the router, or recent alerts that cannot be replayed.

        Args:
            message: What happened, for people.
            now: See the class.
            now_ms: See the class.
            subject: What the error is about.
        """
        return self._error(ErrorCode.ROUTING_ERROR, message, now, now_ms, subject)

    def on_alert_rate_exceeded(self, now: float, now_ms: int, subject: Subject = wire.NOTHING) -> list[Command]:
        """Report an alert over the rate of this client's user, who may have several sockets; it is dropped.

        Args:
            now: See the class.
            now_ms: See the class.
            subject: What the error is about.
        """
        return [] if self._closed else self._rate_limited("alerts", now, now_ms, subject)
