"""Check of the running processes: their versions, their settings against those of this command, and missing ones."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from watchout.common.bus.merged_replies import merge_processes
from watchout.common.bus.reply_records import ProcessReport
from watchout.common.errors import BusError
from watchout.common.process import about, process_name
from watchout.common.settings import Settings, load
from watchout.ctl.bus_client import OtherSlots
from watchout.ctl.doctor.check import Check
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.doctor.router_query import query_router
from watchout.ctl.stats_view import duration
from watchout.ctl.terminal import printable

KINDS: Final = ("router", "gateway", "mlbridge")
#: Share of a limit from which it counts as nearly reached.
NEARLY: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProcess:
    """A running process, as it describes itself to the router.

    Attributes:
        name: its name in metrics and logs.
        kind: ``router``, ``gateway`` or ``mlbridge``.
        pid: its process id.
        up_s: seconds since it started.
        version: its version; empty for a version that does not report itself.
        settings: its settings that differ from the defaults, as text; secrets only as ``set``.
        remote: whether it is joined over TCP, from another machine.
        host: its machine; empty: not reported.
        other_slots: its number of slots, when it may not join because the routers have another one; else 0.
        descriptors: files and sockets that it has open; 0: not reported.
        descriptors_limit: files and sockets that it may have open; 0: not reported.
        connections_limit: connections that it accepts with that limit; 0: not reported.
    """

    name: str
    kind: str
    pid: int
    up_s: float = 0.0
    version: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    remote: bool = False
    host: str = ""
    other_slots: int = 0
    descriptors: int = 0
    descriptors_limit: int = 0
    connections_limit: int = 0

    @classmethod
    def from_report(cls, report: ProcessReport) -> RunningProcess:
        """Return the process of one report in the router's reply, with printable texts."""
        return cls(
            name=printable(report.name),
            kind=report.kind,
            pid=report.pid,
            up_s=report.up_s,
            version=printable(report.version),
            settings={name: printable(value) for name, value in report.settings.items()},
            remote=report.remote,
            host=printable(report.host or ""),
            other_slots=report.other_slots or 0,
            descriptors=report.open_files or 0,
            descriptors_limit=report.open_files_limit or 0,
            connections_limit=report.connections_limit or 0,
        )


async def check_processes(settings: Settings) -> list[Finding]:
    """Return the findings on the running processes, as they describe themselves over the bus."""
    locked = await asyncio.to_thread(process_name.running, settings.home)
    try:
        found = await probe_processes(settings)
    except BusError:
        text = "The router does not list the processes: it is of another version."
        return [warning("processes", text, "Restart all of watchout.")]
    except OtherSlots:
        return []  # the lines on the router say it
    if found is None:
        return [judge_without_router(str(settings.home), locked)]
    return list(judge_processes(found, about.reported_settings(settings), about.VERSION, socket.gethostname()))


CHECK: Final = Check("processes", check_processes)


async def probe_processes(settings: Settings) -> list[RunningProcess] | None:
    """Return the processes of this home; None if no router replies. Raises `BusError`, see `query_router`."""
    reports = await query_router(
        settings, "processes", list[ProcessReport], lambda asked, _: merge_processes(asked.by_slot.values())
    )
    return None if reports is None else [RunningProcess.from_report(report) for report in reports]


def judge_processes(
    found: Sequence[RunningProcess], ours: Mapping[str, str], version: str, host: str = ""
) -> Iterator[Finding]:
    """Yield the findings on processes against this command. Pure.

    Args:
        found: the processes.
        ours: settings of this command that differ from the defaults, as `about.reported_settings` returns them.
        version: the installed version.
        host: this machine.
    """
    slots = next((_slots_of(each.settings) for each in found if each.kind == "router"), _slots_of(ours))
    for each in found:
        who = f"{each.name} (process {each.pid})"
        facts = {"name": each.name, "kind": each.kind, "pid": each.pid, "version": each.version,
                 "upS": round(each.up_s), "settings": dict(each.settings)}  # fmt: skip
        if not each.version:
            yield warning(
                "processes", f"{who} does not report its version: it is an older one.", "Restart it.", **facts
            )
            continue
        if each.other_slots:
            yield wrong(
                "processes",
                f"{who} may not join: its CLUSTER_SLOTS is {each.other_slots}, and that of the routers {slots}. It "
                "gets no streams.",
                "Give all processes of the site the same number, and restart it.",
                **facts,
            )
            continue
        given = ", ".join(f"{env}={text}" for env, text in sorted(each.settings.items())) or "the default settings"
        yield ok("processes", f"{who} runs version {each.version} for {duration(each.up_s)}, with {given}.", **facts)
        far = each.remote or _are_apart(each.host, host)
        differ = about.differences(each.kind, each.settings, ours, far=far)
        if differ:
            yield warning(
                "processes",
                f"{who} has other settings than this command: {'; '.join(differ)}. The lines below on the store, "
                "keys and the ML service are about the settings of this command.",
                "Restart it if these are intended; otherwise run this command with its environment and .env.",
                differences=differ,
            )
        if each.version != version:
            yield warning(
                "processes",
                f"{who} runs version {each.version}, installed is {version}.",
                "Restart it to run the installed version.",
            )
        yield from _judge_descriptors(each, who)
    yield from _compare_gateways(found)
    missing = [kind for kind in KINDS if found and not any(x.kind == kind and not x.other_slots for x in found)]
    if missing:
        yield warning(
            "processes",
            f"No {' and no '.join(missing)} runs.",
            f"Start {' and '.join(f'`watchout-{kind}`' for kind in missing)} with the same WATCHOUT_HOME.",
        )


def _judge_descriptors(each: RunningProcess, who: str) -> Iterator[Finding]:
    """Yield warnings where a process may open too few files and sockets, or nearly all are open."""
    wanted = int(each.settings.get("MAX_CONNECTIONS") or load({}).max_connections)
    facts = {"open": each.descriptors, "limit": each.descriptors_limit, "connections": each.connections_limit}
    if each.kind == "gateway" and 0 < each.connections_limit < NEARLY * wanted:
        yield warning(
            "processes",
            f"{who} may have {each.descriptors_limit} files and sockets open, which is enough for "
            f"{each.connections_limit} connections, and MAX_CONNECTIONS is {wanted}.",
            "Raise the limit (LimitNOFILE, ulimit -n), or lower MAX_CONNECTIONS.",
            **facts,
        )
    if each.descriptors_limit and each.descriptors >= NEARLY * each.descriptors_limit:
        yield warning(
            "processes",
            f"{who} has {each.descriptors} files and sockets open, and may have {each.descriptors_limit}.",
            "Raise the limit (LimitNOFILE, ulimit -n).",
            **facts,
        )


def _compare_gateways(found: Sequence[RunningProcess]) -> Iterator[Finding]:
    """Yield a warning for each gateway whose settings differ from those of the first."""
    # Bridges of different groups may differ on purpose; gateways of one home serve the same clients.
    gateways = [each for each in found if each.kind == "gateway" and each.version and not each.other_slots]
    for other in gateways[1:]:
        far = _are_apart(other.host, gateways[0].host)
        differ = about.differences("gateway", other.settings, gateways[0].settings, far=far)
        if differ:
            yield warning(
                "processes",
                f"{other.name} (there) and {gateways[0].name} (here) have different settings: {'; '.join(differ)}.",
                "Start all gateways of a home with the same settings.",
            )


def _are_apart(host: str, other: str) -> bool:
    """Return whether two processes run on two machines, as far as both say where."""
    return bool(host and other and host != other)


def _slots_of(settings: Mapping[str, str]) -> int:
    """Return the number of slots of a process of a cluster, by its settings that differ from the defaults."""
    return int(settings.get("CLUSTER_SLOTS") or load({}).cluster_slots)


def judge_without_router(home: str, locked: Mapping[str, int]) -> Finding:
    """Return the finding where no router replies. Pure.

    Args:
        home: ``WATCHOUT_HOME``.
        locked: process id by name of the processes that run (`process_name.running`); 0: unknown.
    """
    if not locked:
        return ok("ports", f"Nothing runs on {home}: router, gateway and mlbridge are not started (`honcho start`).")
    names = ", ".join(f"{name} (process {pid})" if pid else name for name, pid in locked.items())
    return warning(
        "processes",
        f"No router replies on {home}, so the settings of {names} are unknown.",
        "Start `watchout-router`, or look at its log.",
        running=dict(locked),
    )
