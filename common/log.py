"""Log lines: one event per line, as key=value on a terminal and under honcho, as JSON elsewhere.

Control characters in values are escaped and long values are cut. Callers never pass a token, cookie or picture.

Logging never raises and never blocks: a thread writes the lines (`common.log_writer`). After `setup` everything else
that the process writes to standard output and error takes the same way: records of the standard `logging`, warnings,
uncaught exceptions, and `print`.
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

from watchout.common.log_writer import LogWriter
from watchout.common.toolbox.plain_structlog import structlog

#: Longer values are cut at the end, in characters.
MAX_VALUE: Final = 500
#: Longer tracebacks are cut in the middle, in characters.
MAX_EXCEPTION: Final = 16_000
#: Seconds for which `flush` and `close` wait for queued lines by default.
FLUSH_S: Final = 1.0
#: Printed text without a newline is written as a line once it has more than this many characters.
MAX_UNFINISHED: Final = 8192

_STREAMS: Final = ("stdout", "stderr")


def setup(*, level: str, format: str, process: str, take_streams: bool = True) -> None:
    """Configure logging for this process.

    Args:
        level: Lowest level that is logged, such as ``info``.
        format: ``text``, ``json``, or ``auto``: text on a terminal and under honcho, JSON elsewhere.
        process: Name of the process, a field of each line.
        take_streams: Whether `sys.stdout` and `sys.stderr` are replaced by writers that never block. Commands that
            print for a user keep theirs: they should block and end together with their reader.

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
    if take_streams:  # of what libraries log, warnings and errors
        root = logging.getLogger()
        root.handlers = [_Handler()]
        root.setLevel(logging.WARNING)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.server").setLevel(logging.ERROR)


def set_level(level: str) -> None:
    """Change the lowest level that is logged, such as ``info``."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())))


_process: Final = ["watchout"]


def get(module: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a module, whose lines have the field ``module``: ``log.get("gateway.router_client")``."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=module)
    return logger


def dropped() -> int:
    """Return how many lines were dropped so far, because they could not be written or too many were queued."""
    return sum(writer.dropped for writer in _output.writers)


def flush(timeout_s: float = FLUSH_S) -> None:
    """Block until all queued lines are written, for `timeout_s` seconds at most."""
    for writer in _output.writers:
        writer.flush(timeout_s)


def close(timeout_s: float = FLUSH_S) -> None:
    """Write the queued lines, for `timeout_s` seconds at most, and drop all later ones."""
    for writer in _output.writers:
        writer.close(timeout_s)


class _Output:
    """The destination and format of all log lines of the process; the module has one instance.

    Before `take_streams` it writes to `sys.stdout` directly, as commands and tests need; afterwards to the threads of
    `LogWriter`.
    """

    def __init__(self) -> None:
        self._renderer: Any = structlog.processors.JSONRenderer()
        self._lines: LogWriter | None = None
        self.writers: list[LogWriter] = []

    def set_format(self, renderer: Any) -> None:
        """Set the function that turns an event into a line."""
        self._renderer = renderer

    def take_streams(self) -> None:
        """Replace `sys.stdout`, `sys.stderr` and Python's hooks by ones that log. Later calls do nothing."""
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
            if same not in known:  # one writer for both streams of one file, which keeps the order of lines
                known[same] = LogWriter(descriptor, self._dropped_line)
            setattr(sys, name, _Stream(known[same], original=stream))
        self.writers = list(dict.fromkeys(known.values()))
        self._lines = self.writers[0]
        sys.excepthook = _exception_hook
        sys.unraisablehook = _unraisable_hook
        threading.excepthook = _thread_hook
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        atexit.register(close)

    def write(self, line: str) -> None:
        """Write one line of the log. Never raises."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        if self._lines is not None:
            self._lines.put(data)
            return
        with contextlib.suppress(Exception):  # before `take_streams`
            stream = sys.stdout
            stream.write(data.decode())
            stream.flush()

    def render(self, _: object, method: str, event: MutableMapping[str, Any]) -> str:
        """Return the line of an event. Never raises: a value whose `str` raises is shown as its type."""
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

    def _dropped_line(self, lines: int) -> bytes:
        """Return the line that reports dropped lines."""
        text = self.render(None, "warning", {"event": "log lines were dropped", "lines": lines, "module": "common.log"})
        return text.encode("utf-8", "backslashreplace") + b"\n"


_stamp: Final = structlog.processors.TimeStamper(fmt="iso", utc=True)
_output: Final = _Output()


class _Logger:
    """The logger that structlog wraps: writes each finished line to `_output`, whatever its level."""

    def msg(self, message: str) -> None:
        """Write a line."""
        _output.write(message)

    debug = info = warning = error = critical = exception = log = msg


_logger: Final = _Logger()


class _Handler(logging.Handler):
    """Handler of the root logger of the standard `logging`: writes records of libraries as events."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. Never raises."""
        try:
            text = record.getMessage()
        except Exception:  # its arguments do not fit its text
            text = _safe(record.msg)
        event: dict[str, Any] = {"event": text, "module": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        _output.write(_output.render(None, record.levelname.lower(), event))


class _Stream(io.TextIOBase):
    """Replacement of `sys.stdout` or `sys.stderr` that hands whole lines to a `LogWriter`; never blocks or raises.

    `original` is the stream in whose place it stands.
    """

    def __init__(self, writer: LogWriter, original: TextIO | None) -> None:
        super().__init__()
        self._writer = writer
        self._original = original
        self._unfinished = threading.local()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """UTF-8, independent of the locale."""
        return "utf-8"

    def write(self, text: str) -> int:
        """Queue the complete lines of `text`; an unfinished line is kept per thread until its newline comes."""
        whole = getattr(self._unfinished, "text", "") + text
        end = len(whole) if len(whole) > MAX_UNFINISHED else whole.rfind("\n") + 1
        self._unfinished.text = whole[end:]
        if end:
            lines = whole[:end]
            self._writer.put((lines if lines.endswith("\n") else lines + "\n").encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: `print(flush=True)` must not block."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether the original stream is a terminal."""
        try:
            return self._original is not None and self._original.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """Return the descriptor of the original stream. Raises `OSError` when there is none."""
        if self._original is None:
            raise OSError("there is no such stream")
        return self._original.fileno()


def _is_terminal() -> bool:
    try:
        return sys.stdout is not None and sys.stdout.isatty()
    except ValueError:  # closed
        return False


def _occupy_standard_descriptors() -> None:
    """Open /dev/null as descriptors 0 to 2 where they are closed.

    Otherwise a socket or database opened later would get one of these numbers, and printed text would be written to it.
    """
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
    """Return a key that is equal for two descriptors of the same file or terminal."""
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


# ── hooks of Python ──────────────────────────────────────────────────────────────────────────────────────────────

_log: Final = get("python")


def _exception_hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _log.critical("this process ends because of an exception", exc_info=(kind, error, traceback))


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


# ── format of a line ─────────────────────────────────────────────────────────────────────────────────────────────


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
    """Set the name of this process in all further lines."""
    _process[0] = process


def _render_text(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    at = str(event.pop("timestamp", ""))[11:23]
    clock = "" if "HONCHO_PROCESS_NAME" in os.environ else at + " "  # honcho puts its own in front
    head = f"{clock}{event.pop('level', 'info'):<7} {event.pop('event', '')}"
    event.pop("process", None)
    exception = event.pop("exception", None)
    pairs = "".join(f" {key}={_format_value(value)}" for key, value in event.items() if value is not None)
    return head + pairs + (f"\n{exception}" if exception else "")


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text and text else repr(text)
