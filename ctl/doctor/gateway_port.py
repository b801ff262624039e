"""The gateway's port: who listens on it, whether that is a gateway of this home, and whether it is healthy."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from watchout.common.home_files import LISTEN_LOCK, port_of
from watchout.common.settings import Settings
from watchout.common.toolbox.reason import reason
from watchout.ctl.doctor.check import ASK_S
from watchout.ctl.doctor.checks.certificate import first_certificate
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.doctor.http_requests import TIMED_OUT, get_json
from watchout.ctl.environment import edge_url
from watchout.ctl.terminal import printable

#: Remedies by a text in the reason why a gateway cannot listen on a port; the first that fits.
_PORT_REMEDIES: Final = (
    ("ermission", "Ports below 1024 need CAP_NET_BIND_SERVICE; set WATCHOUT_PORT, or put a proxy on that port."),
    ("in use", "A program has it on an address of this machine (ss -ltnp): end it, or set WATCHOUT_PORT."),
    ("", "Set WATCHOUT_HOST to an address of this machine, or leave it empty."),
)
#: Remedies by a text in the reason why a gateway is not healthy; the first that fits.
_HEALTH_REMEDIES: Final = (
    ("drains", "It is shutting down: start another."),
    ("just begun", "Look again in a second."),
    ("router", "Start `watchout-router` with the same WATCHOUT_HOME, or look at its log."),
    ("store", "If the lines on the store are ok, the gateway has other settings: restart it."),
    ("TOO_MANY", "Raise MAX_CONNECTIONS or MAX_CONNECTIONS_PER_ADDRESS, or find out which client connects so often."),
    ("", "Look at its log."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFacts:
    """What `probe_port` found out about a port of the gateway.

    Attributes:
        number: the port.
        host: ``WATCHOUT_HOST``, empty for every address.
        ours: whether a gateway of this home has it; None if that cannot be determined.
        listening: whether a program accepts connections on it.
        live: whether it responds as a gateway does, over TLS or not.
        failure: why it gave no readable response; empty if it gave one.
        tls: whether it uses TLS.
        wants_tls: whether it should, by ``TLS_CERT``.
        stale: whether it presents another certificate than the file holds.
        health: HTTP status of ``/health``, 0 for none.
        reason: what the gateway gives as the reason why it is not healthy.
        missing_slots: slots of the cluster for which no router answers it.
        cannot_listen: why a gateway could not listen on the port; empty if it could.
        others: other ports on which gateways of this home listen.
    """

    number: int
    host: str = ""
    ours: bool | None = False
    listening: bool = False
    live: bool = False
    failure: str = ""
    tls: bool = False
    wants_tls: bool = False
    stale: bool = False
    health: int = 0
    reason: str = ""
    missing_slots: Sequence[int] = ()
    cannot_listen: str = ""
    others: Sequence[int] = ()

    @property
    def is_gateway(self) -> bool:
        """Whether a gateway of this home has the port, as far as can be determined."""
        return self.listening and (self.live if self.ours is None else self.ours)


# ── probe ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def probe_port(settings: Settings) -> PortFacts:
    """Return the facts about `WATCHOUT_PORT` on `WATCHOUT_HOST`."""
    number = settings.port
    facts = PortFacts(number=number, host=settings.host, wants_tls=settings.tls_cert is not None)
    held = await asyncio.to_thread(held_ports, settings.home)
    facts = replace(facts, ours=held.pop(number, False), others=sorted(port for port, has in held.items() if has))
    parts = urlsplit(edge_url(None, settings))
    host = parts.hostname or "127.0.0.1"
    try:
        async with asyncio.timeout(ASK_S):
            _, writer = await asyncio.open_connection(host, number)
            writer.transport.abort()
    except (TimeoutError, OSError):
        return replace(facts, cannot_listen=await asyncio.to_thread(_cannot_listen, settings.host, number))
    facts = replace(facts, listening=True)
    for tls in (facts.wants_tls, not facts.wants_tls):
        base = f"{'https' if tls else 'http'}://{parts.netloc}"
        live = await get_json(f"{base}/health/live")
        facts = replace(facts, failure=facts.failure or live.failure)
        if live.failure == TIMED_OUT:
            break
        if live.body.get("status") != "live" and not (facts.ours and live.error_code):
            continue
        if live.error_code:  # a gateway that refuses even this request
            return replace(facts, live=True, tls=tls, health=live.status, reason=live.error_code)
        health = await get_json(f"{base}/health?limit=0")
        why = health.error_code or str(health.body.get("reason") or health.failure)
        missing = [slot for slot in health.body.get("missingSlots") or () if isinstance(slot, int)]
        facts = replace(facts, live=True, tls=tls, health=health.status, reason=why, missing_slots=missing)
        if tls and settings.tls_cert is not None:
            facts = replace(facts, stale=await _presents_another_certificate(host, number, settings.tls_cert))
        break
    return facts


def held_ports(home: Path) -> dict[int, bool | None]:
    """Return each port that a gateway of this home has or had, and whether it has it now; None: unknown.

    The locks are those of `gateway.listen.port`. A free lock is held for a moment, while no gateway starts. Blocks.
    """
    held: dict[int, bool | None] = {}
    files = {port: file for file in _files(home) if (port := port_of(file.name)) is not None}
    with contextlib.ExitStack() as stack:
        try:
            gate = _open(home / LISTEN_LOCK, stack)
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return {}
        except OSError:  # another user's, or a gateway is just starting
            return dict.fromkeys(files)
        for port, file in files.items():
            try:
                fcntl.flock(_open(file, stack), fcntl.LOCK_EX | fcntl.LOCK_NB)
                held[port] = False
            except BlockingIOError:
                held[port] = True
            except OSError:
                held[port] = None
    return held


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder; none where it cannot be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _open(file: Path, stack: contextlib.ExitStack) -> int:
    """Return a descriptor that is closed with the stack."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _cannot_listen(host: str, number: int) -> str:
    """Return why a gateway could not listen there; empty if it could. It binds, but does not listen. Blocks."""
    try:
        infos = socket.getaddrinfo(host or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, _, _, address in infos:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as exc:
        if not host and exc.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return ""  # a machine without IPv6
        return reason(exc)
    return ""


async def _presents_another_certificate(host: str, number: int, file: Path) -> bool:
    """Whether the server on the port presents another certificate than the file holds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        expected = first_certificate(await asyncio.to_thread(file.read_bytes))
        async with asyncio.timeout(ASK_S):
            _, writer = await asyncio.open_connection(host, number, ssl=context)
            presented = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.transport.abort()
    except (TimeoutError, OSError):
        return False
    return expected is not None and presented != expected


# ── verdict ──────────────────────────────────────────────────────────────────────────────────────────────────────


def judge_port(port: PortFacts, *, router_replies: bool) -> Iterator[Finding]:
    """Yield who has the gateway's port, and whether that gateway is healthy; `router_replies`: one runs on this home.

    Pure.
    """
    number = port.number
    if port.is_gateway:
        yield from _judge_gateway(port)
    elif port.listening:
        who = "A watchout with another WATCHOUT_HOME" if port.live else "Another program"
        yield wrong(
            "ports",
            f"{who} listens on port {number}: no gateway of this home can.",
            f"Find it (ss -ltnp 'sport = :{number}') and end it, or set WATCHOUT_PORT to a free port.",
        )
    elif port.cannot_listen:
        yield wrong(
            "ports",
            f"A gateway cannot listen on port {number} of {port.host or 'all addresses'}: {port.cannot_listen}.",
            next(remedy for words, remedy in _PORT_REMEDIES if words in port.cannot_listen),
        )
    elif port.others:
        yield warning(
            "ports",
            f"No program listens on port {number}, but a gateway of this home does on "
            f"{', '.join(map(str, port.others))}.",
            "It was started with other settings: restart it, or set WATCHOUT_PORT here.",
        )
    elif router_replies:
        text = f"Port {number} is free: a router runs on this home, but no gateway."
        yield warning("ports", text, "Start `watchout-gateway`.")
    else:
        yield ok("ports", f"Port {number} is free; no gateway runs on this home.")


def _judge_gateway(port: PortFacts) -> Iterator[Finding]:
    """Yield whether the gateway of this home responds, with the TLS settings of this command, and is healthy."""
    facts = {"port": port.number, "health": port.health}
    if not port.live:
        yield wrong(
            "ports",
            f"A gateway of this home has port {port.number}, but does not respond: {port.failure}.",
            "It hangs or is overloaded: look at its log, and restart it.",
            **facts,
        )
        return
    if port.tls != port.wants_tls:
        yield wrong(
            "ports",
            f"The gateway on port {port.number} uses {'TLS' if port.tls else 'plain HTTP'}, but TLS_CERT is "
            f"{'set' if port.wants_tls else 'not set'}.",
            "It was started with other settings: restart it.",
        )
    if port.stale:
        yield warning(
            "ports",
            f"The gateway on port {port.number} presents another certificate than TLS_CERT holds.",
            "It loads a new file within a minute; if it does not, its log says why.",
        )
    if port.health == 200 and port.missing_slots:
        slots = ", ".join(map(str, port.missing_slots))
        yield warning(
            "ports",
            f"The gateway on port {port.number} responds, but no router answers it for slots {slots}: their streams "
            "are missing.",
            "A spare router takes them within seconds; if none does, start one (`watchout-router`).",
            missing_slots=list(port.missing_slots),
            **facts,
        )
        return
    if port.health == 200:
        yield ok("ports", f"The gateway on port {port.number} responds, and is healthy.", **facts)
        return
    why = printable(port.reason) or "it gives no reason"
    passing = "drains" in why or "just begun" in why
    yield (warning if passing else wrong)(
        "ports",
        f"The gateway on port {port.number} responds, but is not healthy: {why}.",
        next(remedy for words, remedy in _HEALTH_REMEDIES if words in why),
        reason=why,
        **facts,
    )
