"""``watchout-ctl keys``: key pairs of the bus over TCP, the bridges that may join, and certificates of a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import click

from watchout.common.bus.zeromq import curve
from watchout.common.bus.zeromq.curve import Pair
from watchout.common.home import prepare_home
from watchout.common.settings import Settings
from watchout.ctl.commands import cluster_keys
from watchout.ctl.environment import home_option, read_environment


@click.group("keys", short_help="Keys of bridges on other machines, and certificates of a cluster's hosts.")
def keys() -> None:
    """Keys of bridges on other machines, which join the router over TCP (CURVE), and of the hosts of a cluster.

    \b
    Where the router runs:
      watchout-ctl keys server                 creates its pair once, prints the public key for the bridges
      ROUTER_LISTEN=tcp://*:5550 honcho start
    Where the bridge runs:
      watchout-ctl keys client bridge.key      creates its pair, prints the public key for the router
    Where the router runs, at any time:
      watchout-ctl keys allow ml-team KEY
    Where the bridge runs:
      watchout-mlbridge --router tcp://HOST:5550 --router-key KEY --key-file bridge.key

    \b
    For a cluster, on one machine that is no host of it:
      watchout-ctl keys cluster                creates the authority of its hosts, and the keys that they share
      watchout-ctl keys host NAME --address IP creates what is copied to the host NAME; again: renews it

    Public keys are no secrets. Files with a secret key have mode 0600 and stay on their machine. The running
    router applies a change of the list within a second.
    """  # noqa: D301 - click looks for the character itself


keys.add_command(cluster_keys.cluster)
keys.add_command(cluster_keys.host)


def _home(home: str | None) -> Settings:
    """Return the settings, with their home created."""
    settings = read_environment(home).settings
    prepare_home(settings.home)
    return settings


@keys.command("server", short_help="Print the router's public key; create its pair if there is none.")
@home_option
def server(home: str | None) -> None:
    """Print the public key of this home's router, and nothing else.

    The pair (curve/server.key in WATCHOUT_HOME) is created if it does not exist. To replace it, remove that file, run
    this command again, restart the router, and set the new key at all bridges.
    """
    path = curve.server_file(_home(home).home)
    if path.exists():
        click.echo(curve.load_pair(path).public)
    else:
        click.echo(_create_pair(path, "this watchout's router").public)


@keys.command("client", short_help="Create a key pair for a bridge.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--allow", "name", metavar="NAME", help="Also allow it under this name, on the router's machine.")
@home_option
def client(file: Path, name: str | None, home: str | None) -> None:
    """Create a key pair for a bridge in FILE, and print its public key.

    Run this on the bridge's machine, so that the secret key never leaves it.
    """
    settings = None if name is None else _home(home)
    pair = _create_pair(file, "a bridge")
    if settings is not None and name is not None:
        try:
            curve.allow(settings.home, name, pair.public)
        except BaseException:
            file.unlink()  # both or neither
            raise
    click.echo(pair.public)


@keys.command("allow", short_help="Allow the bridge with this public key to join.")
@click.argument("name")
@click.argument("key")
@home_option
def allow(name: str, key: str, home: str | None) -> None:
    """Allow the bridge with the public key KEY to join the router, under the name NAME."""
    curve.allow(_home(home).home, name, key)


@keys.command("list", short_help="List the allowed keys.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the router's public key, and names and keys.")
@home_option
def list_keys(as_json: bool, home: str | None) -> None:
    """List the allowed bridges: name and public key, one a line."""
    settings = read_environment(home).settings
    known = curve.allowed(settings.home)
    if as_json:
        path = curve.server_file(settings.home)
        own = curve.load_pair(path).public if path.exists() else None
        click.echo(json.dumps({"server": own, "clients": known}))
        return
    for name, key in known.items():
        click.echo(f"{name}\t{key}")
    if not known:
        click.echo("no key is allowed; add one with `watchout-ctl keys allow NAME KEY`", err=True)


@keys.command("remove", short_help="Allow a bridge no longer.")
@click.argument("name")
@home_option
def remove(name: str, home: str | None) -> None:
    """Allow the bridge NAME no longer. A running router disconnects it within a second."""
    curve.remove(read_environment(home).settings.home, name)


def _create_pair(path: Path, whose: str) -> Pair:
    """Create a key pair in the file; `whose` is written into its comment."""
    pair = curve.new_pair()
    curve.write_pair(path, pair, whose)
    return pair
