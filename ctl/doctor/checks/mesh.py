"""Check of the frame mesh between hosts: this host's certificate, and whether the ports of the others are reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Final

from watchout.common.bus.mesh_address import TLS
from watchout.common.bus.reply_records import ProcessReport
from watchout.common.bus.zeromq import mesh_certificates
from watchout.common.bus.zeromq.mesh_certificates import EXPIRY_DAYS, MeshContexts, MeshFiles
from watchout.common.errors import BusError, StartError
from watchout.common.settings import Settings
from watchout.common.toolbox.hosts import bracketed
from watchout.ctl import mesh_reach
from watchout.ctl.bus_client import OtherSlots
from watchout.ctl.doctor.check import Check
from watchout.ctl.doctor.checks.certificate import judge_key_mode
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.doctor.router_query import query_router
from watchout.ctl.terminal import counted, printable

_RENEW: Final = "`watchout-ctl keys host` makes a new one; copy it here. Processes use it without a restart."


async def check_mesh(settings: Settings) -> list[Finding]:
    """Return the findings on the frame mesh, none where there is one host only."""
    if not settings.bus:
        return []
    if settings.mesh_listen is None:
        return [
            warning(
                "mesh",
                "MESH_LISTEN is not set: processes of this home get no frames of other hosts.",
                "Set it, unless all processes of the cluster are in this home.",
            )
        ]
    files, host = MeshFiles.of(settings), settings.mesh_listen.advertise
    try:
        contexts = mesh_certificates.load(files)
    except StartError as error:
        return [wrong("mesh", f"{error}.", "`watchout-ctl keys host` makes the files of a host; copy them here.")]
    found = list(judge_mesh_certificate(contexts, host, datetime.now(UTC), str(files.cert)))
    found += _judge_mode(files.key)
    try:
        reports = await query_router(
            settings,
            "processes",
            list[ProcessReport],
            lambda asked, _: list(chain.from_iterable(asked.by_slot.values())),
        )
    except (BusError, OtherSlots):
        reports = None
    names = {report.frames_at: printable(report.name) for report in reports or () if isinstance(report.frames_at, str)}
    found += judge_reach(await mesh_reach.reach(names, contexts.client), names)
    return found


CHECK: Final = Check("mesh", check_mesh)


def judge_mesh_certificate(contexts: MeshContexts, host: str, now: datetime, file: str) -> Iterator[Finding]:
    """Yield the findings on this host's certificate.

    Args:
        contexts: what the files hold.
        host: what other hosts connect to.
        now: the current time.
        file: the certificate's file.
    """
    days = (contexts.not_after - now).total_seconds() / 86_400
    facts = {"notAfter": contexts.not_after.isoformat(), "daysLeft": round(days, 1), "host": host}
    until = f"{contexts.not_after:%Y-%m-%d}"
    refused = mesh_certificates.refusal(contexts, contexts, host)
    if days <= 0:
        yield wrong("mesh", f"The certificate of this host expired on {until}: other hosts refuse it.", _RENEW, **facts)
    elif refused is not None:
        text = f"Other hosts that connect to {bracketed(host)} refuse the certificate of this host: {refused} ({file})."
        remedy = (
            "MESH_LISTEN has to advertise a name or address in it: `watchout-ctl keys host NAME --address ADDRESS`."
        )
        yield wrong("mesh", text, remedy, **facts)
    elif days < EXPIRY_DAYS:
        text = f"The certificate of this host is valid until {until}, {counted(int(days), 'day')} from now."
        yield warning("mesh", text, _RENEW, **facts)
    else:
        yield ok("mesh", f"Other hosts accept the certificate of this host, {bracketed(host)}, until {until}.", **facts)


def judge_reach(reached: Mapping[str, str | None], names: Mapping[str, str]) -> Iterator[Finding]:
    """Yield whether the ports of the cluster's processes are reached.

    Args:
        reached: why an address cannot be used, None where it can.
        names: name of the process at each address.
    """
    for at, why in reached.items():
        if why is not None:
            yield wrong(
                "mesh",
                f"Frames of this host do not reach {names.get(at, 'a process')} at {at.removeprefix(TLS)}: {why}.",
                "Let its MESH_LISTEN be reached from here, and give both hosts certificates of one cluster.",
                address=at,
            )
    good = sum(why is None for why in reached.values())
    if good:
        yield ok("mesh", f"Frames of this host reach {good} process{'es' if good > 1 else ''} over TLS.", reached=good)


def _judge_mode(key: Path) -> Sequence[Finding]:
    try:
        mode = key.stat().st_mode
    except OSError:
        return []
    return [
        Finding("mesh", finding.level, finding.says, finding.remedy, finding.facts)
        for finding in judge_key_mode("MESH_KEY", key, mode)
    ]
