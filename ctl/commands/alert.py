"""``watchout-ctl alert``: raises a test alert over the bus, and reports how many clients it reached."""

from __future__ import annotations

import secrets
from typing import Any

import click
import msgspec

from watchout.common.alerts.model import Alert, AlertFault, check_draft, complete
from watchout.common.bus.messages import AcceptedReply, RaiseAlert, RefusedReply
from watchout.common.bus.router_links import RouterLinks
from watchout.common.clock import now_ms
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.settings import Settings
from watchout.ctl.bus_client import UNEXPECTED_REPLY, joined, published_streams
from watchout.ctl.directory import others_than
from watchout.ctl.environment import Failure, home_option, read_environment, run, stream_id
from watchout.ctl.terminal import counted, printable


@click.command("alert", short_help="Send a test alert about a stream.")
@click.argument("stream", type=stream_id)
@click.argument("message")
@click.option("--severity", type=click.Choice(["low", "medium", "high", "critical"]), required=True)
@click.option("--metadata", metavar="JSON", help="An object such as '{\"confidence\": 0.9}'.")
@home_option
def alert(stream: str, message: str, severity: str, metadata: str | None, home: str | None) -> None:
    """Send a test alert MESSAGE about STREAM to all subscribers of its alerts.

    The exit code is 1 if STREAM has neither a publisher nor a viewer; the existing streams are then listed.
    """
    raised = _checked({"streamId": stream, "severity": severity, "message": message}, metadata)
    settings = read_environment(home).settings
    run(settings, _raise(settings, raised))


def _checked(body: dict[str, Any], metadata: str | None) -> Alert:
    """Return the alert of these options. Raises a click exception for an invalid one."""
    try:
        if metadata is not None:
            body["metadata"] = msgspec.json.decode(metadata)
            if not isinstance(body["metadata"], dict):
                raise click.BadParameter("expected a JSON object", param_hint="--metadata")
        return complete(check_draft(body), alert_id=f"alert_{secrets.token_hex(8)}", timestamp=now_ms())
    except msgspec.DecodeError as exc:
        raise click.BadParameter(f"not JSON: {exc}", param_hint="--metadata") from None
    except AlertFault as exc:
        raise click.UsageError(f"the alert is invalid: {exc}") from None


async def _raise(settings: Settings, raised: Alert) -> None:
    """Send the alert to the router and print the number of receivers. Raises `Failure`."""
    async with joined(settings) as links:
        try:
            reply = await links.of(raised.stream_id).request(lambda number: RaiseAlert(request=number, alert=raised))
        except RouterUnavailable as exc:
            raise Failure(f"the alert may not have been sent: {exc}") from None
        if isinstance(reply, AcceptedReply) and not reply.receivers:
            raise Failure(await _nobody(links, reply.id, raised.stream_id))
    match reply:
        case AcceptedReply(id=alert_id, receivers=receivers):
            click.echo(f"alert {alert_id} was sent to {counted(receivers, 'receiver')}")
        case RefusedReply(code=code, message=text):
            raise Failure(f"{printable(text)} ({printable(code)})")
        case _:
            raise Failure(f"{UNEXPECTED_REPLY}: {type(reply).__name__}")


async def _nobody(links: RouterLinks, alert_id: str, stream: str) -> str:
    """Return why an alert reached no client."""
    try:
        published = await published_streams(links)
    except (RouterUnavailable, BusError):
        return f"alert {alert_id} reached no client"
    if stream in published:
        return (
            f"alert {alert_id} is stored, but reached no client: neither the publisher of {stream} nor a viewer "
            "subscribes to alerts"
        )
    others = others_than(stream, published)
    return f"{stream} has no publisher and no viewer: alert {alert_id} reached no client; {others}"
