"""The questions of `watchout-ctl why` that wait for the answers of members. Pure; `now` in seconds.

The router asks every gateway and bridge, and replies when all have answered or `ANSWER_S` are over. Who did not answer
is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from watchout.common.bus.messages import WHY_LEVEL, AskWhy, QueryReply, RefusedReply
from watchout.common.bus.reply_records import WhyReply
from watchout.common.why.answer import SilentProcess
from watchout.router.members import Member
from watchout.router.streams.stream import Send

#: Seconds within which members have to answer; they measure for two of them.
ANSWER_S: Final = 4.0
#: Questions that wait at once; further ones are refused.
MAX_INQUIRIES: Final = 16
#: Most bytes of answers in one reply; further ones are counted.
MAX_REPLY_BYTES: Final = 12 << 20


@dataclass(slots=True)
class _Inquiry:
    """One question: who asked, whose answers are missing, and the answers so far, with the router's own."""

    asker: bytes
    request: int
    until: float
    missing: dict[bytes, SilentProcess]
    answers: list[bytes]
    silent: list[SilentProcess] = field(default_factory=list)
    bytes: int = 0
    left_out: int = 0


class Inquiries:
    """All questions that wait. `MessageHandler` asks, and calls `on_answer` and `on_lost` for members and `due` often.

    Every method returns the messages to send.
    """

    def __init__(self) -> None:
        self._numbers = 0
        self._open: dict[int, _Inquiry] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(
        self, asker: bytes, request: int, about: str, members: Sequence[Member], own: bytes, now: float
    ) -> list[Send]:
        """Ask all members about a subject.

        Args:
            asker: The member that asks, `watchout-ctl`.
            request: The number of its query.
            about: The subject.
            members: All members.
            own: The router's own answer.
            now: The present time.

        Returns:
            A question for each gateway and bridge; without any, the reply. A refusal when too many questions wait.

        """
        if len(self._open) >= MAX_INQUIRIES:
            text = f"{MAX_INQUIRIES} questions wait for their answers, try again"
            return [Send(asker, RefusedReply(request=request, code="ROUTING_ERROR", message=text))]
        self._numbers = number = self._numbers + 1
        made = self._open[number] = _Inquiry(asker, request, now + ANSWER_S, {}, [own])
        for member in members:
            if member.hello.kind == "ctl":
                continue
            if member.hello.level >= WHY_LEVEL:
                made.missing[member.id] = _silent(member, f"no answer within {ANSWER_S:g} s")
            else:
                made.silent.append(_silent(member, "it is of an older release, which does not know this question"))
        asked = [Send(member, AskWhy(request=number, about=about)) for member in made.missing]
        return asked or self._finish(number)

    def on_answer(self, member: bytes, request: int, body: bytes) -> list[Send]:
        """Take the answer of a member; one that was not asked, or answers late or twice, is ignored.

        Args:
            member: The member.
            request: The number of the `AskWhy`.
            body: Its answer.
        """
        inquiry = self._open.get(request)
        if inquiry is None or inquiry.missing.pop(member, None) is None:
            return []
        if inquiry.bytes + len(body) > MAX_REPLY_BYTES:
            inquiry.left_out += 1
        else:
            inquiry.bytes += len(body)
            inquiry.answers.append(body)
        return [] if inquiry.missing else self._finish(request)

    def on_lost(self, member: bytes) -> list[Send]:
        """Do not wait for a member that is gone, and forget what it asked.

        Args:
            member: The member.
        """
        sends: list[Send] = []
        for number, inquiry in list(self._open.items()):
            if inquiry.asker == member:
                del self._open[number]
            elif (silent := inquiry.missing.pop(member, None)) is not None:
                gone = SilentProcess(kind=silent.kind, name=silent.name, host=silent.host, why="it ended meanwhile")
                inquiry.silent.append(gone)
                sends += [] if inquiry.missing else self._finish(number)
        return sends

    def due(self, now: float) -> list[Send]:
        """Return the replies to the questions whose time is over.

        Args:
            now: The present time.
        """
        late = [number for number, inquiry in self._open.items() if inquiry.until <= now]
        return [send for number in late for send in self._finish(number)]

    def _finish(self, number: int) -> list[Send]:
        inquiry = self._open.pop(number)
        body = WhyReply(
            answers=inquiry.answers, silent=[*inquiry.silent, *inquiry.missing.values()], left_out=inquiry.left_out
        )
        return [Send(inquiry.asker, QueryReply(request=inquiry.request, body=body))]


def _silent(member: Member, why: str) -> SilentProcess:
    return SilentProcess(kind=member.hello.kind, name=member.hello.name, host=member.hello.host, why=why)
