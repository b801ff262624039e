"""The report of a rehearsal as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from watchout.common.latency.rows import milliseconds
from watchout.ctl.rehearse.objectives import Verdict, shown
from watchout.ctl.rehearse.plan import Scenario, ViewerRole
from watchout.ctl.rehearse.result import Result
from watchout.ctl.rehearse.soak_result import grown, soak_lines
from watchout.ctl.terminal import counted, size
from watchout.ctl.why.sentence import lasted


def scenario_line(scenario: Scenario) -> str:
    """Return what is rehearsed, as one line."""
    viewers = [f"{scenario.viewers[role]} {role}" for role in ViewerRole if scenario.viewers.get(role)]
    frame = f" of {size(scenario.frame_bytes)}" if scenario.frame_bytes else " of footage"
    return (
        f"{counted(scenario.cameras, 'camera')} at {scenario.fps:g} fps{frame}; viewers: "
        f"{', '.join(viewers) or 'none'}; {lasted(scenario.seconds)}"
    )


def listed_counts(counts: Mapping[str, int]) -> str:
    """Return counts with their names, the largest first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def report_lines(result: Result) -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"{result.system}: {scenario_line(result.scenario)}"
    if result.interrupted:
        yield f"ended early, after {lasted(result.seconds)}"
    if result.ml is not None:
        ml, did = result.ml, result.ml_counts
        done = f"; {did.requests} requests, {did.failed} failed, {counted(did.alerts, 'alert')}" if did else ""
        yield f"ML service of the rehearsal: {ml.latency_ms:g} ms, {100 * ml.failures:g} % fail{done}"
    yield ""
    yield from _frames(result)
    yield ""
    yield from _latency(result)
    if result.processes:
        yield ""
        yield from _processes(result)
    yield from _explained(result)
    if result.soak is not None:
        yield ""
        yield from soak_lines(result.soak)
    if result.counts.faults:
        yield ""
        yield from (f"  {count} × {text}" for text, count in result.counts.faults.items())
    yield from (f"note: {note}" for note in result.notes)
    yield ""
    yield from _own(result)
    yield from _objectives(result)


def _frames(result: Result) -> Iterator[str]:
    counts, seconds = result.counts, max(result.seconds, 0.001)
    held = f", {counts.held} left out: late, or no room" if counts.held else ""
    yield f"{'cameras':<18}{counts.sent} of {counts.due} frames sent ({counts.sent / seconds:.1f} per second){held}"
    for role in ViewerRole:
        if (found := counts.roles.get(role)) is not None:
            parts = [f"{found.received} frames ({found.received / seconds:.1f} per second)", f"{found.missing} dropped"]
            if found.replaced:
                parts.append(f"{found.replaced} replaced in the viewer")
            parts.append(counted(found.alerts, "alert"))
            parts += [f"{found.alerts_lost} alerts lost"] if found.alerts_lost else []
            parts += [f"{found.alerts_twice} alerts twice"] if found.alerts_twice else []
            yield f"{found.viewers:>4} {role:<13}{', '.join(parts)}"
    if result.dropped:
        yield f"{'drops by reason':<18}{listed_counts(result.dropped)}"
    if counts.lost:
        yield f"{'connections lost':<18}{listed_counts(counts.lost)}"


def _latency(result: Result) -> Iterator[str]:
    yield f"{'':<34}{'p50':>9}{'p99':>9}{'measured':>10}"
    yield _row("clients: glass to glass", result.glass.p50_ms, result.glass.p99_ms, result.glass.count)
    yield _row("clients: glass to alert", result.alert.p50_ms, result.alert.p99_ms, result.alert.count)
    yield from (_row(hop.name, hop.p50_ms, hop.p99_ms, hop.count) for hop in result.hops)


def _row(name: str, p50: float | None, p99: float | None, count: int) -> str:
    return f"{name:<34}{milliseconds(p50):>9}{milliseconds(p99):>9}{count:>10}"


def _processes(result: Result) -> Iterator[str]:
    yield f"{'process':<26}{'memory':>10}{'growth':>14}{'CPU':>8}"
    for each in result.processes:
        growth = "too short" if each.slope_mb_per_h is None else f"{each.slope_mb_per_h:+.1f} MB/h"
        yield f"{f'{each.name} ({each.pid})':<26}{each.memory_mb:>7.1f} MB{growth:>14}{100 * each.cores:>6.0f} %"


def _explained(result: Result) -> Iterator[str]:
    found = result.explained
    if found is None:
        return
    yield ""
    yield f"why, over {found.streams} of {counted(found.of_streams, 'stream')}, and the clients' own counts"
    ends = f" ({listed_counts(found.closes)})" if found.closes else ""
    yield f"  connections {found.connections}, ends explained {sum(found.closes.values())}{ends}"
    yield f"  frames read {found.received}, written {found.written}"
    yield f"  frames missing {found.missing}, drops explained {sum(found.dropped.values())}" + (
        f" ({listed_counts(found.dropped)})" if found.dropped else ""
    )
    yield from (f"  {note}" for note in found.notes)


def _own(result: Result) -> Iterator[str]:
    own = result.own
    late = "nothing was measured" if own.lag_p99_ms is None else f"{milliseconds(own.lag_p99_ms)} late (p99)"
    yield (
        f"own load: {own.processes} {'process' if own.processes == 1 else 'processes'}, {late}, the busiest "
        f"{100 * own.most_cores:.0f} % of a core"
    )


def undecided(result: Result) -> str:
    """Return why nothing is decided."""
    if result.own.says:
        return f"the load itself was the limit: {result.own.says}"
    return "growth cannot be told from noise, or there are too few samples; take longer"


def _objectives(result: Result) -> Iterator[str]:
    for each in result.objectives:
        sign = "ok    " if each.met else "MISSED"
        yield f"{sign} {each.name:<18}{each.wanted:<14}{shown(each.name, each.measured)}"
    match result.verdict:
        case Verdict.UNDECIDED:
            yield f"UNDECIDED: {undecided(result)}"
        case Verdict.FAILED:
            missed = [each.name for each in result.objectives if not each.met]
            if result.soak is not None:
                missed += [f"{each.quantity} of {each.process}" for each in grown(result.soak)]
                missed += ["something that a soak does"] if result.soak.faults else []
            yield f"FAILED: {', '.join(missed) or 'a process of the system ended'}"
        case Verdict.PASSED:
            yield "PASSED" if result.objectives else "PASSED: there were no objectives"
