"""What every command starts from: settings, the options that commands share, tokens, one way to fail and one to run.

The environment is that of the process, over what `.env` in the current directory says (as honcho reads it).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click
import uvloop
from honcho.environ import parse

from watchout.common import log
from watchout.common.alerts.model import STREAM_ID
from watchout.common.errors import SettingsError
from watchout.common.home import prepare_home
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.common.settings import Settings, load
from watchout.identity import embedded_store

F = TypeVar("F", bound=Callable[..., Any])

_ANY_ADDRESS: Final = ("", "*", "::", "0.0.0.0")  # noqa: S104 - what a host setting may say, nothing is bound here
_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
#: Where clients connect at the gateway: an address that is copied with it is that of the gateway.
_OWN_PATH: Final = re.compile(r"/streams/(register|subscribe)\Z")


class Failure(click.ClickException):
    """What ends a command: one sentence on stderr, exit code 1."""

    def show(self, file: Any = None) -> None:
        """Print the sentence."""
        click.echo(f"watchout-ctl: {self.message}", file=file or sys.stderr)


class WrongSettings(Failure):
    """Settings that cannot be used: every fault on a line of its own, exit code 2."""

    exit_code = 2

    def __init__(self, error: SettingsError) -> None:
        super().__init__(str(error))
        self.faults = error.faults

    def show(self, file: Any = None) -> None:
        """Print every fault."""
        for fault in self.faults:
            click.echo(f"watchout-ctl: wrong setting: {fault}", file=file or sys.stderr)


class Interrupted(Exception):
    """A signal ended the command; `exit_code` is the shell's for it."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(number)


@dataclass(frozen=True, slots=True)
class Environment:
    """The checked settings, and the token that the environment names."""

    settings: Settings
    token: str | None


def read_environment(home: str | None = None, **given: str | None) -> Environment:
    """The environment of this command; `home` and other settings as options gave them. Raises `Failure`."""
    environ = {**_dotenv(), **os.environ, **{name: value for name, value in given.items() if value is not None}}
    if home is not None:
        environ["WATCHOUT_HOME"] = home
    try:
        return Environment(load(environ), environ.get("WATCHOUT_TOKEN", "").strip() or None)
    except SettingsError as error:
        raise WrongSettings(error) from None


def _dotenv() -> Mapping[str, str]:
    try:
        content = Path(".env").read_text(encoding="utf-8")
        values: dict[str, str] = parse(content)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:  # ValueError: not UTF-8, or a quote that does not end
        raise Failure(f".env in this directory cannot be read: {exc}") from None
    return values


def home_option(command: F) -> F:
    """`--home`, for the commands that need the bus or the embedded store."""
    return click.option(
        "--home", metavar="DIR", help="Home of the running watchout, instead of WATCHOUT_HOME (default .watchout)."
    )(command)


def edge_options(command: F) -> F:
    """`--url`, `--token`, `--wait` and `--home`, for the commands that are clients of the gateway."""
    for option in (
        home_option,
        click.option(
            "--wait", "wait_s", type=click.FloatRange(0), default=0.0, metavar="S", show_default=True,
            help="Keep trying to connect for so many seconds at the start.",
        ),
        click.option(
            "--token", metavar="TOKEN",
            help="Session token, instead of WATCHOUT_TOKEN. With the embedded session store one is made when none "
            "is given.",
        ),
        click.option("--url", metavar="URL", help="The gateway, instead of ws://127.0.0.1:$WATCHOUT_PORT."),
    ):  # fmt: skip
        command = option(command)
    return command


def stream_id(value: str) -> str:
    """A stream id of the protocol, as a type of click. Raises `click.BadParameter`."""
    if not STREAM_ID.match(value):
        raise click.BadParameter(f"{value!r} is no stream id: 1 to 128 of A-Z a-z 0-9 _ . : -")
    return value


def edge_url(given: str | None, settings: Settings) -> str:
    """The address of the gateway, without a trailing slash. Raises `click.UsageError`."""
    if given is None:
        host = "127.0.0.1" if settings.host in _ANY_ADDRESS else settings.host
        return f"ws://{f'[{host}]' if ':' in host else host}:{settings.port}"
    try:
        parts = urlsplit(given if "://" in given else f"ws://{given}")
        fits = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:
        fits = False
    if "@" in given:  # what stands before it is a secret
        raise click.UsageError("--url holds a user name or password, expected ws://host[:port]; the token is --token")
    if not fits:
        raise click.UsageError(f"--url is {given!r}, expected ws://host[:port] or wss://host[:port]")
    path = _OWN_PATH.sub("", parts.path.rstrip("/"))
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{path}"


def token_source(given: str | None, environment: Environment) -> Callable[[], str]:
    """Where a client takes its token from, asked once it is connected. Raises `Failure` when there is none."""
    token = given or environment.token
    if token is not None:
        if not token.isascii() or not token.isprintable():
            raise Failure("the token holds characters that no session token has")
        return lambda: token
    settings = environment.settings
    if settings.database_url is not None:
        raise Failure(
            "a session token is needed: sessions come from DATABASE_URL, so sign in to that application and give its "
            "session token (the bearer token) with --token or WATCHOUT_TOKEN"
        )
    return lambda: _mint_here(settings)


def token_origin(given: str | None, environment: Environment) -> str:
    """Where `token_source` takes its token from, as a sentence for when it is refused; empty when it was given."""
    if given or environment.token is not None:
        return ""
    home = environment.settings.home
    return f"it is of the session store in WATCHOUT_HOME={home}, which is not the one of the gateway that answers"


def _mint_here(settings: Settings) -> str:
    """A session in the embedded store of a watchout that runs, which has made its store. Raises `Failure`."""
    if not (settings.home / SESSION_STORE_FILE).exists():
        raise Failure(
            f"WATCHOUT_HOME={settings.home} holds no session store ({SESSION_STORE_FILE}): it is not the home of "
            "the watchout that answers. Give its home with --home or WATCHOUT_HOME, or a token with --token"
        )
    return mint(settings)


def mint(settings: Settings, user: str | None = None) -> str:
    """A fresh session in the embedded store, which is made when it is missing. Raises `StartError`, `Failure`."""
    prepare_home(settings.home)
    try:
        return embedded_store.mint_token(settings.home / SESSION_STORE_FILE, user)
    except ValueError as exc:
        raise Failure(str(exc)) from None


def run(settings: Settings, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end; SIGINT and SIGTERM cancel it, and then `Interrupted` is raised."""
    # Nothing but a command's own output belongs on stdout: rooms of `common` and libraries stay silent.
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr)
    log.setup(level="critical", format="text", process="ctl", take_streams=False)
    factory = uvloop.new_event_loop if settings.loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_until_signal(work))


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="command")
    came: list[int] = []

    def end(number: int) -> None:
        if came:  # the second signal does not wait
            os._exit(128 + number)
        came.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    try:
        await task
    except asyncio.CancelledError:
        if came:
            raise Interrupted(came[0]) from None
        raise
