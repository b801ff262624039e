"""``watchout-ctl token``: a session token of the embedded store, for trying watchout out."""

from __future__ import annotations

import click

from watchout.ctl.environment import Failure, home_option, mint, read_environment


@click.command("token", short_help="Print a session token of the embedded store.")
@click.option("--user", metavar="NAME", help="Whose session it is; the same name is the same user each time.")
@home_option
def token(user: str | None, home: str | None) -> None:
    """Print a fresh session token of the embedded session store, and nothing else.

    The store (sessions.db in WATCHOUT_HOME) is made when it is missing.
    """
    settings = read_environment(home).settings
    if settings.database_url is not None:
        raise Failure(
            "sessions come from DATABASE_URL, not from the embedded store: sign in to that application and take the "
            "session token (the bearer token) that it gives"
        )
    click.echo(mint(settings, user))
