"""The command line of a process: ``--help`` with its main settings, ``--version``, and options that override settings.

A process that is started without any word, as nearly always, does not load click: that takes a megabyte and a half.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from watchout.common.settings import table

if TYPE_CHECKING:
    import click

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
#: Options that were given, by the setting that each overrides: how the option is written, and its value.
GivenOptions = Mapping[str, tuple[str, str]]


class SettingOption(NamedTuple):
    """An option of the command line that overrides a setting; `process_command` takes some.

    Attributes:
        option: how it is written, such as ``--fps``.
        value: what stands for its value in ``--help``.
        setting: the setting that it overrides.
        help: what it does; the setting is named behind it.
    """

    option: str
    value: str
    setting: str
    help: str


def process_command(
    kind: str, main_settings: Sequence[str], options: Sequence[SettingOption] = ()
) -> Callable[[Callable[[GivenOptions], None]], Callable[[], None]]:
    """Return a decorator that makes a function the command ``watchout-<kind>``: it is called with the given options.

    `main_settings` are listed in its ``--help``. An unknown option ends the command with exit code 2.
    """

    def decorate(function: Callable[[GivenOptions], None]) -> Callable[[], None]:
        @functools.wraps(function)
        def main() -> None:
            if len(sys.argv) > 1:
                _make_command(function, kind, main_settings, options)()
                return
            try:
                function({})
            except KeyboardInterrupt:  # before the process handles signals
                sys.exit(1)

        return main

    return decorate


def _make_command(
    function: Callable[[GivenOptions], None],
    kind: str,
    main_settings: Sequence[str],
    options: Sequence[SettingOption],
) -> click.Command:
    """Return the command that reads the command line, calls the function and ends the process."""
    import click

    def call(**values: str | None) -> None:
        given = ((each, values[each.setting.lower()]) for each in options)
        function({each.setting: (each.option, value) for each, value in given if value is not None})

    params: list[click.Parameter] = [
        click.Option([each.option, each.setting.lower()], metavar=each.value, help=f"{each.help} ({each.setting}).")
        for each in options
    ]
    script = f"watchout-{kind}"
    command = click.Command(
        script, context_settings=dict(CONTEXT), callback=call, params=params,
        help=function.__doc__, epilog=_epilog(main_settings),
    )  # fmt: skip
    return click.version_option(package_name="watchout", prog_name=script)(command)


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
