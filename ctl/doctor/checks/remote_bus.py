"""Check of the bus over TCP: the router's key pair and list of allowed keys, and the bridge's own key pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from watchout.common.bus.zeromq import curve
from watchout.common.errors import CurveFault
from watchout.common.settings import Settings
from watchout.ctl.doctor.check import blocking_check
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.terminal import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBusFacts:
    """What a router with ``ROUTER_LISTEN`` needs, as found in its home.

    Attributes:
        address: ``ROUTER_LISTEN``.
        fault: why its key pair cannot be used, None if it can.
        clients: how many bridges are allowed to join.
        broken: names of files in the list of allowed keys that hold no key.
    """

    address: str
    fault: str | None = None
    clients: int = 0
    broken: Sequence[str] = ()


def check_remote_bus(settings: Settings) -> list[Finding]:
    """Return the findings on the keys of the bus over TCP, none where it is not configured. Blocks."""
    found: list[Finding] = []
    if settings.router_listen is not None:
        fault, clients, broken = None, 0, []
        try:
            curve.load_pair(curve.server_file(settings.home))
            clients, broken = len(curve.allowed(settings.home)), curve.broken(settings.home)
        except CurveFault as exc:
            fault = str(exc)
        facts = RemoteBusFacts(address=settings.router_listen, fault=fault, clients=clients, broken=broken)
        found += judge_remote_bus(facts)
    if settings.router_address is not None and settings.bridge_key_file is not None:
        fault = None
        try:
            curve.load_pair(settings.bridge_key_file)
        except CurveFault as exc:
            fault = str(exc)
        found.append(judge_bridge_key(fault, settings.router_address))
    return found


CHECK: Final = blocking_check("bus", check_remote_bus)


def judge_remote_bus(bus: RemoteBusFacts) -> Iterator[Finding]:
    """Yield whether bridges of other machines can join this router."""
    if bus.fault is not None:
        yield wrong(
            "bus",
            f"The router does not start with ROUTER_LISTEN: {bus.fault}.",
            "Create it with watchout-ctl keys server.",
        )
    elif not bus.clients:
        yield warning(
            "bus",
            f"The router listens on {bus.address} for bridges, but none is allowed to join.",
            "watchout-ctl keys allow NAME KEY, or remove ROUTER_LISTEN.",
        )
    else:
        text = f"{counted(bus.clients, 'bridge')} may join the router on {bus.address}, encrypted."
        yield ok("bus", text, clients=bus.clients)
    if bus.broken:
        yield warning(
            "bus",
            f"In the list of allowed keys are files without a key: {', '.join(bus.broken[:5])}.",
            "Remove them, and use watchout-ctl keys.",
        )


def judge_bridge_key(fault: str | None, address: str) -> Finding:
    """Return whether mlbridge can authenticate itself to the router at `address`; `fault` of its key pair."""
    if fault is not None:
        remedy = "Create a key pair with watchout-ctl keys client FILE."
        return wrong("bus", f"mlbridge cannot join {address}: {fault}.", remedy)
    return ok("bus", f"mlbridge has its key pair for {address}.")
