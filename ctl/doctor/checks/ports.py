"""Check of what runs: the gateway's port, the router, and the limits of the operating system for them."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import Final

from watchout.common.errors import BusError, SettingsError
from watchout.common.settings import Settings, load
from watchout.ctl.bus_client import OtherSlots
from watchout.ctl.doctor.check import Check
from watchout.ctl.doctor.checks.processes import probe_processes
from watchout.ctl.doctor.findings import Finding
from watchout.ctl.doctor.gateway_port import judge_port, probe_port
from watchout.ctl.doctor.limits import check_backlog, check_open_files
from watchout.ctl.doctor.router_state import judge_router, probe_router

#: Settings of a running gateway by which its port is examined, instead of those of this command.
_GATEWAY_SETTINGS: Final = ("WATCHOUT_PORT", "WATCHOUT_HOST", "TLS_CERT", "TLS_KEY", "MAX_CONNECTIONS")


async def check_ports(settings: Settings) -> list[Finding]:
    """Return the findings on the gateway's port, the router and the limits of the operating system.

    Where a gateway runs with another port than these settings have, both ports are examined.
    """
    effective = await _with_settings_of_gateway(settings)
    port, router = await asyncio.gather(probe_port(effective), probe_router(effective))
    other_port = settings.port != effective.port
    own = judge_port(await probe_port(settings), router_replies=router.replies) if other_port else ()
    return [
        *own,
        *judge_port(port, router_replies=router.replies),
        *judge_router(
            router,
            effective.home,
            has_gateway=port.is_gateway or bool(port.others),
            has_ml_service=effective.ml_service_url is not None,
        ),
        check_open_files(router.gateways, effective.max_connections),
        *check_backlog(),
    ]


CHECK: Final = Check("ports", check_ports)


async def _with_settings_of_gateway(settings: Settings) -> Settings:
    """Return these settings with port, host, certificate and limit of the running gateway here, where there is one."""
    try:
        found = await probe_processes(settings) or ()
    except (BusError, OtherSlots):
        return settings
    here = ("", socket.gethostname())
    theirs = next((x.settings for x in found if x.kind == "gateway" and x.version and x.host in here), None)
    if theirs is None:
        return settings
    try:
        gateway = load({name: theirs[name] for name in _GATEWAY_SETTINGS if name in theirs})
    except SettingsError:
        return settings
    return replace(
        settings,
        port=gateway.port,
        host=gateway.host,
        tls_cert=gateway.tls_cert,
        tls_key=gateway.tls_key,
        max_connections=gateway.max_connections,
    )
