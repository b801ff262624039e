"""``watchout-ctl``: the group of commands, and the conversion of every failure to a sentence and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 and 143 ended by a signal.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from watchout.common.errors import WatchoutError
from watchout.ctl.environment import Failure, Interrupted

#: Commands in the order of the help, with what it says of them; each is in the module `ctl.commands.<name>`.
COMMANDS: Final = {
    "token": "Print a session token of the embedded store.",
    "addresses": "Print the addresses of console and sockets, with a QR code.",
    "publish": "Publish a file, a folder, a camera or a drawn scene.",
    "watch": "Watch a stream in the terminal.",
    "alert": "Send a test alert about a stream.",
    "shares": "List the shares of a stream, or end one.",
    "stats": "Show the router, the processes and the streams.",
    "latency": "Show how late frames and alerts are, hop by hop.",
    "why": "Say why a stream, viewer, user or alert was not seen.",
    "rehearse": "Put cameras and viewers on a system, and judge it.",
    "cluster": "Show hosts, slots, links, NATS, and what is missing.",
    "reservations": "List the reserved stream ids with their users, or release one.",
    "doctor": "Check settings, store, clocks, keys and ports.",
    "capacity": "Say what CPU, memory and network a load needs.",
    "backup": "Write what has to be kept of the home into one file, while it runs.",
    "restore": "Check a backup, and put it into the home.",
    "keys": "Keys of bridges on other machines, and certificates of a cluster's hosts.",
    "ml": "Try, replay and check an ML service.",
}


class Commands(click.Group):
    """The click group of `watchout-ctl`; it imports the module of a command only when that is used, to start fast."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their first sentences, for the help. Loads none of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, None if there is none."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"watchout.ctl.commands.{cmd_name}"), cmd_name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="watchout", prog_name="watchout-ctl")
def cli() -> None:
    """Work with a running watchout: publish frames, watch streams, raise alerts, see metrics.

    Settings come from the environment and from .env in the current directory.
    """


def main() -> None:
    """Run the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ?
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every failure is a sentence on stderr, not a traceback."""
    try:
        code = cli.main(list(arguments), prog_name="watchout-ctl", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except WatchoutError as exc:
        return _failed(str(exc))
    except Interrupted as exc:
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:
        return _failed(f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}")
    except Exception as exc:
        if os.environ.get("LOG_LEVEL", "").lower() == "debug":
            raise
        return _failed(f"a bug in watchout-ctl, {type(exc).__name__}: {exc} (LOG_LEVEL=debug shows where)")
    return code if isinstance(code, int) else 0


def _failed(sentence: str) -> int:
    """Print the sentence, and return the exit code 1."""
    Failure(sentence).show()
    return 1
