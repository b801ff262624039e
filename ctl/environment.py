"""What all commands share: settings, common options, tokens, the exception for a failure, and the run of a coroutine.

Settings come from the environment of the process, and from `.env` in the current directory where it has no value.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import uvloop
from honcho.environ import parse

from watchout.common import log
from watchout.common.alerts.model import STREAM_ID
from watchout.common.errors import SettingsError
from watchout.common.home import prepare_home
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.common.settings import Settings, load
from watchout.common.toolbox.gateway_address import gateway_url
from watchout.identity import embedded_store

F = TypeVar("F", bound=Callable[..., Any])

_ANY_ADDRESS: Final = ("", "*", "::", "0.0.0.0")  # noqa: S104 - values of a setting, nothing is bound


class Failure(click.ClickException):
    """Ends a command with one sentence on stderr and exit code 1. Raised by commands and what they call, shown by
    click.
    """

    def show(self, file: Any = None) -> None:
        """Print the sentence to stderr."""
        click.echo(f"watchout-ctl: {self.message}", file=file or sys.stderr)


class WrongSettings(Failure):
    """Ends a command whose settings are invalid, with one line on stderr for each fault and exit code 2.

    Raised by `read_environment`.
    """

    exit_code = 2

    def __init__(self, error: SettingsError) -> None:
        super().__init__(str(error))
        self.faults = error.faults

    def show(self, file: Any = None) -> None:
        """Print each fault to stderr."""
        for fault in self.faults:
            click.echo(f"watchout-ctl: wrong setting: {fault}", file=file or sys.stderr)


class Interrupted(Exception):
    """SIGINT or SIGTERM ended the command. Raised by `run`; `ctl.app.run_command` returns `exit_code`, which is 128 +
    the signal's number, as in a shell.
    """

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(number)


@dataclass(frozen=True, slots=True)
class Environment:
    """The settings of a command and the value of ``WATCHOUT_TOKEN``. Made by `read_environment`."""

    settings: Settings
    token: str | None


def read_environment(home: str | None = None, **given: str | None) -> Environment:
    """Return the environment of this command; options (`home`, others by setting) win. Raises `Failure`."""
    environ = {**_dotenv(), **os.environ, **{name: value for name, value in given.items() if value is not None}}
    if home is not None:
        environ["WATCHOUT_HOME"] = home
    try:
        return Environment(load(environ), environ.get("WATCHOUT_TOKEN", "").strip() or None)
    except SettingsError as error:
        raise WrongSettings(error) from None


def _dotenv() -> Mapping[str, str]:
    """Return the variables of `.env`, read as honcho reads it."""
    try:
        content = Path(".env").read_text(encoding="utf-8")
        values: dict[str, str] = parse(content)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:  # ValueError: not UTF-8, or an unterminated quote
        raise Failure(f".env in this directory cannot be read: {exc}") from None
    return values


def home_option(command: F) -> F:
    """Add the option `--home`, for commands that use the bus or the embedded store."""
    return click.option(
        "--home", metavar="DIR", help="Home of the running watchout, instead of WATCHOUT_HOME (default .watchout)."
    )(command)


def edge_options(command: F) -> F:
    """Add the options `--url`, `--token`, `--wait` and `--home`, for commands that are clients of the gateway."""
    for option in (
        home_option,
        click.option(
            "--wait", "wait_s", type=click.FloatRange(0), default=0.0, metavar="S", show_default=True,
            help="Seconds in which the first connection is tried again.",
        ),
        click.option(
            "--token", metavar="TOKEN",
            help="Session token, instead of WATCHOUT_TOKEN. With the embedded session store one is created if none "
            "is given.",
        ),
        click.option("--url", metavar="URL", help="The gateway, instead of ws://127.0.0.1:$WATCHOUT_PORT."),
    ):  # fmt: skip
        command = option(command)
    return command


def stream_id(value: str) -> str:
    """Parse a stream id, as a click type. Raises `click.BadParameter`."""
    if not STREAM_ID.match(value):
        raise click.BadParameter(f"{value!r} is not a stream id: 1 to 128 of A-Z a-z 0-9 _ . : -")
    return value


def edge_url(given: str | None, settings: Settings) -> str:
    """Return the gateway's address without a trailing slash; by the settings where none is given.

    Raises `click.UsageError`.
    """
    if given is None:
        host = "127.0.0.1" if settings.host in _ANY_ADDRESS else settings.host
        return f"ws://{f'[{host}]' if ':' in host else host}:{settings.port}"
    try:
        return gateway_url(given, name="--url", credential="--token")
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def token_source(given: str | None, environment: Environment) -> Callable[[], str]:
    """Return a function that returns the token, called on each connection. Raises `Failure` when there is none."""
    token = given or environment.token
    if token is not None:
        if not token.isascii() or not token.isprintable():
            raise Failure("the token contains characters that no session token has")
        return lambda: token
    settings = environment.settings
    if settings.database_url is not None:
        raise Failure(
            "a session token is needed: sessions come from DATABASE_URL, so sign in to that application and give its "
            "session token (the bearer token) with --token or WATCHOUT_TOKEN"
        )
    return lambda: _mint_here(settings)


def token_origin(given: str | None, environment: Environment) -> str:
    """Return where `token_source` takes its token from, for the message when it is refused; empty if it was given."""
    if given or environment.token is not None:
        return ""
    home = environment.settings.home
    return f"it comes from the session store in WATCHOUT_HOME={home}, but the gateway at this address uses another one"


def _mint_here(settings: Settings) -> str:
    """Return the token of a new session in the embedded store of the running watchout. Raises `Failure`."""
    if not (settings.home / SESSION_STORE_FILE).exists():
        raise Failure(
            f"WATCHOUT_HOME={settings.home} holds no session store ({SESSION_STORE_FILE}): it is not the home of "
            "the running watchout. Give its home with --home or WATCHOUT_HOME, or a token with --token"
        )
    return mint(settings)


def mint(settings: Settings, user: str | None = None) -> str:
    """Return the token of a session in the embedded store, which is created if missing; the same one for days.

    Raises `StartError` if the home cannot be used, `Failure` for an invalid user name.
    """
    prepare_home(settings.home)
    try:
        return embedded_store.mint_token(settings.home / SESSION_STORE_FILE, user)
    except ValueError as exc:
        raise Failure(str(exc)) from None


def run(settings: Settings, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` in an event loop. SIGINT and SIGTERM cancel it; `Interrupted` is raised after that."""
    # stdout is for the command's own output: modules of `common` and libraries must not log to it.
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr)
    log.setup(level="critical", format="text", process="ctl", take_streams=False)
    factory = uvloop.new_event_loop if settings.loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_until_signal(work))


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or a signal cancels it; a second signal exits at once."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="command")
    received: list[int] = []

    def end(number: int) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    try:
        await task
    except asyncio.CancelledError:
        if received:
            raise Interrupted(received[0]) from None
        raise
