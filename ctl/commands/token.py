"""``watchout-ctl token``: prints a session token of the embedded store, to try watchout out."""

from __future__ import annotations

import click

from watchout.ctl.environment import Failure, home_option, mint, read_environment


@click.command("token", short_help="Print a session token of the embedded store.")
@click.option("--user", metavar="NAME", help="Name of the session's user; the same name is always the same user.")
@home_option
def token(user: str | None, home: str | None) -> None:
    """Print the session token of a user of the embedded session store, and nothing else.

    The store (sessions.db in WATCHOUT_HOME) is created if it does not exist.
    """
    settings = read_environment(home).settings
    if settings.database_url is not None:
        raise Failure(
            "sessions come from DATABASE_URL, not from the embedded store: sign in to that application and use its "
            "session token (the bearer token)"
        )
    click.echo(mint(settings, user))
