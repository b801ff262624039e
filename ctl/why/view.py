"""Shows an explanation as text: what holds now, what happened, and what is not known. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from watchout.ctl.terminal import clock, counted, printable
from watchout.ctl.why.sentence import Explanation, Sentence


def render(explanation: Explanation, *, rows: int) -> list[Text]:
    """Return the explanation as lines.

    Args:
        explanation: What `explain` returned.
        rows: Most sentences of each part; of what happened, the newest.
    """
    lines = _lines("", explanation.now, rows, newest=False)
    lines += _lines("What happened", explanation.past, rows, newest=True)
    if explanation.found:
        lines += _lines("Meanwhile, for all clients", explanation.everybody, rows, newest=True)
    return lines + _lines("What is not known", explanation.limits, rows, newest=False)


def _lines(title: str, sentences: Sequence[Sentence], rows: int, *, newest: bool) -> list[Text]:
    if not sentences:
        return []
    indent = "  " if title else ""
    lines = [Text(), Text(title, "bold")] if title else []
    shown = sentences[-rows:] if newest else sentences[:rows]
    if left := len(sentences) - len(shown):
        lines.append(Text(f"{indent}({counted(left, 'sentence')} left out: --rows)", "bright_black"))
    for sentence in shown:
        line = Text(indent)
        if newest and sentence.at is not None:
            line.append(f"{clock(sentence.at)}  ", "cyan")
        lines.append(line.append(printable(sentence.text)))
    return lines
