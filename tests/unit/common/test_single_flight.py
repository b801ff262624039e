"""One question at a time for all who ask, and no answer that is older than its request."""

from __future__ import annotations

import asyncio
import gc

import pytest

from watchout.common.service import Tasks
from watchout.common.toolbox.single_flight import SharedCalls, SingleFlight


class Oracle:
    """Answers with the number of the question, when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()

    async def ask(self) -> int:
        self.asked += 1
        number = self.asked
        await self.may_answer.wait()
        return number


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_asks_alone_is_answered() -> None:
    oracle = Oracle()
    oracle.may_answer.set()
    question = SingleFlight(oracle.ask, Tasks())
    assert [await question.result() for _ in range(3)] == [1, 2, 3]


async def test_who_comes_while_it_is_asked_shares_the_next_answer_with_all_who_wait() -> None:
    oracle = Oracle()
    question = SingleFlight(oracle.ask, Tasks())
    first = [asyncio.create_task(question.result()) for _ in range(10)]
    await turns()
    late = [asyncio.create_task(question.result()) for _ in range(10)]
    await turns()
    assert oracle.asked == 1
    oracle.may_answer.set()
    assert await asyncio.gather(*first, *late) == [1] * 10 + [2] * 10


async def test_who_waits_no_more_takes_the_answer_from_nobody() -> None:
    oracle = Oracle()
    question = SingleFlight(oracle.ask, Tasks())
    gone, stays = asyncio.create_task(question.result()), asyncio.create_task(question.result())
    await turns()
    gone.cancel()
    await turns()
    oracle.may_answer.set()
    assert await stays == 1
    assert gone.cancelled()


async def test_a_question_that_fails_fails_for_all_who_wait_and_the_next_is_asked() -> None:
    failing = [ValueError("once"), ValueError("twice")]

    async def ask() -> str:
        await asyncio.sleep(0)
        if failing:
            raise failing.pop()
        return "well"

    question = SingleFlight(ask, Tasks())
    for _ in range(2):
        answers = await asyncio.gather(question.result(), question.result(), return_exceptions=True)
        assert [type(answer) for answer in answers] == [ValueError, ValueError]
    assert await question.result() == "well"


async def test_after_all_was_cancelled_it_can_be_asked_again() -> None:
    oracle, tasks = Oracle(), Tasks()
    question = SingleFlight(oracle.ask, tasks)
    waiting = [asyncio.create_task(question.result())]
    await turns()
    waiting.append(asyncio.create_task(question.result()))
    await turns()
    await tasks.close()
    for task in waiting:
        with pytest.raises(asyncio.CancelledError):
            await task
    oracle.may_answer.set()
    assert await question.result() == 2


async def test_callers_of_one_key_join_the_call_that_is_under_way() -> None:
    oracle, calls = Oracle(), SharedCalls[str, int]("test")
    first, second = calls.join("a", oracle.ask), calls.join("a", oracle.ask)
    assert first is second
    assert "a" in calls
    assert "b" not in calls
    oracle.may_answer.set()
    assert await calls.join("b", oracle.ask) == 2
    assert await first == 1
    await turns()
    assert len(calls) == 0
    assert await calls.join("a", oracle.ask) == 3


async def test_a_call_goes_on_when_a_caller_leaves_it() -> None:
    oracle, calls = Oracle(), SharedCalls[str, int]("test")

    async def caller() -> int:
        return await asyncio.shield(calls.join("a", oracle.ask))

    gone, stays = asyncio.create_task(caller()), asyncio.create_task(caller())
    await turns()
    gone.cancel()
    await turns()
    oracle.may_answer.set()
    assert await stays == 1
    assert oracle.asked == 1


async def test_a_call_that_failed_is_made_again_and_logged_by_nobody() -> None:
    logged: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))

    async def fail() -> int:
        raise ValueError("once more")

    calls = SharedCalls[str, int]("test")
    calls.join("a", fail)
    await turns()
    gc.collect()
    assert logged == []
    with pytest.raises(ValueError, match="once more"):
        await calls.join("a", fail)


async def test_closing_cancels_the_calls_that_are_under_way() -> None:
    oracle, calls = Oracle(), SharedCalls[str, int]("test")
    task = calls.join("a", oracle.ask)
    await turns()
    await calls.close()
    assert task.cancelled()
