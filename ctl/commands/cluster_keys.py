"""``watchout-ctl keys cluster`` and ``keys host``: certificates of the frame mesh, and what all hosts share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from watchout.ctl import cluster_keys
from watchout.ctl.cluster_keys import AUTHORITY_DAYS, HOST_DAYS, Made
from watchout.ctl.environment import home_option, read_environment

_DIRECTORY: Final = click.option(
    "-d", "--directory", type=click.Path(path_type=Path, file_okay=False), default=Path("cluster-keys"),
    show_default=True, help="Directory of the cluster's keys.",
)  # fmt: skip


@click.command("cluster", short_help="Create the authority of a cluster's hosts, and the keys that they share.")
@_DIRECTORY
@click.option("--name", default="watchout", show_default=True, help="Name of the cluster, to tell authorities apart.")
@click.option("--days", type=click.IntRange(1, 36_500), default=AUTHORITY_DAYS, show_default=True)
@click.option("--force", is_flag=True, help="Replace what is there: every host then needs a new certificate.")
@home_option
def cluster(directory: Path, name: str, days: int, force: bool, home: str | None) -> None:
    """Create the authority that signs the certificates of a cluster's hosts, and the keys that all hosts share.

    What is there already stays. The shared keys are those of WATCHOUT_HOME, if it has them, so that tokens of shares
    stay valid when one machine becomes several.
    """
    settings = read_environment(home).settings
    made = cluster_keys.make_cluster(
        directory, name=name, days=days, home=settings.home, force=force, now=cluster_keys.utc_now()
    )
    _show(made, "authority")
    click.echo(
        f"\nKeep {directory} where no server runs: whoever has {cluster_keys.CA_KEY_FILE} can join the cluster.\n"
        f"Next, for each host:  watchout-ctl keys host NAME --address ADDRESS -d {directory}"
    )


@click.command("host", short_help="Create or renew the key and certificate of one host of a cluster.")
@click.argument("name")
@click.option(
    "--address", "addresses", multiple=True, help="Further host name, *.domain or IP address; may be repeated."
)
@_DIRECTORY
@click.option("--days", type=click.IntRange(1, 3_650), default=HOST_DAYS, show_default=True)
@click.option("--force", is_flag=True, help="Make a new key as well.")
def host(name: str, addresses: tuple[str, ...], directory: Path, days: int, force: bool) -> None:
    """Create the key and certificate of the host NAME, with all that is copied to it.

    The certificate names NAME and every --address; what MESH_LISTEN of that host advertises has to be one of them.
    Run it again to renew: a certificate that expires within 60 days, or with other addresses, is made anew for the same
    key, and anything else stays as it is.
    """
    made = cluster_keys.make_host(directory, name, addresses, days=days, force=force, now=cluster_keys.utc_now())
    _show(made, "certificate")
    click.echo(
        f"\nCopy what is in {made.place} into WATCHOUT_HOME of {name}, with its modes and owned by watchout's user:\n"
        f"  rsync -a {made.place}{os.sep} {name}:WATCHOUT_HOME/\n"
        "A running process takes a new certificate by itself; share.key and stream.key are read at its start."
    )


def _show(made: Made, what: str) -> None:
    for path in made.written:
        click.echo(f"written  {path}")
    for path in made.kept:
        click.echo(f"kept     {path}")
    click.echo(f"the {what} is valid until {made.not_after:%Y-%m-%d}")
