"""The aiohttp application of a gateway: its paths and what applies to all of them. Wiring only."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from watchout.gateway.context import Context
from watchout.gateway.http.alerts import AlertIntake, AlertPages
from watchout.gateway.http.auth import UserAuth
from watchout.gateway.http.bodies import MAX_BODY_BYTES
from watchout.gateway.http.console_pages import ConsolePages, installed_files
from watchout.gateway.http.health import HealthPages
from watchout.gateway.http.latency import LatencyPages
from watchout.gateway.http.middleware import RequestRules, convert_errors, keep_or_close
from watchout.gateway.http.responses import ResponseSender
from watchout.gateway.http.shares import SharePages
from watchout.gateway.http.streams import StreamPages
from watchout.gateway.model import SocketPath

HELP: Final = """watchout: live camera frames and ML alerts, routed.

WebSocket
  /streams/register    a camera publishes frames and receives alerts
  /streams/subscribe   a viewer receives frames, alerts and status
HTTP
  GET  /                           the console, in a browser
  GET  /health                     whether to send traffic here
  GET  /health/live                whether this process works
  GET  /stats                      counts over all gateways
  GET  /metrics                    the same and more, for Prometheus
  GET  /latency                    how long frames and alerts take
  GET  /streams                    the streams that you may view
  GET  /streams/{id}/frame.jpg     the newest frame of one
  GET  /streams/{id}/mjpeg?fps=    its frames as a moving picture
  GET  /streams/{id}/where         on which machine it is published
  GET  /streams/{id}/latency       how long its frames and alerts take
  GET  /streams/{id}/shares        who may view it by a link; POST shares it, DELETE ends a share
  GET  /alerts?streamId=&since=    its recent alerts
  GET  /alerts/{id}/frame.jpg      the picture that one of them refers to
  POST /alerts                     an ML service sends alerts

Sign in with "Authorization: Bearer <session token>"; on a WebSocket also with a first message
{"type":"auth","token":"..."}. `watchout-ctl token` prints a token of the embedded session store.
"""


def make_app(context: Context) -> web.Application:
    """Return the application with all HTTP paths. Called by `http.server`, which runs it."""
    rules = RequestRules(context.settings)
    auth = UserAuth(context)
    shares = SharePages(context, auth, context.share_tokens)
    latency = LatencyPages(context, auth)
    health, streams, alerts = HealthPages(context), StreamPages(context, auth), AlertPages(context, auth)
    app = web.Application(
        middlewares=[ResponseSender(context.metrics).send, keep_or_close, convert_errors, rules.check],
        client_max_size=MAX_BODY_BYTES,
    )
    app.on_response_prepare.append(rules.add_server)
    app.on_response_prepare.append(rules.add_cors)
    console = ConsolePages(installed_files() if context.settings.console else {}, HELP)
    app.router.add_get("/", console.front)
    app.router.add_get("/console/{name}", console.asset)
    app.router.add_get("/health", health.health)
    app.router.add_get("/health/live", health.live)
    app.router.add_get("/stats", health.stats)
    app.router.add_get("/metrics", health.metrics)
    app.router.add_get("/latency", latency.of_all)
    app.router.add_get("/streams", streams.list_streams)
    app.router.add_get("/alerts", alerts.recent)
    app.router.add_post("/alerts", AlertIntake(context).post)
    for path in SocketPath:
        app.router.add_get(str(path), streams.upgrade, allow_head=False)
    app.router.add_get("/streams/{id}/frame.jpg", streams.newest_picture)
    app.router.add_get("/alerts/{id}/frame.jpg", alerts.picture)
    app.router.add_get("/streams/{id}/mjpeg", streams.mjpeg)
    app.router.add_get("/streams/{id}/where", streams.where)
    app.router.add_get("/streams/{id}/latency", latency.of_stream)
    app.router.add_get("/streams/{id}/shares", shares.list_shares)
    app.router.add_post("/streams/{id}/shares", shares.create)
    app.router.add_delete("/streams/{id}/shares/{share}", shares.end)
    return app
