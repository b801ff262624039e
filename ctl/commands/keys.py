"""``watchout-ctl keys``: key pairs of the bus over TCP, and the list of bridges that the router lets in."""

from __future__ import annotations

import json
from pathlib import Path

import click

from watchout.common.bus.zeromq import curve
from watchout.common.bus.zeromq.curve import Pair
from watchout.common.home import prepare_home
from watchout.common.settings import Settings
from watchout.ctl.environment import home_option, read_environment


@click.group("keys", short_help="Make, list, let in and remove keys of bridges on other machines.")
def keys() -> None:
    """Keys of bridges on other machines, which join the router over TCP (CURVE).

    \b
    Where the router runs:
      watchout-ctl keys server                 makes its pair once, prints the public key for the bridges
      ROUTER_LISTEN=tcp://*:5550 honcho start
    Where the bridge runs:
      watchout-ctl keys client bridge.key      makes its pair, prints the public key for the router
    Where the router runs, at any time:
      watchout-ctl keys allow ml-team KEY
    Where the bridge runs:
      watchout-mlbridge --router tcp://HOST:5550 --router-key KEY --key-file bridge.key

    Public keys may be told to anybody. Files with a secret key have mode 0600 and stay where they are. The running
    router sees a change of the list within a second.
    """  # noqa: D301 - click looks for the character itself


def _home(home: str | None) -> Settings:
    settings = read_environment(home).settings
    prepare_home(settings.home)
    return settings


@keys.command("server", short_help="Print the router's public key; its pair is made when there is none.")
@home_option
def server(home: str | None) -> None:
    """Print the public key of this home's router, and nothing else.

    The pair (curve/server.key in WATCHOUT_HOME) is made when it is missing. To replace it, remove that file, ask for
    the key again, start the router anew, and tell all bridges.
    """
    path = curve.server_file(_home(home).home)
    if path.exists():
        click.echo(curve.load_pair(path).public)
    else:
        click.echo(_made(path, "this watchout's router").public)


@keys.command("client", short_help="Make a key pair for a bridge.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--allow", "name", metavar="NAME", help="Also let it in, under this name, when the router is here.")
@home_option
def client(file: Path, name: str | None, home: str | None) -> None:
    """Make a key pair in FILE, for a bridge, and print its public key.

    Do this where the bridge runs: then its secret key never leaves that machine.
    """
    settings = None if name is None else _home(home)
    pair = _made(file, "a bridge")
    if settings is not None and name is not None:
        try:
            curve.allow(settings.home, name, pair.public)
        except BaseException:
            file.unlink()  # all or nothing
            raise
    click.echo(pair.public)


@keys.command("allow", short_help="Let in the bridge with this public key.")
@click.argument("name")
@click.argument("key")
@home_option
def allow(name: str, key: str, home: str | None) -> None:
    """Let in the bridge that holds the secret to the public KEY, and call it NAME."""
    curve.allow(_home(home).home, name, key)


@keys.command("list", short_help="List the keys that are let in.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the router's public key, and names and keys.")
@home_option
def list_keys(as_json: bool, home: str | None) -> None:
    """List who is let in: name and public key, a line each."""
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
        click.echo("no key is let in; `watchout-ctl keys allow NAME KEY` lets one in", err=True)


@keys.command("remove", short_help="Let a bridge in no more.")
@click.argument("name")
@home_option
def remove(name: str, home: str | None) -> None:
    """Let in the bridge called NAME no more. A running router lets go of it within a second."""
    curve.remove(read_environment(home).settings.home, name)


def _made(path: Path, whose: str) -> Pair:
    pair = curve.new_pair()
    curve.write_pair(path, pair, whose)
    return pair
