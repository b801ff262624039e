"""``watchout-ctl restore``: checks a backup, and puts it into the home while nothing runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from watchout.common.process.about import VERSION
from watchout.ctl.backup import restoring
from watchout.ctl.backup.contents import Contents, summary
from watchout.ctl.environment import home_option, read_environment
from watchout.ctl.terminal import printable


@click.command("restore", short_help="Check a backup, and put it into the home.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--check", "only_check", is_flag=True, help="Check FILE and say what it holds; change nothing.")
@click.option(
    "--replace", is_flag=True,
    help="Replace what the home holds; it is moved to before-restore-TIME in the home, not deleted.",
)  # fmt: skip
@home_option
def restore(file: Path, only_check: bool, replace: bool, home: str | None) -> None:
    """Put the backup FILE into the home, which is created if missing.

    All processes of this home have to be stopped. Nothing is changed before all of FILE was checked: that it is
    complete, unchanged, and that each database and key in it can be read.
    """
    if only_check:
        with tempfile.TemporaryDirectory(prefix="watchout-restore-") as staging:
            contents = restoring.check(file, Path(staging))
        click.echo(f"{file} is complete: {_described(contents)}")
        return
    target = read_environment(home).settings.home
    restored = restoring.restore(target, file, replace=replace)
    click.echo(f"restored {target}: {_described(restored.contents)}")
    if restored.former is not None:
        click.echo(f"what was there is in {restored.former}; remove it when all is well, it holds keys and sessions")


def _described(contents: Contents) -> str:
    """Return where a backup comes from, and what it holds."""
    of = f"made {contents.made} on {contents.host} by watchout {contents.version}"
    ours = "" if contents.version == VERSION else f" (this is {VERSION})"
    return printable(f"{of}{ours}, {summary(contents)}")
