"""What ``watchout-ctl doctor`` says of the processes that run: their versions, their settings, who is missing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from watchout.common.bus.reply_records import ProcessReport
from watchout.common.process import about
from watchout.common.settings import load
from watchout.ctl.doctor.findings import Finding, ok, warning
from watchout.ctl.stats_view import duration
from watchout.ctl.terminal import printable

KINDS = ("router", "gateway", "mlbridge")
#: From this share on a limit is nearly reached, or nearly enough.
NEARLY = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One process, as it told the router."""

    name: str
    kind: str
    pid: int
    up_s: float = 0.0
    version: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    far: bool = False
    #: Files and sockets that it has open and may have open, and connections that it takes; 0: not told.
    descriptors: int = 0
    descriptors_limit: int = 0
    connections_limit: int = 0

    @classmethod
    def of(cls, report: ProcessReport) -> Running:
        """From a row of the router's reply; texts of other processes are made printable."""
        return cls(
            name=printable(report.name),
            kind=report.kind,
            pid=report.pid,
            up_s=report.up_s,
            version=printable(report.version),
            settings={name: printable(value) for name, value in report.settings.items()},
            far=report.remote,
            descriptors=report.open_files or 0,
            descriptors_limit=report.open_files_limit or 0,
            connections_limit=report.connections_limit or 0,
        )


def of_running(found: Sequence[Running], ours: Mapping[str, str], version: str) -> Iterator[Finding]:
    """The processes that told of themselves, against the settings and the version of this command."""
    for each in found:
        who = f"{each.name} (process {each.pid})"
        facts = {"name": each.name, "kind": each.kind, "pid": each.pid, "version": each.version,
                 "upS": round(each.up_s), "settings": dict(each.settings)}  # fmt: skip
        if not each.version:
            yield warning(
                "processes", f"{who} tells nothing of itself: it is of an older version.", "Restart it.", **facts
            )
            continue
        given = (
            ", ".join(f"{env}={text}" for env, text in sorted(each.settings.items())) or "all settings as by default"
        )
        yield ok("processes", f"{who} runs version {each.version} for {duration(each.up_s)}, with {given}.", **facts)
        differ = about.differences(each.kind, each.settings, ours, far=each.far)
        if differ:
            yield warning(
                "processes",
                f"{who} has other settings than this command: {'; '.join(differ)}. What is said below of a store, keys "
                "and an ML service is by the settings of this command.",
                "Restart it if these are meant; else run this command with its environment and .env.",
                differences=differ,
            )
        if each.version != version:
            yield warning(
                "processes",
                f"{who} runs version {each.version}, installed is {version}.",
                "Restart it to run what is installed.",
            )
        yield from _of_descriptors(each, who)
    yield from _among_each_other(found)
    missing = [kind for kind in KINDS if found and not any(each.kind == kind for each in found)]
    if missing:
        yield warning(
            "processes",
            f"No {' and no '.join(missing)} runs.",
            f"Start {' and '.join(f'`watchout-{kind}`' for kind in missing)} with the same WATCHOUT_HOME.",
        )


def _of_descriptors(each: Running, who: str) -> Iterator[Finding]:
    """Warnings about the files and sockets that a process may have open."""
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


def _among_each_other(found: Sequence[Running]) -> Iterator[Finding]:
    # Bridges of different groups may well differ; gateways of one home serve the same clients.
    gateways = [each for each in found if each.kind == "gateway" and each.version]
    for other in gateways[1:]:
        differ = about.differences("gateway", other.settings, gateways[0].settings)
        if differ:
            yield warning(
                "processes",
                f"{other.name} (there) and {gateways[0].name} (here) have different settings: {'; '.join(differ)}.",
                "Start all gateways of a home with the same settings.",
            )


def nothing_runs(home: str, there: Mapping[str, int]) -> Finding:
    """No router answers: who is there, and who is missing."""
    if not there:
        return ok("ports", f"Nothing runs on {home}: router, gateway and mlbridge are missing (`honcho start`).")
    names = ", ".join(f"{name} (process {pid})" if pid else name for name, pid in there.items())
    return warning(
        "processes",
        f"No router answers on {home}, so that {names} cannot be asked for settings.",
        "Start `watchout-router`, or look at its log.",
        running=dict(there),
    )
