"""The command line of a process: ``--help`` with its main settings, and ``--version``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from watchout.common.settings import table

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def process_command(kind: str, main_settings: Sequence[str]) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a function the command ``watchout-<kind>``.

    `main_settings` are listed in its ``--help``. An unknown option ends the command with exit code 2.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        script = f"watchout-{kind}"
        make = click.command(script, context_settings=CONTEXT, epilog=_epilog(main_settings))
        return make(click.version_option(package_name="watchout", prog_name=script)(function))

    return decorate


def _epilog(names: Sequence[str]) -> str:
    """Return the end of the help: the main settings, where to find all, and the exit codes."""
    specs = {spec.env: (spec, default) for _, spec, default in table()}
    width = max(map(len, names))
    rows = []
    for name in names:
        spec, default = specs[name]
        shown = f" (default {default})" if default not in (None, "", ()) else ""
        rows.append(f"  {name:<{width}}  {spec.expects}{shown}")
    lines = "\n".join(rows)
    return (
        f"\b\nMain settings, as environment variables:\n{lines}\n\n"
        "\b\nAll settings: docs/settings.md. `honcho start` reads them from .env too, this command\n"
        "does not. `watchout-ctl doctor` checks them.\n\n"
        "\b\nExit codes: 0 ended by SIGTERM or SIGINT, 1 cannot start here, 2 wrong settings or usage."
    )
