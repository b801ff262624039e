"""What counts as a documented function: the rule that `test_house` applies to what others call."""

from __future__ import annotations

import ast
import textwrap

import pytest

from tests.kit import api_docs


def faults(source: str) -> list[str]:
    tree = ast.parse(textwrap.dedent(source))
    return list(api_docs.faults(tree, api_docs.documented_methods([tree])))


DOCUMENTED = '''
    def move(stream: str, seconds: float) -> int:
        """Move a stream in time.

        Args:
            stream: Its id.
            seconds: How far, in seconds.

        Returns:
            Frames passed over.

        Raises:
            ValueError: It does not go so far.
        """
        if seconds > 9:
            raise ValueError(seconds)
        return 1
'''


def test_a_function_with_every_section_is_documented() -> None:
    assert faults(DOCUMENTED) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("    seconds: How far, in seconds.\n", "\n", "move: Args: lacks seconds"),
        ("    stream: Its id.", "    camera: Its id.", "move: Args: lacks stream"),
        ("    stream: Its id.", "    stream: Its id.\n            rate: Not there.", "move: Args: names rate"),
        ("Returns:\n            Frames passed over.\n", "", "move: Returns: is missing"),
        ("Raises:\n            ValueError: It does not go so far.\n", "", "move: Raises: lacks ValueError"),
        ("Move a stream in time.", "Move it. Raises `ValueError`.", "move: Raises: stands in the text"),
    ],
)
def test_what_is_taken_out_is_named(before: str, after: str, said: str) -> None:
    assert DOCUMENTED.count(before) == 1
    assert any(fault.startswith(said) for fault in faults(DOCUMENTED.replace(before, after)))


@pytest.mark.parametrize(
    "source",
    [
        'def on_frame(frame: bytes) -> None:\n    """Take a frame."""',
        'def size(frame: bytes) -> int:\n    """Return its size in bytes."""',
        'def size(frame: bytes) -> int:\n    """Drop the frame and return its size in bytes."""',
        'def full(frame: bytes) -> bool:\n    """Whether no more frames fit."""',
        "def _private(a: int, b: int) -> int:\n    return a",
        "class _Private:\n    def get(self, a: int, b: int) -> int:\n        return a",
        'class A:\n    """A."""\n    @property\n    def size(self) -> int:\n        """Bytes."""',
    ],
)
def test_what_one_sentence_can_say_needs_no_section(source: str) -> None:
    assert faults(source) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f() -> None: ...", "f: has no docstring"),
        ('class A:\n    """A."""\n    def f(self) -> None: ...', "A.f: has no docstring"),
        ('class A:\n    """A."""\n    def __init__(self, size: int) -> None: ...', "A.__init__: Args: lacks size"),
        ('def f(*parts: str, **more: str) -> None:\n    """F."""', "f: Args: lacks parts, more"),
        ('def f(frame: bytes) -> int:\n    """Take a frame."""', "f: Returns: is missing"),
    ],
)
def test_what_is_missing_is_named(source: str, said: str) -> None:
    assert [fault.startswith(said) for fault in faults(source)] == [True]


def test_a_protocol_documents_the_methods_of_those_that_name_it() -> None:
    source = '''
        class Sink(Protocol):
            """Takes frames."""

            def put(self, stream: str, frame: bytes) -> None:
                """Take a frame.

                Args:
                    stream: Its stream.
                    frame: The frame.
                """

        class Disk:
            """A `Sink` on disk."""

            def put(self, stream: str, frame: bytes) -> None:
                """Write it."""

        class Other:
            """Something else."""

            def put(self, stream: str, frame: bytes) -> None:
                """Write it."""
    '''
    assert faults(source) == ["Other.put: Args: lacks stream, frame"]


def test_the_text_of_a_class_documents_what_its_methods_share() -> None:
    source = '''
        class Machine:
            """Handles events. Each method returns the `Command`s to carry out; `now` is in seconds."""

            def on_frame(self, frame: bytes, now: float) -> list[Command]:
                """Handle a frame."""

            def on_alert(self, alert: bytes, level: int, now: float) -> list[Command]:
                """Handle an alert."""
    '''
    assert faults(source) == ["Machine.on_alert: Args: lacks alert, level"]


def test_an_exception_counts_unless_the_function_itself_catches_it() -> None:
    source = '''
        def f() -> None:
            """Do it."""
            try:
                raise KeyError
            except KeyError:
                raise ValueError from None
            try:
                pass
            finally:
                raise errors.BusError("text")

            def inner() -> None:
                raise TypeError

            error = OSError()
            raise error
    '''
    assert faults(source) == ["f: Raises: lacks BusError, ValueError"]
