"""Log lines: one event a line, key=value on a terminal and under honcho, JSON elsewhere.

Control characters in values are escaped, long values are cut. No token, cookie or picture is ever given to a logger.

Logging never raises and never waits: lines go through `common.log_writer`. So does everything else that this process
says on its standard output and error: what libraries log, warnings, exceptions that nobody caught, `print`.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import stat
import sys
import threading
import warnings
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Final, TextIO

import structlog

from watchout.common.log_writer import LogWriter

MAX_VALUE: Final = 500
#: An exception's text is cut in the middle.
MAX_EXCEPTION: Final = 16_000
#: When the process ends, lines that wait get so long, in seconds.
FLUSH_S: Final = 1.0
#: A text that is printed without a new line is taken for a line at this length.
MAX_UNFINISHED: Final = 8192

_STREAMS: Final = ("stdout", "stderr")


def setup(*, level: str, format: str, process: str, take_streams: bool = True) -> None:
    """Configure logging for this process.

    Args:
        level: Least level that is logged.
        format: ``text``, ``json`` or ``auto``.
        process: Stands in each line.
        take_streams: Whether `sys.stdout` and `sys.stderr` become writers that never wait. A command that prints for
            its user, and ends when its reader does, keeps its own.

    """
    plain = format == "text" or (format == "auto" and (_is_terminal() or "HONCHO_PROCESS_NAME" in os.environ))
    _process[0] = process
    _output.set_format(_render_text if plain else structlog.processors.JSONRenderer())
    if take_streams:
        _output.take_streams()
    structlog.configure(
        processors=[_output.render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=lambda *_: _logger,
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    logging.raiseExceptions = False
    if take_streams:  # libraries speak through the standard logging; only what is wrong is of interest
        root = logging.getLogger()
        root.handlers = [_Handler()]
        root.setLevel(logging.WARNING)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.server").setLevel(logging.ERROR)


_process: Final = ["watchout"]


def get(room: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of one room, such as ``gateway.router_client``."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(room=room)
    return logger


def dropped() -> int:
    """Lines that could not be written, or were too many, so far."""
    return sum(writer.dropped for writer in _output.writers)


def flush(timeout_s: float = FLUSH_S) -> None:
    """Wait until what was said is written, at most so long."""
    for writer in _output.writers:
        writer.flush(timeout_s)


def close(timeout_s: float = FLUSH_S) -> None:
    """Write what waits, at most so long; what is said afterwards is dropped."""
    for writer in _output.writers:
        writer.close(timeout_s)


class _Output:
    """Where lines go, and how they are made."""

    def __init__(self) -> None:
        self._renderer: Any = structlog.processors.JSONRenderer()
        self._lines: LogWriter | None = None
        self.writers: list[LogWriter] = []

    def set_format(self, renderer: Any) -> None:
        """Lines look like this from now on."""
        self._renderer = renderer

    def take_streams(self) -> None:
        """Write in threads from now on. Once is enough; what a test has put in place of a stream is left alone."""
        if self.writers:
            return
        originals: list[TextIO | None] = [sys.stdout, sys.stderr]
        for stream in originals:
            with contextlib.suppress(Exception):
                if stream is not None:
                    stream.flush()
        _occupy_standard_descriptors()
        known: dict[tuple[int, int], LogWriter] = {}
        for name, stream in zip(_STREAMS, originals, strict=True):
            descriptor = _descriptor_of(stream)
            same = (-1, -1) if descriptor is None else _identity(descriptor)
            if same not in known:  # one writer where both lead to the same file: lines keep their order
                known[same] = LogWriter(descriptor, self._lost)
            setattr(sys, name, _Stream(known[same], original=stream))
        self.writers = list(dict.fromkeys(known.values()))
        self._lines = self.writers[0]
        sys.excepthook = _exception_hook
        sys.unraisablehook = _unraisable_hook
        threading.excepthook = _thread_hook
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        atexit.register(close)

    def say(self, line: str) -> None:
        """One line of the log. Never raises."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        if self._lines is not None:
            self._lines.put(data)
            return
        with contextlib.suppress(Exception):  # no thread: a command, or a test
            stream = sys.stdout
            stream.write(data.decode())
            stream.flush()

    def render(self, _: object, method: str, event: MutableMapping[str, Any]) -> str:
        """The line of an event. Never raises: a value that cannot be shown is named by its type."""
        try:
            return self._render(method, dict(event))
        except Exception:
            shown = {key: _safe(value) for key, value in event.items()}
            try:
                return self._render(method, shown)
            except Exception:
                return f"{method} {shown.get('event')}"

    def _render(self, method: str, event: dict[str, Any]) -> str:
        step: Any = structlog.processors.add_log_level(None, method, event)
        step = _stamp(None, method, step)
        step = structlog.processors.format_exc_info(None, method, step)
        return str(self._renderer(None, method, _cut(None, method, step)))

    def _lost(self, lines: int) -> bytes:
        text = self.render(None, "warning", {"event": "log lines were lost", "lines": lines, "room": "common.log"})
        return text.encode("utf-8", "backslashreplace") + b"\n"


_stamp: Final = structlog.processors.TimeStamper(fmt="iso", utc=True)
_output: Final = _Output()


class _Logger:
    """What structlog hands finished lines to."""

    def msg(self, message: str) -> None:
        """Say a line."""
        _output.say(message)

    debug = info = warning = error = critical = exception = log = msg


_logger: Final = _Logger()


class _Handler(logging.Handler):
    """Records of the standard logging become events like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say one record. Never raises."""
        try:
            text = record.getMessage()
        except Exception:  # its arguments do not fit its text
            text = _safe(record.msg)
        event: dict[str, Any] = {"event": text, "room": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        _output.say(_output.render(None, record.levelname.lower(), event))


class _Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` on a writer: whole lines go in; nobody waits, nothing raises."""

    def __init__(self, writer: LogWriter, original: TextIO | None) -> None:
        super().__init__()
        self._writer = writer
        self._original = original
        self._unfinished = threading.local()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """UTF-8, whatever the locale."""
        return "utf-8"

    def write(self, text: str) -> int:
        """Take a text; what has no new line yet waits for it, thread by thread."""
        whole = getattr(self._unfinished, "text", "") + text
        end = len(whole) if len(whole) > MAX_UNFINISHED else whole.rfind("\n") + 1
        self._unfinished.text = whole[end:]
        if end:
            lines = whole[:end]
            self._writer.put((lines if lines.endswith("\n") else lines + "\n").encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Nothing waits here, and what the writer holds is not waited for."""

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether the original is a terminal."""
        try:
            return self._original is not None and self._original.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """The original's. Raises `OSError` when there is none."""
        if self._original is None:
            raise OSError("there is no such stream")
        return self._original.fileno()


def _is_terminal() -> bool:
    try:
        return sys.stdout is not None and sys.stdout.isatty()
    except ValueError:  # closed
        return False


def _occupy_standard_descriptors() -> None:
    """A process that was started without them would get a socket or a database as its "standard output"."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _descriptor_of(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None


def _identity(descriptor: int) -> tuple[int, int]:
    """What is the same of two descriptors of one file."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return -1, descriptor
    if stat.S_ISCHR(found.st_mode):
        return found.st_rdev, -2
    return found.st_dev, found.st_ino


def _safe(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<a {type(value).__name__} that cannot be shown>"


# ── what Python itself has to say ────────────────────────────────────────────────────────────────────────────────

_log: Final = get("python")


def _exception_hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _log.critical("this process ends by an exception", exc_info=(kind, error, traceback))


def _unraisable_hook(unraisable: sys.UnraisableHookArgs) -> None:
    error = unraisable.exc_value
    shown = None if error is None else (type(error), error, unraisable.exc_traceback)
    _log.error(unraisable.err_msg or "an exception was ignored", where=_safe(unraisable.object), exc_info=shown)


def _thread_hook(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    name = None if args.thread is None else args.thread.name
    _log.error("a thread failed", thread=name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    _log.warning(str(message), category=category.__name__, where=f"{filename}:{lineno}")


# ── how a line looks ─────────────────────────────────────────────────────────────────────────────────────────────


def _cut(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            if key == "exception" and len(value) > MAX_EXCEPTION:
                event[key] = f"{value[: MAX_EXCEPTION // 2]}\n…\n{value[-MAX_EXCEPTION // 2 :]}"
            elif key != "exception" and len(value) > MAX_VALUE:
                event[key] = value[:MAX_VALUE] + "…"
    event["process"] = _process[0]
    return event


def rename(process: str) -> None:
    """From now on the lines of this process say that it is called so."""
    _process[0] = process


def _render_text(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    at = str(event.pop("timestamp", ""))[11:23]
    clock = "" if "HONCHO_PROCESS_NAME" in os.environ else at + " "  # honcho puts its own in front
    head = f"{clock}{event.pop('level', 'info'):<7} {event.pop('event', '')}"
    event.pop("process", None)
    exception = event.pop("exception", None)
    pairs = "".join(f" {key}={_fastpath(value)}" for key, value in event.items() if value is not None)
    return head + pairs + (f"\n{exception}" if exception else "")


def _fastpath(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text and text else repr(text)
