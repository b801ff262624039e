"""``watchout-ctl backup``: writes what has to be kept of the home into one file, while watchout runs."""

from __future__ import annotations

from pathlib import Path

import click

from watchout.common.settings import Settings
from watchout.ctl.backup.contents import summary
from watchout.ctl.backup.saving import save
from watchout.ctl.environment import home_option, read_environment


@click.command("backup", short_help="Write what has to be kept of the home into one file, while it runs.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@home_option
def backup(file: Path, home: str | None) -> None:
    """Write a backup of the home to FILE, which must not exist.

    It holds the embedded session store, shares, reservations, alerts that wait for their acknowledgement, and all keys
    and certificates, as they were at one moment each; watchout may run. FILE is a compressed tar archive that only its
    owner may read: whoever has it has the keys and the sessions.
    """
    settings = read_environment(home).settings
    contents = save(settings.home, file)
    click.echo(f"wrote {file} ({file.stat().st_size} bytes) of watchout {contents.version}: {summary(contents)}")
    for note in elsewhere(settings):
        click.echo(f"not in it: {note}", err=True)


def elsewhere(settings: Settings) -> list[str]:
    """Return what these settings keep outside the home, with how to keep it; each a part of a sentence."""
    notes = []
    if settings.database_url is not None:
        notes.append("users and sessions, which are in the database of DATABASE_URL: back that up with its own tools")
    if settings.bus:
        notes.append(
            f"shares and reservations of the cluster, which are in NATS: nats stream backup "
            f"KV_{settings.cluster_name}-records DIR"
        )
    return notes
