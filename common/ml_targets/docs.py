"""The tables of ML services in the documentation, from the declarations. Pure."""

from __future__ import annotations

from watchout.common.ml_targets.declaration import TargetDeclaration, declarations

#: Where the examples are, seen from docs/.
_EXAMPLES = "../examples/ml_service"


def render_kinds() -> str:
    """Return the table of kinds in docs/targets.md, in Markdown."""
    lines = [
        "| kind | schemes | default port | over TLS | options of the URL | results | package |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(each) for each in declarations())])


def render_exchanges() -> str:
    """Return the table of ways in which frames and alerts travel in docs/ml-team.md, in Markdown."""
    lines = ["| `ML_SERVICE_URL` | frames | alerts | example |", "|---|---|---|---|"]
    ways = [way for declaration in declarations() for way in declaration.exchanges]
    rows = [f"| {way.url} | {way.frames} | {way.alerts} | [{way.example}]({_EXAMPLES}/{way.example}) |" for way in ways]
    return "\n".join([*lines, *rows])


def _row(kind: TargetDeclaration) -> str:
    plain = [scheme for scheme in kind.ports if scheme not in kind.tls.values()]
    ports = dict.fromkeys(str(kind.ports[scheme] or "none: name one") for scheme in plain)
    cells = (
        kind.title,
        ", ".join(f"`{scheme}://`" for scheme in plain),
        ", ".join(ports),
        ", ".join(f"`{scheme}://`" for scheme in kind.tls.values()) or "–",
        ", ".join(f"`{option}`" for option in kind.options) or "–",
        kind.results.value,
        f"`watchout[{kind.extra}]`" if kind.extra else "always installed",
    )
    return f"| {' | '.join(cells)} |"
