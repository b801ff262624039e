"""Asks the routers of all slots, which ask their gateways and bridges, and puts their answers together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Final

from watchout.common import clock
from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import WHY_LEVEL, Query
from watchout.common.bus.reply_records import WhyReply
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.settings import Settings
from watchout.common.why.answer import SilentProcess, WhyAnswer, decode_answer
from watchout.ctl.bus_client import UNEXPECTED_REPLY, joined
from watchout.ctl.why.sentence import WhyFacts

#: Seconds within which a router has to reply: it waits up to 4 s for its members.
REPLY_S: Final = 8.0


async def survey(settings: Settings, about: str) -> WhyFacts:
    """Return what every process knows about a subject.

    Args:
        settings: The settings of the command.
        about: A stream, user, connection, alert or address.

    Returns:
        The answers, and who did not answer.

    Raises:
        Failure: No router is there.

    """
    now = clock.now_ms()
    async with joined(settings) as links:
        found = await asyncio.gather(*(_ask(link, about) for link in links.all()))
    replies = [each for each in found if isinstance(each, WhyReply)]
    missing = {slot: each for slot, each in enumerate(found) if isinstance(each, str)}
    return merged(about, now, replies, missing)


def merged(about: str, now: int, replies: Iterable[WhyReply], missing: dict[int, str]) -> WhyFacts:
    """Put the replies of the routers together: each process is a member of all, and answers each.

    Args:
        about: The subject.
        now: The time of the question, in ms since the epoch.
        replies: The replies.
        missing: The slots without one, and why.
    """
    answers: dict[object, WhyAnswer] = {}
    silent: dict[object, SilentProcess] = {}
    for reply in replies:
        for each in reply.silent:
            silent.setdefault((each.kind, each.name, each.host), each)
        for data in reply.answers:
            try:
                answer = decode_answer(data)
            except BusError as fault:
                silent["unreadable"] = SilentProcess(kind="a process", name="of another release", why=str(fault))
                continue
            key = answer.process or (answer.kind, answer.name, answer.pid)
            answers.setdefault(key, answer)
        if reply.left_out:
            why = "the reply of the router had no room for them"
            silent["left out"] = SilentProcess(kind="and", name=f"{reply.left_out} processes", why=why)
    answered = {(each.kind, each.name) for each in answers.values()}
    return WhyFacts(
        about=about, now=now, missing_slots=missing,
        answers=sorted(answers.values(), key=lambda each: (each.kind, each.name)),
        silent=[each for each in silent.values() if (each.kind, each.name) not in answered],
    )  # fmt: skip


async def _ask(link: BusClient, about: str) -> WhyReply | str:
    """Return the reply of one router, or why there is none."""
    if not link.live:
        return link.explain_absence().rstrip(".")
    if link.level < WHY_LEVEL:
        return "it is of an older release, which does not know this question"
    try:
        return await link.query(partial(_query, about), WhyReply, REPLY_S)
    except RouterUnavailable as error:
        return str(error).rstrip(".")
    except BusError:
        return UNEXPECTED_REPLY


def _query(about: str, number: int) -> Query:
    return Query(request=number, what="why", about=about)
