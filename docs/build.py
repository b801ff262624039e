"""Write the generated parts of the docs, such as settings, metrics, modules, messages and schemas: `make docs`."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from watchout.common import metric_guide, metric_names, schemas, settings
from watchout.common.bus import messages
from watchout.common.latency.hops import Hop
from watchout.common.ml_targets import docs as ml_targets
from watchout.common.settings import database_url
from watchout.ctl.capacity import figures, model, sentences, tables
from watchout.ctl.commands.capacity import bounds_of

HERE = Path(__file__).parent
ROOT = HERE.parent
PACKAGES = ("common", "identity", "gateway", "router", "mlbridge", "ctl", "sdk/python")
BEGIN, END = "<!-- messages: generated, see docs/build.py -->", "<!-- end of messages -->"

OPTIONS_BEGIN, OPTIONS_END = "<!-- options: generated, see docs/build.py -->", "<!-- end of options -->"


def with_options(page: str) -> str:
    """docs/better-auth.md with the table of options of a database URL made anew."""
    before, _, rest = page.partition(OPTIONS_BEGIN)
    _, _, after = rest.partition(OPTIONS_END)
    return f"{before}{OPTIONS_BEGIN}\n\n{database_url.render_markdown()}\n{OPTIONS_END}{after}"


KINDS_BEGIN, KINDS_END = "<!-- kinds: generated, see docs/build.py -->", "<!-- end of kinds -->"
WAYS_BEGIN, WAYS_END = "<!-- ways: generated, see docs/build.py -->", "<!-- end of ways -->"


def with_kinds(page: str) -> str:
    """docs/targets.md with the table of kinds of ML services made anew."""
    before, _, rest = page.partition(KINDS_BEGIN)
    _, _, after = rest.partition(KINDS_END)
    return f"{before}{KINDS_BEGIN}\n\n{ml_targets.render_kinds()}\n\n{KINDS_END}{after}"


def with_ways(page: str) -> str:
    """docs/ml-team.md with the table of ways to receive frames made anew."""
    before, _, rest = page.partition(WAYS_BEGIN)
    _, _, after = rest.partition(WAYS_END)
    return f"{before}{WAYS_BEGIN}\n\n{ml_targets.render_exchanges()}\n\n{WAYS_END}{after}"


def with_messages(page: str) -> str:
    """docs/bus.md with the message table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{messages.render_markdown()}\n{END}{after}"


EXAMPLE_BEGIN, EXAMPLE_END = "<!-- example: generated, see docs/build.py -->", "<!-- end of example -->"
CAPACITY_BEGIN, CAPACITY_END = "<!-- capacity: generated, see docs/build.py -->", "<!-- end of capacity -->"
EXAMPLE = (
    "--cameras 200 --fps 10 --size 30000 --viewers-per-camera 5 --ml-fps 2 --cores 8 --network 10",
    model.Load(200, 10, 30_000, viewers=5, ml_fps=2, cores=8, network=10e9),
)


def with_capacity(page: str) -> str:
    """docs/capacity.md with what the capacity model gives made anew."""
    measured = figures.recorded()
    costs = figures.derive(measured)
    options, load = EXAMPLE
    needed = model.plan(load, costs, bounds_of(settings.load({})))
    said = "\n".join(sentences.describe(load, needed, costs, measured))
    example = f"```console\n$ watchout-ctl capacity {options}\n{said}\n```"
    for begin, end, made in (
        (EXAMPLE_BEGIN, EXAMPLE_END, example),
        (CAPACITY_BEGIN, CAPACITY_END, tables.render(measured, costs)),
    ):
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n\n{made}\n\n{end}{after}"
    return page


METRICS_INTRO = """\
# Metrics

Generated from `common/metric_names.py` and `common/metric_guide.py` (`make docs`).

`GET /metrics` of any gateway has the metrics of all processes in Prometheus' text format, each with the prefix
`watchout_`. Alert rules, a dashboard, and how Prometheus is set up: [monitoring.md](monitoring.md). Which metric
answers which question: [operations.md](operations.md#which-metric-answers-which-question).

## Labels

| label | values |
|---|---|
| `process` | the name of a process: `gateway`, `gateway-2`, `mlbridge`, `router`, or `WATCHOUT_PROCESS_NAME`; \
`router-SLOT` where there are slots, `NAME@HOST` on several machines. As many as there are processes, and the same \
after a restart. The metrics of all processes together have no label |
| `hop` | on `latency_seconds`: {hops} |
| `task` | on `task_failures_total`: the name of the background task, one of some 30 in the code |

A counter of a process is there from its start, at 0. A gauge is absent where it does not apply. While a gateway
reaches no router, its page has its own metrics alone, and `router_up` is 0.
"""


def render_metrics() -> str:
    """docs/metrics.md: one table for each section, with all that is declared of each metric."""
    lines = [
        METRICS_INTRO.format(hops=", ".join(f"`{hop.word}`" for hop in Hop)),
        "## All processes together",
        "",
        *_metric_table(
            (name, "gauge", "–", text, metric_guide.TOTALS[name]) for name, text in metric_names.TOTALS.items()
        ),
    ]
    for title, section in metric_guide.SECTIONS.items():
        rows = []
        for name, guide in section.items():
            declared = metric_names.DECLARED[name]
            further = {metric_names.TASK_FAILURES: ", `task`", metric_names.LATENCY_SECONDS: ", `hop`"}.get(name, "")
            labels = f"`process`{further}"
            whose = f"{labels}: {', '.join(guide.of)}" if len(guide.of) < len(metric_guide.ALL) else f"{labels}: all"
            former = declared.former_name
            text = declared.help if former is None else f"{declared.help} Also as `{former}`, deprecated."
            rows.append((name, declared.kind, whose, text, guide.when))
        lines += [f"## {title}", "", *_metric_table(rows)]
    return "\n".join(lines)


def _metric_table(rows: Iterable[tuple[str, str, str, str, str]]) -> list[str]:
    head = ["| metric | kind | unit | labels | meaning | what its movement tells |", "|---|---|---|---|---|---|"]
    return [
        *head,
        *(f"| `{n}` | {k} | {metric_guide.unit(n)} | {w} | {t} | {d} |" for n, k, w, t, d in rows),
        "",
    ]


def render_modules() -> str:
    """docs/modules.md: one table for each package, with the first paragraph of each module's docstring."""
    lines = [
        "# Modules",
        "",
        "Generated from the docstrings of the modules (`make docs`). How they work together:",
        "[architecture.md](architecture.md).",
        'A module whose role ends in "Pure" has no socket, clock, log or random number.',
        "",
    ]
    for package in PACKAGES:
        for folder in sorted({path.parent for path in (ROOT / package).rglob("__init__.py")}):
            lines += [f"## {folder.relative_to(ROOT).as_posix()}/", "", _role(folder / "__init__.py"), ""]
            modules = [p for p in sorted(folder.glob("*.py")) if p.stem not in ("__init__", "__main__")]
            if modules:
                lines += ["| module | role |", "|---|---|", *(f"| `{p.stem}` | {_role(p)} |" for p in modules), ""]
    return "\n".join(lines)


def _role(path: Path) -> str:
    """The first paragraph of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split()).replace("|", "\\|")


def main() -> None:
    """Write the pages and the schemas."""
    (HERE / "settings.md").write_text(settings.render_markdown())
    (HERE / "metrics.md").write_text(render_metrics())
    bus = HERE / "bus.md"
    bus.write_text(with_messages(bus.read_text()))
    (HERE / "modules.md").write_text(render_modules())
    better_auth = HERE / "better-auth.md"
    better_auth.write_text(with_options(better_auth.read_text()))
    for name, made_anew in (("targets.md", with_kinds), ("ml-team.md", with_ways), ("capacity.md", with_capacity)):
        (HERE / name).write_text(made_anew((HERE / name).read_text()))
    for name, make in schemas.FILES.items():
        (HERE / "schemas" / name).write_text(schemas.render(make()))


if __name__ == "__main__":
    main()
