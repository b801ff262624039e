"""The page docs/settings.md, made from the table of settings. Pure."""

from __future__ import annotations

from typing import Any, Final

from watchout.common.settings.secret_files import secret_names
from watchout.common.settings.spec import Reload
from watchout.common.settings.table import GROUPS, table

_RELOAD: Final = {Reload.NO: "", Reload.YES: "yes", Reload.REPLACED: "another one"}


def _default_text(value: Any) -> str:
    """Return a default as it would be written in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def render_markdown() -> str:
    """Return the whole page docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Environment variables, all optional; `honcho` and `watchout-ctl` also read them from `.env`.",
        "A process with an invalid value reports all of them by name before it opens a socket, and exits with 2.",
        "Settings with *reload* are taken up by a running process at SIGHUP (`systemctl reload`), from the files of",
        "`SETTINGS_FILES`, without a lost connection; *another one*: it can be replaced, not switched on or off. One",
        "line of the log says what changed and what needs a restart, or what is wrong; then nothing is changed.",
        "",
        "This page is generated from the tables in `common/settings/groups/` (`make docs`).",
        "",
        "A secret can be in a file, as Docker, Kubernetes and systemd hand it over: with `NAME_FILE=/run/secrets/name`",
        "and without `NAME` the content of that file is the value; a reload reads it again. That holds for",
        f"{', '.join(f'`{name}`' for name in secret_names())}.",
        "",
    ]
    for group in GROUPS:
        lines += [f"## {group}", "", "| name | default | accepts | reload | effect |", "|---|---|---|---|---|"]
        for _, spec, default in table():
            if spec.group == group:
                shown = "" if default in (None, "", ()) else f"`{_default_text(default)}`"
                lines.append(f"| `{spec.env}` | {shown} | {spec.expects} | {_RELOAD[spec.reload]} | {spec.help} |")
        lines.append("")
    return "\n".join(lines)
